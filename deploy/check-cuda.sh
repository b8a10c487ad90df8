#!/usr/bin/env bash
# What can be checked of the CUDA code without a GPU: our kernels compile to machine code for sm_90a, the
# crate that launches them and the engine above it type-check and lint, and the decode step keeps what makes it fast.
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

# The fused engine above them, without candle's kernels. What it leaves behind must not be taken for a build.
CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/type-check NVCC=$PWD/deploy/test/nvcc-for-type-checks CUDA_COMPUTE_CAP=90 \
  cargo clippy --locked --package bakeoff-engine --package bakeoff-worker --features bakeoff-worker/cuda --all-targets \
  -- --deny warnings

# The decode step runs through its code once a layer: beyond what the instruction cache holds of it, and with
# registers spilled, it loses more than anything else in it can win (bench-runs/2026-11-24-h100/notes.md).
most_bytes=112000
cubin=$(mktemp)
trap 'rm -f "$cubin"' EXIT
said=$("${NVCC:-$CUDA_HOME/bin/nvcc}" -std=c++17 -O3 -gencode=arch=compute_90a,code=sm_90a -Xptxas=-v,-warn-spills \
  -cubin -o "$cubin" worker/kernels/cuda/step.cu 2>&1)
if grep -E 'warning|[1-9][0-9]* bytes spill' <<<"$said"; then
  echo "step.cu spills registers or warns" >&2
  exit 1
fi
readelf --section-headers --wide "$cubin" 2>/dev/null | python3 -c '
import re, sys

most = int(sys.argv[1])
sections = re.findall(r" \.text\.\S*decode_step\S*\s+PROGBITS\s+\S+\s+\S+\s+(\S+)", sys.stdin.read())
sizes = [int(size, 16) for size in sections]
print("decode_step, bytes of machine code for each head width:", *sizes)
sys.exit(None if len(sizes) == 4 and max(sizes) <= most else f"expected four kernels of at most {most} bytes")
' "$most_bytes"
