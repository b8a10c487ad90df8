#!/usr/bin/env bash
# Everything that must hold before a change lands: formatting, lints, the CUDA code as far as a machine
# without a GPU can check it, and every test. Needs a Rust toolchain, a C compiler and Python 3 with pip;
# whatever else the tests use (nats-server, SeaweedFS, ...) they fetch by themselves, pinned.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

step() { printf '\n== %s (%ss)\n' "$1" "$SECONDS"; }

step "formatting"
cargo fmt --all --check
step "lints"
cargo clippy --locked --workspace --all-targets -- -D warnings
step "dependencies: licences, bans, sources"
deploy/check-deny.sh
step "CUDA kernels: type check and machine code for sm_90a"
deploy/check-cuda.sh
step "tests"
cargo test --locked --workspace
step "done"
