-- Run on the primary: makes a table to test replication with.
CREATE TABLE IF NOT EXISTS testtable (id serial, data text);
