#!/usr/bin/env bash
# Writes src/statement/data/{functions,operators,relations}.txt from the catalogs of a scratch PostgreSQL, which
# listens on a Unix socket only and is removed at the end. What the catalogs cannot tell, the labels of
# src/statement/data/overrides.txt do.
#
# usage: scripts/functions.sh [BINDIR]      (default: /usr/lib/postgresql/15/bin; started as root, it runs the
#                                            server as the OS user postgres)
set -euo pipefail

bin=${1:-/usr/lib/postgresql/15/bin}
data=$(cd "$(dirname "$0")/../src/statement/data" && pwd)
scratch=$(mktemp -d)
as_server() { if [ "$(id -u)" = 0 ]; then (cd / && runuser -u postgres -- "$@"); else "$@"; fi; }
stop() { as_server "$bin/pg_ctl" -D "$scratch/pg" -m immediate -s stop || true; rm -rf "$scratch"; }
trap stop EXIT

if [ "$(id -u)" = 0 ]; then chown postgres "$scratch"; fi
as_server "$bin/initdb" -D "$scratch/pg" -U postgres --auth=trust --no-sync >/dev/null
as_server "$bin/pg_ctl" -D "$scratch/pg" -l "$scratch/log" -s -w start \
  -o "-c listen_addresses='' -c unix_socket_directories='$scratch' -c fsync=off"
query() { as_server "$bin/psql" -h "$scratch" -U postgres -d postgres -XAtq -F ' ' -c "$1"; }

# A name is a read when no overload that SQL can call is volatile. Words that the grammar keeps for itself
# (reserved, or usable as a column name only) are never the name of a function.
query "
  select case when bool_or(provolatile = 'v') then 'write' else 'read' end, proname
  from pg_proc
  where pronamespace = 'pg_catalog'::regnamespace
    and prokind in ('f', 'a', 'w')
    and not (proargtypes::oid[] && array['internal', 'cstring']::regtype[]::oid[])
    and prorettype not in ('internal'::regtype, 'cstring'::regtype, 'trigger'::regtype, 'event_trigger'::regtype,
      'fdw_handler'::regtype, 'index_am_handler'::regtype, 'tsm_handler'::regtype, 'language_handler'::regtype,
      'table_am_handler'::regtype)
  group by proname
  union all
  select 'grammar', word from pg_get_keywords() where catcode in ('R', 'C')" >"$scratch/functions"

# An override replaces what the catalogs say of the name.
grep -v '^#' "$data/overrides.txt" | grep -v '^$' >"$scratch/overrides"
awk '
  NR == FNR { if (sub(/\*$/, "", $2)) prefix[$2] = $1; else { exact[$2] = $1; print } next }
  $2 in exact { next }
  { for (p in prefix) if ($1 != "grammar" && index($2, p) == 1) $1 = prefix[p]; print }
' "$scratch/overrides" "$scratch/functions" | LC_ALL=C sort -k2,2 -k1,1r | awk '!seen[$2]++' >"$data/functions.txt"
query "select distinct 'read', oprname from pg_operator where oprnamespace = 'pg_catalog'::regnamespace" |
  LC_ALL=C sort -k2,2 >"$data/operators.txt"

# Views whose rows are facts of one server or of one connection: those built on such a function. (Names that begin with
# pg_stat_ or pg_statio_ are known by their prefix.)
views() {
  functions=$(awk -v class="$1" '$1 == class { printf "%s%s", sep, $2; sep = "|" }' "$data/functions.txt")
  query "
    select '$1', relname
    from pg_class
    where relnamespace = 'pg_catalog'::regnamespace and relkind = 'v' and relname !~ '^pg_stat(io)?_'
      and pg_get_viewdef(oid) ~ '\m($functions)\('"
}
{ views node; views pin-current; } | LC_ALL=C sort -k2,2 -k1,1 | awk '!seen[$2]++' >"$data/relations.txt"
wc -l "$data"/*.txt
