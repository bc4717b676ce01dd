#!/bin/sh
# Sees to it that the documentation keeps up with the code: links lead somewhere, the code map names files
# that exist, every finding of decide/ is in it, and no placeholder is left.
set -eu
cd "$(dirname -- "$0")/.."

faults=$(mktemp)
trap 'rm -f -- "$faults"' EXIT
fault() { echo "$1" >>"$faults"; }

documents=$(git ls-files '*.md')
for document in $documents; do
    dir=$(dirname -- "$document")
    # Links to files of the repository, without their anchors.
    grep -oE '\]\([^)]+\)' "$document" | sed 's/^](//; s/)$//; s/#.*//' | sort -u | while IFS= read -r link; do
        case $link in
        '' | http://* | https://* | mailto:*) ;;
        *) [ -e "$dir/$link" ] || fault "$document: the link leads nowhere: $link" ;;
        esac
    done
    # What a release must have filled in.
    grep -n 'FILL: ' "$document" | while IFS= read -r line; do fault "$document:$line"; done
done

# Files that ARCHITECTURE.md names, relative to the sources of a library or to the top.
# shellcheck disable=SC2016 # backticks are meant as such
grep -oE '`[a-z_/-]+\.rs`' ARCHITECTURE.md | tr -d '`' | sort -u | while IFS= read -r path; do
    [ -e "pgdock-core/src/$path" ] || [ -e "pgdock-makara/src/$path" ] || [ -e "$path" ] || fault "ARCHITECTURE.md: there is no such file: $path"
done
for path in pgdock-core/src/decide/*.rs; do
    name=decide/$(basename -- "$path")
    [ "$name" != decide/tests.rs ] || continue
    grep -qF "\`$name\`" ARCHITECTURE.md || fault "ARCHITECTURE.md: says nothing of $name"
done

# The tables of docs/failover.md are made from the results of the benchmark.
if command -v python3 >/dev/null 2>&1; then
    PYTHONDONTWRITEBYTECODE=1 python3 benches/peers/bench.py table --check 2>>"$faults" || true
fi

if [ -s "$faults" ]; then
    cat -- "$faults" >&2
    exit 1
fi
echo "documentation: links, code map and placeholders are in order"
