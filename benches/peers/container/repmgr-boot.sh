#!/bin/bash
# What booting a repmgr node does: sshd, PostgreSQL, repmgrd.
/usr/sbin/sshd
if [ -f /pgdata/data/PG_VERSION ]; then
    rm -f /pgdata/data/postmaster.pid
    runuser -u postgres -- pg_ctl -w -D /pgdata/data -l /var/log/pg/start.log start
    /peers/repmgrd.sh
fi
exec sleep infinity
