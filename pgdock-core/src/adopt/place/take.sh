set -eu
data=$(readlink -f -- "$DATA" || printf %s "$DATA")
alive() { case $(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null) in '' | Z* | X*) return 1 ;; esac }
# The postmaster of this data directory: a number in a lock file that a crash left may be another program's by now.
postmaster() {
    pid=$(head -n 1 "$data/postmaster.pid" 2>/dev/null) || return 1
    [ -n "$pid" ] && alive "$pid" && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = postgres ] || return 1
    ! readlink "/proc/$pid/cwd" >/dev/null 2>&1 || [ "/proc/$pid/cwd" -ef "$data" ]
}
refuse() {
    echo "$1" >&2
    exit 4
}

if [ ! -e "$data/PG_VERSION" ] && [ -e "$HOME_DIR/data/PG_VERSION" ]; then exit 0; fi
[ -e "$data/PG_VERSION" ] || refuse "there is no data directory at $data"
if [ -e "$HOME_DIR/data" ] && [ -n "$(ls -A "$HOME_DIR/data")" ]; then refuse "there is something in $HOME_DIR/data already"; fi
for comm in /proc/[0-9]*/comm; do
    pid=${comm#/proc/}
    pid=${pid%/comm}
    if [ "$(cat "$comm" 2>/dev/null)" = repmgrd ] && alive "$pid"; then refuse "repmgrd runs on this machine, pid $pid"; fi
done

# Before anything is stopped: whatever cannot be written is told while nothing has happened.
mkdir -p -- "$HOME_DIR/before-pgdock"
for name in postgresql.auto.conf postgresql.conf pg_hba.conf pg_ident.conf; do
    if [ -e "$data/$name" ] && [ ! -e "$HOME_DIR/before-pgdock/$name" ]; then
        cp -p -- "$data/$name" "$HOME_DIR/before-pgdock/.$name"
        mv -- "$HOME_DIR/before-pgdock/.$name" "$HOME_DIR/before-pgdock/$name"
    fi
done

if postmaster; then
    kill -INT "$pid"
    tries=$((LIMIT * 20))
    while alive "$pid"; do
        tries=$((tries - 1))
        if [ "$tries" -le 0 ]; then
            echo "PostgreSQL did not stop within $LIMIT s" >&2
            exit 3
        fi
        sleep 0.05
    done
fi

echo '# What ALTER SYSTEM had set before pgdock is in its settings, and in before-pgdock/.' >"$data/postgresql.auto.conf"
if [ -e "$HOME_DIR/data" ]; then rmdir -- "$HOME_DIR/data"; fi
mv -T -- "$data" "$HOME_DIR/data"
sync -- "$HOME_DIR" "$(dirname -- "$data")" 2>/dev/null || sync
