-- Run on any node: counts the rows. On a standby that has caught up there are as many as on the primary.
SELECT count(*) FROM testtable;
