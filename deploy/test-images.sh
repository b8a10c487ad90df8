#!/usr/bin/env bash
# Runs the build stages of a Dockerfile in a plain folder, command by command, and starts the program that
# the image would hold. Minutes for the CPU images; for worker-cuda source the environment of
# deploy/cuda-toolchain.sh --flash-attn first, and take a machine with many cores.
#
#   deploy/test-images.sh coordinator|worker-cpu|worker-cuda [--folder DIR] [--profile PROFILE]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHONDONTWRITEBYTECODE=1 exec python3 deploy/test/images.py "$@"
