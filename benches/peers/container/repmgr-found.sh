#!/bin/bash
# repmgr-found.sh primary | standby ADDRESS: makes a node's data directory and registers it. Runs as postgres.
set -euo pipefail
data=/pgdata/data
conf=/etc/peers/repmgr.conf
if [ "$1" = primary ]; then
    initdb -D "$data" -U postgres --auth=trust -E UTF8 --no-instructions >/dev/null
    cat /etc/peers/postgresql.conf >>"$data/postgresql.conf"
    cat >"$data/pg_hba.conf" <<'HBA'
local all         all           trust
local replication all           trust
host  all         all 0.0.0.0/0 trust
host  replication all 0.0.0.0/0 trust
HBA
    pg_ctl -w -D "$data" -l /var/log/pg/start.log start >/dev/null
    createuser -s repmgr
    createdb -O repmgr repmgr
    repmgr -f "$conf" primary register
else
    repmgr -h "$2" -U repmgr -d repmgr -f "$conf" standby clone --fast-checkpoint
    pg_ctl -w -D "$data" -l /var/log/pg/start.log start >/dev/null
    repmgr -f "$conf" standby register --upstream-node-id=1
fi
