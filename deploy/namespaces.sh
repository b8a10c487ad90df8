#!/usr/bin/env bash
# Coordinator, broker, store and two workers, each a host of its own with its own address: a demo sweep
# passes between them. Needs root and iproute2.
#
#   deploy/namespaces.sh [BIN]               BIN: folder with the programs, target/debug by default
exec "$(dirname "${BASH_SOURCE[0]}")/topology.sh" --namespaces "$@"
