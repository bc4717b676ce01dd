#!/bin/bash
# repmgr-rejoin.sh ADDRESS: what an operator does with a former primary: stops it in order, then rejoins it
# to the new one. Runs as postgres.
data=/pgdata/data
if pg_ctl -D "$data" status >/dev/null 2>&1; then
    pg_ctl -D "$data" -m fast -w stop >/dev/null
else
    # pg_rewind wants a data directory that was shut down in order.
    rm -f "$data/postmaster.pid"
    postgres --single -D "$data" postgres </dev/null >/dev/null 2>&1
fi
exec repmgr -f /etc/peers/repmgr.conf node rejoin -d "host=$1 user=repmgr dbname=repmgr connect_timeout=2" --force-rewind
