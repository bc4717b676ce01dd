#!/bin/sh
# Sees to it that this machine has what pgdock needs to build, test and run its demo, and says what it
# found. Running it again changes nothing.
#
#   scripts/setup.sh           find what is needed; install what is missing where apt can (Debian, Ubuntu)
#   scripts/setup.sh --check   only report: ends with 1 if something is missing
#   scripts/setup.sh --tests   also what only tests need: etcd, sshd, Docker with an image, and networks, packet filters and
#                              clocks of their own
#
# PGDOCK_BIN_DIR=DIR names the folder of PostgreSQL's programs, where it is none of the usual ones.
#
# What it never does: install Rust, start PostgreSQL, or touch a PostgreSQL that is there already.
set -eu

MAJOR_MIN=14
MAJOR_MAX=18
PROGRAMS="postgres initdb pg_basebackup pg_rewind pg_controldata"

usage() {
    sed -n '2,/^set -eu/{s/^# \{0,1\}//;/^set -eu/d;p;}' "$0"
}

check_only=no
tests=no
for argument in "$@"; do
    case "$argument" in
    --check) check_only=yes ;;
    --tests) tests=yes ;;
    -h | --help)
        usage
        exit 0
        ;;
    *)
        echo "setup: unknown argument: $argument (known: --check, --tests, --help)" >&2
        exit 2
        ;;
    esac
done

missing=0
have() { command -v "$1" >/dev/null 2>&1; }
found() { printf '  %-12s %s\n' "$1" "$2"; }
lacking() {
    printf '  %-12s MISSING: %s\n' "$1" "$2"
    missing=$((missing + 1))
}
hint() { printf '  %-12s   %s\n' '' "$1"; }

# ---------------------------------------------------------------------------------------------------------
# How this machine installs things.

package_manager() {
    for manager in apt-get dnf pacman apk zypper brew; do
        if have "$manager"; then
            echo "$manager"
            return
        fi
    done
    echo none
}
manager=$(package_manager)

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

# Whether something may be installed here: by apt, and as root, or by a sudo that can ask or need not.
can_install() {
    [ "$check_only" = no ] && [ "$manager" = apt-get ] || return 1
    [ "$(id -u)" = 0 ] || { have sudo && { [ -t 0 ] || sudo -n true 2>/dev/null; }; }
}

# How a person installs a thing, by what each system calls it: apt, dnf, pacman, apk, zypper, brew.
how() {
    case $manager in
    apt-get) hint "apt-get install $1" ;;
    dnf) hint "dnf install $2" ;;
    pacman) hint "pacman -S $3" ;;
    apk) hint "apk add $4" ;;
    zypper) hint "zypper install $5" ;;
    brew) hint "brew install $6" ;;
    *) hint "install it by this system's own means" ;;
    esac
}

# Runs apt-get, and shows what it says only if it fails: then what is missing is reported as such.
apt_get() {
    log=$(mktemp)
    if ! as_root env DEBIAN_FRONTEND=noninteractive apt-get -y "$@" </dev/null >"$log" 2>&1; then
        cat -- "$log" >&2
        echo "setup: apt-get $* failed" >&2
    fi
    rm -f -- "$log"
}

updated=no
apt_install() {
    if [ "$updated" = no ]; then
        echo "setup: apt-get update" >&2
        apt_get update
        updated=yes
    fi
    echo "setup: apt-get install $*" >&2
    apt_get install --no-install-recommends "$@"
}

# ---------------------------------------------------------------------------------------------------------
# PostgreSQL.

# The major version of the programs in a folder, or nothing if they are not all there, or do not run.
major_of() {
    for program in $PROGRAMS; do
        [ -x "$1/$program" ] || return 0
    done
    "$1/postgres" --version 2>/dev/null | sed -n 's/^postgres (PostgreSQL) \([0-9][0-9]*\).*/\1/p'
}

in_range() {
    [ -n "$1" ] && [ "$1" -ge "$MAJOR_MIN" ] && [ "$1" -le "$MAJOR_MAX" ]
}

# All usable installations, one a line, "MAJOR DIR", the newest first.
installations() {
    {
        if [ -n "${PGDOCK_BIN_DIR-}" ]; then
            candidates=$PGDOCK_BIN_DIR
            printf '%s\n' "$candidates"
        else
            for dir in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /usr/local/pgsql/bin /opt/homebrew/opt/postgresql@*/bin; do
                [ -d "$dir" ] && printf '%s\n' "$dir"
            done
            on_path=$(command -v postgres || true)
            [ -n "$on_path" ] && dirname -- "$(readlink -f -- "$on_path")"
        fi
    } | while IFS= read -r dir; do
        major=$(major_of "$dir")
        if in_range "$major"; then
            printf '%s %s\n' "$major" "$dir"
        fi
    done | sort -u | sort -k1,1nr
}

clusters() {
    if have pg_lsclusters; then
        pg_lsclusters -h 2>/dev/null | awk '{ print $1, $2 }'
    fi
}

# Installs the newest PostgreSQL that apt knows of and pgdock can run. Debian's packages make a cluster
# "main" and start it: it would sit on port 5432, so they are told not to.
install_postgresql() {
    before=$(clusters)
    apt_install postgresql-common
    conf=/etc/postgresql-common/createcluster.conf
    if ! grep -Eq '^[[:space:]]*create_main_cluster' "$conf" 2>/dev/null; then
        echo "setup: $conf: create_main_cluster = false" >&2
        echo 'create_main_cluster = false' | as_root tee -a "$conf" >/dev/null
    fi
    major=$MAJOR_MAX
    while [ "$major" -ge "$MAJOR_MIN" ]; do
        if apt-cache policy "postgresql-$major" 2>/dev/null | grep -q 'Candidate: [0-9]'; then
            apt_install "postgresql-$major" "postgresql-client-$major"
            break
        fi
        major=$((major - 1))
    done
    if [ "$major" -lt "$MAJOR_MIN" ]; then
        echo "setup: this release of the system has no PostgreSQL $MAJOR_MIN to $MAJOR_MAX; add the project's own packages:" >&2
        echo "setup:   /usr/share/postgresql-common/pgdg/apt.postgresql.org.sh" >&2
        return 0
    fi
    clusters | while read -r version name; do
        if ! printf '%s\n' "$before" | grep -qxF "$version $name"; then
            echo "setup: stopping the new cluster $version/$name" >&2
            as_root pg_ctlcluster "$version" "$name" stop </dev/null >&2 || true
        fi
    done
}

postgresql() {
    list=$(installations)
    if [ -z "$list" ] && [ -z "${PGDOCK_BIN_DIR-}" ] && can_install; then
        install_postgresql
        list=$(installations)
    fi
    if [ -z "$list" ]; then
        if [ -n "${PGDOCK_BIN_DIR-}" ]; then
            lacking PostgreSQL "PGDOCK_BIN_DIR=$PGDOCK_BIN_DIR does not hold $PROGRAMS of version $MAJOR_MIN to $MAJOR_MAX"
        else
            lacking PostgreSQL "$MAJOR_MIN to $MAJOR_MAX with $PROGRAMS"
            how postgresql 'postgresql-server postgresql-contrib' postgresql 'postgresql postgresql-contrib' \
                'postgresql-server postgresql-contrib' postgresql@17
            hint "if it is there already: PGDOCK_BIN_DIR=DIR $0"
        fi
        return
    fi
    label=PostgreSQL
    printf '%s\n' "$list" | while read -r _ dir; do
        found "$label" "$("$dir/postgres" --version | sed 's/^postgres (PostgreSQL) //') in $dir"
        label=
    done
    if [ "$(id -u)" = 0 ]; then
        # PostgreSQL refuses to run as root: pgdock drops to this user.
        if id postgres >/dev/null 2>&1; then
            found 'OS user' "postgres, as which PostgreSQL runs while pgdock is root"
        else
            lacking 'OS user' "postgres: PostgreSQL does not run as root"
            hint "useradd --system --home-dir /var/lib/postgresql --shell /bin/sh postgres"
        fi
    fi
}

# ---------------------------------------------------------------------------------------------------------
# What the build needs.

rust() {
    if ! have cargo && [ -x "${CARGO_HOME:-${HOME-}/.cargo}/bin/cargo" ]; then
        lacking Rust "cargo is in ${CARGO_HOME:-$HOME/.cargo}/bin, which is not in PATH"
        hint ". \"${CARGO_HOME:-$HOME/.cargo}/env\""
        return
    fi
    wanted=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$(dirname -- "$0")/../Cargo.toml")
    if ! have cargo; then
        lacking Rust "$wanted or newer"
        hint "https://rustup.rs: curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
        return
    fi
    is=$(cargo --version | sed -n 's/^cargo \([0-9][0-9.]*\).*/\1/p')
    if [ "$(printf '%s\n%s\n' "$wanted" "$is" | sort -V | head -n 1)" = "$wanted" ]; then
        found Rust "$is"
    else
        lacking Rust "$wanted or newer; there is $is"
        hint "rustup update stable"
    fi
}

# The cryptography library aws-lc is C, and is built from source.
compiler() {
    if { ! have cc || ! have make || ! compiles; } && can_install; then
        apt_install gcc libc6-dev make
    fi
    if ! have cc; then
        lacking 'C compiler' "cc, for aws-lc"
        how 'gcc libc6-dev' gcc base-devel build-base gcc gcc
    elif ! compiles; then
        lacking 'C compiler' "cc cannot build a program: the C library's headers are missing"
        how libc6-dev glibc-devel base-devel musl-dev glibc-devel gcc
    else
        found 'C compiler' "$(cc --version | head -n 1)"
    fi
    if have make; then
        found make "$(make --version | head -n 1)"
    else
        lacking make "the Makefile's commands"
        how make make base-devel make make make
    fi
}

compiles() {
    dir=$(mktemp -d)
    printf '#include <stdio.h>\nint main(void) { return puts("") < 0; }\n' >"$dir/a.c"
    built=no
    cc -o "$dir/a" "$dir/a.c" 2>/dev/null && built=yes
    rm -rf -- "$dir"
    [ "$built" = yes ]
}

# ---------------------------------------------------------------------------------------------------------
# What runs need of the machine.

machine() {
    if [ "$(uname -s)" != Linux ]; then
        lacking Linux "pgdock runs nodes on Linux; this is $(uname -s)"
        return
    fi
    # Linux answers on all of 127.0.0.0/8, as long as the loopback interface is up.
    if [ "$(cat /sys/class/net/lo/operstate 2>/dev/null || echo absent)" != down ]; then
        found loopback "127.0.0.0/8"
    else
        lacking loopback "the loopback interface is down"
        hint "ip link set lo up"
    fi
}

# ---------------------------------------------------------------------------------------------------------
# What inflicts faults. Without it those tests say that they cannot run.

faults() {
    for need in ip:iproute2 nft:nftables unshare:util-linux nsenter:util-linux; do
        program=${need%%:*}
        package=${need#*:}
        if ! have "$program" && can_install; then
            apt_install "$package"
        fi
        if have "$program"; then
            found "$program" "$(command -v "$program")"
        else
            lacking "$program" "for tests that inflict faults"
            how "$package" "$package" "$package" "$package" "$package" "$package"
        fi
    done
    if ! faketime && can_install; then
        apt_install libfaketime
    fi
    if faketime; then
        found libfaketime "for clocks that jump"
    else
        lacking libfaketime "for clocks that jump, in tests that inflict faults"
        how libfaketime libfaketime libfaketime libfaketime libfaketime libfaketime
    fi
}

# The repmgr whose cluster is taken over in a test, for a PostgreSQL that is here. Debian's package starts no repmgrd.
repmgr_programs() {
    for pass in look install; do
        installations | while read -r major dir; do
            if [ -x "$dir/repmgr" ]; then
                echo "$dir/repmgr"
                break
            fi
            if [ "$pass" = install ] && can_install && apt-cache policy "postgresql-$major-repmgr" 2>/dev/null | grep -q 'Candidate: [0-9]'; then
                apt_install "postgresql-$major-repmgr" >&2
                [ ! -x "$dir/repmgr" ] || echo "$dir/repmgr"
                break
            fi
        done
    done | sed -n 1p
}

takeovers() {
    program=$(repmgr_programs)
    if [ -n "$program" ]; then
        found repmgr "$program"
    else
        lacking repmgr "for the test of \`pgdock adopt\`"
        how postgresql-15-repmgr repmgr_15 repmgr repmgr repmgr repmgr
    fi
}

# The etcd that the witness of that kind is tried on. Debian's package starts one for itself: it is told not to.
etcd_programs() {
    for need in etcd:etcd-server etcdctl:etcd-client; do
        program=${need%%:*}
        package=${need#*:}
        if ! have "$program" && can_install; then
            as_root mkdir -p /etc/systemd/system
            [ -e /etc/systemd/system/etcd.service ] || as_root ln -s /dev/null /etc/systemd/system/etcd.service
            apt_install "$package"
        fi
        if have "$program"; then
            found "$program" "$(command -v "$program")"
        else
            lacking "$program" "for tests of the etcd witness"
            how "$package" etcd etcd etcd etcd etcd
        fi
    done
}

# The registry that bundles are pushed to. Debian's package starts one for itself: it is told not to.
image_registry() {
    if ! have docker-registry && can_install; then
        as_root mkdir -p /etc/systemd/system
        [ -e /etc/systemd/system/docker-registry.service ] || as_root ln -s /dev/null /etc/systemd/system/docker-registry.service
        apt_install docker-registry
    fi
    if have docker-registry; then
        found docker-registry "$(command -v docker-registry)"
    else
        lacking docker-registry "for tests of bundles in a registry"
        how docker-registry docker-distribution docker-registry docker-registry docker-distribution docker-distribution
    fi
}

# The SSH server that the executor of that kind is tried on. Debian's package starts one for itself: it is told not to,
# unless there is one.
ssh_server() {
    if ! sshd_path >/dev/null && can_install; then
        as_root mkdir -p /etc/systemd/system
        for unit in ssh.service ssh.socket; do
            [ -e /etc/systemd/system/$unit ] || as_root ln -s /dev/null /etc/systemd/system/$unit
        done
        apt_install openssh-server
    fi
    if path=$(sshd_path); then
        found sshd "$path"
    else
        lacking sshd "for tests of the executor over SSH"
        how openssh-server openssh-server openssh openssh openssh openssh
    fi
}

sshd_path() {
    for path in /usr/sbin/sshd /usr/bin/sshd /usr/local/sbin/sshd; do
        [ -x "$path" ] && echo "$path" && return 0
    done
    return 1
}

# The engine that the executor of containers is tried on, and the image of its containers: a Debian, which is built here, as
# no registry may be reached.
docker_engine() {
    socket=/var/run/docker.sock
    if ! have dockerd && can_install; then
        apt_install docker.io iptables ca-certificates
    fi
    if ! have dockerd; then
        lacking dockerd "for tests of nodes in containers"
        how docker.io moby-engine docker docker docker docker
        return
    fi
    if ! answers && [ "$check_only" = no ] && [ "$(id -u)" = 0 ]; then
        log=$(mktemp)
        if have systemctl && systemctl is-system-running >/dev/null 2>&1; then
            systemctl start docker >"$log" 2>&1 || true
        else
            # It outlives this script.
            setsid dockerd >"$log" 2>&1 </dev/null &
        fi
        tries=0
        until answers || [ "$tries" -ge 60 ]; do
            tries=$((tries + 1))
            sleep 0.5
        done
        answers || tail -n 5 -- "$log" >&2
    fi
    if ! answers; then
        lacking 'Docker engine' "dockerd does not run, or $socket is closed to you"
        hint "systemctl start docker; usermod -aG docker \$USER"
        return
    fi
    found 'Docker engine' "$(docker version --format '{{.Server.Version}}, API {{.Server.APIVersion}}')"
    if ! image_there && [ "$check_only" = no ]; then
        timeout 60 docker pull --quiet debian:trixie-slim >/dev/null 2>&1 || build_image
    fi
    if image_there; then
        found image debian:trixie-slim
    else
        lacking image "debian:trixie-slim, which containers of tests are made from"
        hint "docker pull debian:trixie-slim"
    fi
}

answers() { docker version >/dev/null 2>&1; }
image_there() { docker image inspect debian:trixie-slim >/dev/null 2>&1; }

build_image() {
    can_install || return 0
    have debootstrap || apt_install debootstrap
    dir=$(mktemp -d)
    echo "setup: debootstrap trixie" >&2
    if as_root debootstrap --variant=minbase trixie "$dir/root" >"$dir/log" 2>&1; then
        as_root rm -rf -- "$dir/root/var/cache/apt/archives" "$dir/root/var/lib/apt/lists"
        as_root mkdir -p "$dir/root/var/cache/apt/archives/partial" "$dir/root/var/lib/apt/lists/partial"
        as_root tar -C "$dir/root" -c . | docker import --change 'CMD ["bash"]' - debian:trixie-slim >/dev/null
    else
        tail -n 5 -- "$dir/log" >&2
    fi
    as_root rm -rf -- "$dir"
}

faketime() {
    for file in /usr/lib/*/faketime/libfaketimeMT.so.1 /usr/lib64/faketime/libfaketimeMT.so.1 /usr/lib/faketime/libfaketimeMT.so.1; do
        [ -e "$file" ] && return 0
    done
    return 1
}

echo "What pgdock needs on this machine:"
machine
compiler
rust
postgresql
if [ "$tests" = yes ]; then
    faults
    etcd_programs
    takeovers
    image_registry
    ssh_server
    docker_engine
fi
if [ "$missing" -gt 0 ]; then
    echo "setup: $missing missing; see above" >&2
    exit 1
fi
