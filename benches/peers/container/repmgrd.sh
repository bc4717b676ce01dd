#!/bin/bash
# Starts repmgrd where it does not run.
pgrep -x repmgrd >/dev/null && exit
exec runuser -u postgres -- repmgrd -f /etc/peers/repmgr.conf --daemonize=true -p /var/run/postgresql/repmgrd.pid
