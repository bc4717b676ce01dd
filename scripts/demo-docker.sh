#!/usr/bin/env bash
# The story of docs/from-the-article.md on this machine: every command line of that page, in its order, against three
# containers that stand for three servers. So the page is the demo, and the demo tests the page.
#
#   scripts/demo-docker.sh [--keep] [--build-only]
#
#   --keep         leave the cluster up, and say how to look at it
#   PROFILE=debug  which build of pgdock to take (debug or release)
#
# Needs Docker, and rights to use it. What it makes has the label pgdock.demo, is on a network of its own, and is removed at the end.
set -Eeuo pipefail

root=$(cd "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
page=$root/docs/from-the-article.md
profile=${PROFILE:-debug}
keep=no
for argument in "$@"; do
    case $argument in
    --keep) keep=yes ;;
    *)
        echo "demo-docker: unknown argument: $argument (known: --keep)" >&2
        exit 2
        ;;
    esac
done

# The page speaks of servers; here they are containers on a bridge.
net=pgdock-demo
subnet=${SUBNET:-172.31.78}
base=debian:trixie-slim
beside=pgdock-demo-beside
image=pgdock:17
work=$root/target/demo-docker
bin=$root/target/$profile

say() { printf '\n\033[1m── %s ──\033[0m\n' "$*"; }
fail() {
    echo "demo-docker: $*" >&2
    exit 1
}

down() {
    docker ps -aq --filter label=pgdock.demo | xargs -r docker rm -f -v >/dev/null 2>&1 || true
    docker ps -aq --filter "network=$net" | xargs -r docker rm -f -v >/dev/null 2>&1 || true
    docker volume ls -q | grep '^pgdock-demo-' | xargs -r docker volume rm -f >/dev/null 2>&1 || true
    docker network rm "$net" >/dev/null 2>&1 || true
}

docker version >/dev/null 2>&1 || fail "the Docker engine does not answer: install docker.io, and start dockerd (or the service docker)"
[ -x "$bin/pgdock" ] || fail "there is no $bin/pgdock: cargo build -p pgdock-cli"
[ -x "$bin/s3-test-server" ] || fail "there is no $bin/s3-test-server: cargo build -p pgdock-testkit --bin s3-test-server"

# The image that everybody has from Docker Hub, or the same made from the distribution's archive.
if ! docker image inspect "$base" >/dev/null 2>&1 && ! docker pull -q "$base" >/dev/null 2>&1; then
    command -v debootstrap >/dev/null || fail "$base cannot be pulled, and debootstrap is not there to make it"
    say "$base cannot be pulled: made by debootstrap"
    tree=$(mktemp -d)
    debootstrap --variant=minbase trixie "$tree" >/dev/null
    tar -C "$tree" -c . | docker import - "$base" >/dev/null
    rm -rf -- "$tree"
fi

say "Beside the servers: a registry, and a store that speaks S3"
if ! docker image inspect "$beside" >/dev/null 2>&1; then
    docker build -q --network host -t "$beside" - >/dev/null <<FILE
FROM $base
RUN apt-get update && apt-get install -y --no-install-recommends docker-registry && rm -rf /var/lib/apt/lists/*
RUN printf 'version: 0.1\\nstorage:\\n  filesystem:\\n    rootdirectory: /srv/registry\\nhttp:\\n  addr: 0.0.0.0:5000\\n' >/etc/docker/registry/demo.yml
FILE
fi
down
trap 'code=$?; [ "$keep" = yes ] || down; [ "$code" = 0 ] || echo "demo-docker: FAILED" >&2' EXIT
docker network create --subnet "$subnet.0/24" "$net" >/dev/null
docker run -d --label pgdock.demo --name pgdock-demo-registry --network "$net" --ip "$subnet.50" "$beside" \
    docker-registry serve /etc/docker/registry/demo.yml >/dev/null
docker run -d --label pgdock.demo --name pgdock-demo-s3 --network "$net" --ip "$subnet.51" \
    -v "$bin/s3-test-server:/usr/local/bin/s3-test-server:ro" "$beside" \
    s3-test-server --listen "$subnet.51:9000" --dir /srv --bucket mybucket >/dev/null

rm -rf -- "$work"
mkdir -p "$work/bin"
ln -s "$bin/pgdock" "$work/bin/pgdock"
(umask 077 && printf 'AWS_ACCESS_KEY_ID=pgdock-test\nAWS_SECRET_ACCESS_KEY=not-a-secret\n' >"$work/witness.env")
# The article's file.
mkdir "$work/env"
(umask 077 && cat >"$work/env/backup" <<ENV
S3_REGION=us-east-1
S3_ENDPOINT=http://$subnet.51:9000
S3_ACCESS_KEY_ID=pgdock-test
S3_SECRET_ACCESS_KEY=not-a-secret
S3_BUCKET=mybucket
S3_PREFIX=backup
POSTGRES_DATABASE=app
POSTGRES_USER=app
POSTGRES_PASSWORD=not-a-secret
POSTGRES_HOST=n1
SCHEDULE=@daily
ENV
)

# The lines of the page, as one script. `$ ` begins a command, `> ` goes on with it; a line that says how it ends must end so.
python3 - "$page" "$subnet" >"$work/story.sh" <<'PY'
import re, shlex, sys
page, subnet = sys.argv[1:]
here = {f"10.0.0.{n}": f"{subnet}.{10 + n}" for n in (1, 2, 3)}
here |= {"--executor docker": "--executor docker --engine unix:///var/run/docker.sock --network pgdock-demo", "--name shop": "--name pgdock-demo"}
here |= {"pgdock image build": "pgdock image build --network host"}
here |= {'"registry.example:5000/shop"': f'"{subnet}.50:5000/shop"\ntls = false'}
here |= {"10.0.0.100": f"{subnet}.100", "https://s3.example.com": f"http://{subnet}.51:9000"}
print("set -Eeu")
inside, commands = False, []
for line in open(page):
    line = line.rstrip("\n")
    if line.startswith("```"):
        inside = line == "```console"
    elif line.startswith("## "):
        commands.append(("say", line[3:]))
    elif inside and line.startswith("$ "):
        commands.append(("run", line[2:]))
    elif inside and (line == ">" or line.startswith("> ")) and commands:
        kind, text = commands[-1]
        commands[-1] = (kind, text + "\n" + line[2:])
for kind, text in commands:
    if kind == "say":
        print(f"printf '\\n\\033[1m── %s ──\\033[0m\\n' {shlex.quote(text)}")
        continue
    ends = re.search(r"# ends with (\d)", text)
    for name, value in sorted(here.items(), key=lambda pair: -len(pair[0])):
        text = text.replace(name, value)
    print(f"printf '\\033[1m$ %s\\033[0m\\n' {shlex.quote(text)}")
    if ends:
        print(f"code=0; {{ {text.split('# ends with')[0].strip()}; }} || code=$?; [ $code = {ends[1]} ]")
    else:
        print(text)
PY

# An application that knows nothing but the address that follows the primary. It says which node took each of its rows.
cat >"$work/client.sh" <<'CLIENT'
export PGCONNECT_TIMEOUT=1 PGUSER=app PGDATABASE=app PGSSLMODE=require
until psql -qc 'create table followed (id serial)' 2>/dev/null; do sleep 0.2; done
while :; do
    if node=$(timeout 3 psql -qAtc "insert into followed default values returning split_part(current_setting('cluster_name'), '/', 2)" 2>/dev/null); then
        echo "${node%%-*}"
    else
        echo nobody
    fi
    sleep 0.1
done
CLIENT
{
    until [ -s "$work/shop/secrets/app.password" ] && docker image inspect "$image" >/dev/null 2>&1; do sleep 0.5; done
    (umask 077 && printf 'PGPASSWORD=%s\n' "$(cat "$work/shop/secrets/app.password")" >"$work/client.env")
    docker run -d --label pgdock.demo --name pgdock-demo-client --network "$net" --env-file "$work/client.env" -e "PGHOST=$subnet.100" \
        -v "$work/client.sh:/client.sh:ro" --entrypoint /bin/sh "$image" /client.sh >/dev/null
} &

began=$SECONDS
cd "$work"
HOME=$work PATH=$work/bin:$PATH timeout 900 bash "$work/story.sh"

say "The client that followed the address"
docker logs pgdock-demo-client 2>&1 | uniq -c | awk '{ printf "%6d writes taken by %s\n", $1, $2 }'
took=$(docker logs pgdock-demo-client 2>&1 | grep '^n[0-9]' | uniq | tr '\n' ' ')
case $took in
"n1 n2 n1 "* | "n1 n3 n1 "*) ;;
*) fail "the address did not follow the primary from n1 to another and back: $took" ;;
esac
say "The story took $((SECONDS - began)) s, and every line of docs/from-the-article.md did what it says"
if [ "$keep" = yes ]; then
    echo "The cluster is up: cd $work/shop; PATH=$work/bin:\$PATH pgdock status"
else
    echo "Nothing is left running."
fi
