#!/usr/bin/env bash
# Runs what deploy/compose.yaml describes as plain processes: broker with TLS and two users, object store,
# two workers, the demo sweep, metrics, traces, refusals. No Docker; everything is fetched, pinned.
#
#   deploy/topology.sh [BIN]                 BIN: folder with the programs, target/debug by default
#   deploy/topology.sh --namespaces [BIN]    five hosts, by network namespaces: needs root and iproute2
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

arguments=()
if [[ ${1:-} == --namespaces ]]; then
  [[ $(id -u) == 0 ]] || { echo "topology: network namespaces need root" >&2; exit 2; }
  command -v ip >/dev/null || { echo "topology: there is no \`ip\`: apt-get install iproute2" >&2; exit 2; }
  arguments+=("$1")
  shift
fi
source deploy/test/venv.sh
PYTHONDONTWRITEBYTECODE=1 exec "$venv/bin/python" deploy/test/topology.py "${arguments[@]}" "${1:-${CARGO_TARGET_DIR:-target}/debug}"
