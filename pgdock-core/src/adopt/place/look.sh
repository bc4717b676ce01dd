set -u
data=$(readlink -f -- "$DATA" || printf %s "$DATA")
alive() { case $(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null) in '' | Z* | X*) return 1 ;; esac }
# The postmaster of this data directory: a number in a lock file that a crash left may be another program's by now.
postmaster() {
    pid=$(head -n 1 "$data/postmaster.pid" 2>/dev/null) || return 1
    [ -n "$pid" ] && alive "$pid" && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = postgres ] || return 1
    ! readlink "/proc/$pid/cwd" >/dev/null 2>&1 || [ "/proc/$pid/cwd" -ef "$data" ]
}

if [ ! -e "$data/PG_VERSION" ] && [ -e "$HOME_DIR/data/PG_VERSION" ]; then
    echo stands=taken
elif [ ! -e "$data/PG_VERSION" ]; then
    echo 'obstacle=there is no data directory'
else
    if postmaster; then
        echo stands=running
    else
        echo stands=stopped
    fi
    stat -c 'owner=%U' -- "$data"
    at=$HOME_DIR
    while [ ! -e "$at" ]; do at=$(dirname -- "$at"); done
    device=$(stat -c %d -- "$data")
    if [ -e "$HOME_DIR/data" ] && [ -n "$(ls -A "$HOME_DIR/data")" ]; then
        echo 'obstacle=there is another data directory in the home already'
    elif [ "$device" != "$(stat -c %d -- "$data/..")" ]; then
        echo 'obstacle=the data directory is a file system of its own, and cannot be moved: move its content into a folder of it'
    elif [ "$device" != "$(stat -c %d -- "$at")" ]; then
        echo 'obstacle=the home is not on the file system of the data directory: choose another --root'
    elif [ ! -w "$data" ] || [ ! -w "$(dirname -- "$data")" ]; then
        echo 'obstacle=the data directory belongs to somebody else: run this as root, or as its owner'
    fi
fi
for comm in /proc/[0-9]*/comm; do
    pid=${comm#/proc/}
    pid=${pid%/comm}
    if [ "$(cat "$comm" 2>/dev/null)" = repmgrd ] && alive "$pid"; then echo "repmgrd=$pid"; fi
done
exit 0
