#!/usr/bin/env bash
# What can be checked of the CUDA code without a GPU: our kernels compile to machine code for sm_90a
# without spills beyond the few that are known, and the crate that launches them type-checks and lints.
# Needs no CUDA on the machine: where CUDA_HOME is not set, it fetches a toolkit first.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ -z ${CUDA_HOME:-} ]]; then
  toolkit=${BAKEOFF_CUDA_DIR:-$HOME/.cache/bakeoff-cuda}
  deploy/cuda-toolchain.sh "$toolkit"
  # shellcheck source=/dev/null
  source "$toolkit/env"
fi
# The build script compiles every kernel; a test binary is linked, so a missing symbol shows too.
cargo clippy --package bakeoff-kernels --features cuda --all-targets -- --deny warnings
cargo test --package bakeoff-kernels --features cuda --no-run
