-- Run on the primary: adds a million rows.
INSERT INTO testtable (data) SELECT md5(n::text) FROM generate_series(1, 1000000) AS n;
