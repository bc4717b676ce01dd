#!/bin/sh
# Moves the failover IP to the primary. pgdock runs it in two ways:
#
#   failover.sh assign    moves the address to the node and ends with 0 once that was accepted;
#                         it may be run again for the same node, which changes nothing
#   failover.sh current   prints the name of the node where the address points, or nothing
#
# It finds in its environment, beside the lines of `env_file` in cluster.toml:
#
#   PGDOCK_CLUSTER        the cluster's name
#   PGDOCK_ADDRESS        the failover address
#   PGDOCK_NODE           the node's name            (assign)
#   PGDOCK_NODE_ADDRESS   the node's own address     (assign)
#   PGDOCK_TERM           the number of the reign    (assign)
#
# This example keeps the name of the node in a file, so that you can watch it move. At a provider, `assign`
# would rather be a call such as the following one; credentials go through standard input, since
# everybody on the machine can read the arguments of a program:
#
#   printf 'user = "%s:%s"\n' "$HETZNER_USER" "$HETZNER_PASS" |
#       curl --config - --fail --silent --show-error --max-time 30 \
#           --data "active_server_ip=$PGDOCK_NODE_ADDRESS" \
#           "https://robot-ws.your-server.de/failover/$PGDOCK_ADDRESS"
set -eu

state=${PGDOCK_STATE_FILE:-$(dirname -- "$0")/failover.state}
log=${state%.state}.log

case ${1-} in
assign)
    : "${PGDOCK_NODE:?is the node to move the address to}"
    # A reader sees the old name or the new one, never half of it.
    printf '%s\n' "$PGDOCK_NODE" >"$state.$$"
    mv -f -- "$state.$$" "$state"
    printf '%s cluster=%s address=%s node=%s node_address=%s term=%s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" \
        "${PGDOCK_CLUSTER-}" "${PGDOCK_ADDRESS-}" "$PGDOCK_NODE" "${PGDOCK_NODE_ADDRESS-}" "${PGDOCK_TERM-}" >>"$log"
    ;;
current)
    if [ -e "$state" ]; then
        cat -- "$state"
    fi
    ;;
*)
    echo "usage: $0 assign | current" >&2
    exit 2
    ;;
esac
