#!/usr/bin/env bash
# Lays out a CUDA 13.0 toolkit from NVIDIA's PyPI wheels: enough to compile and link with the
# feature `cuda` on a machine that has neither a GPU nor a driver. What it builds runs with driver
# 580 or newer.
#
#   .dev/scripts/cuda-toolchain.sh [--flash-attn] [DIR]    default: ~/.cache/bakeoff-cuda
#   source DIR/env
#
# --flash-attn adds the CUTLASS headers that candle-flash-attn would otherwise clone. Its 53 kernels
# take 3 to 8 core-minutes each.
set -euo pipefail

flash_attn=false
if [[ ${1:-} == --flash-attn ]]; then flash_attn=true; shift; fi
root=${1:-$HOME/.cache/bakeoff-cuda}
# The commit of CUTLASS 3.5.0 that candle-flash-attn 0.11 asks for.
cutlass_commit=7d49e6c7e2f8896c47f586706e67e1fb215529dc
cutlass=$root/cudaforge/git/checkouts/cutlass-${cutlass_commit:0:16}

say() { printf 'cuda-toolchain: %s\n' "$*" >&2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fetch() {
  python3 -m pip download --quiet --no-deps --disable-pip-version-check \
    --dest "$work/wheels" "$@"
}

lay_out_toolkit() {
  say "fetching the compiler, headers and libraries"
  fetch nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 \
    nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85 nvidia-cuda-nvrtc==13.0.88 \
    nvidia-cublas==13.0.2.14 nvidia-curand==10.4.0.35
  for wheel in "$work"/wheels/*.whl; do python3 -m zipfile -e "$wheel" "$work/site"; done
  mkdir -p "$root"
  cp -a "$work/site/nvidia/cu13/." "$root/"
  # Unzipping loses the executable bits, and wheels have no linker names.
  find "$root/bin" "$root/nvvm/bin" -type f -exec chmod +x {} +
  local library
  for library in "$root"/lib/lib*.so.*; do
    ln -sf "$(basename "$library")" "${library%%.so.*}.so"
  done
  ln -sfn lib "$root/lib64"
}

# The driver's library comes with the driver; the linker only needs to see its names, which cudarc
# declares. Each function of the stub fails with CUDA_ERROR_NO_DEVICE.
lay_out_driver_stub() {
  say "making a stub of the driver library"
  local probe=$work/probe
  mkdir -p "$probe/src" "$root/lib/stubs"
  : >"$probe/src/lib.rs"
  cat >"$probe/Cargo.toml" <<'TOML'
[package]
name = "probe"
version = "0.0.0"
edition = "2024"
[dependencies.cudarc]
version = "0.19.10"
default-features = false
features = ["std", "driver", "dynamic-linking", "cuda-13000"]
[workspace]
TOML
  local manifest
  manifest=$(cargo metadata --quiet --format-version 1 --manifest-path "$probe/Cargo.toml" |
    python3 -c 'import json, sys
print(next(p["manifest_path"] for p in json.load(sys.stdin)["packages"] if p["name"] == "cudarc"))')
  python3 - "$(dirname "$manifest")/src/driver/sys/mod.rs" >"$work/stub.c" <<'PY'
import re, sys
names = sorted(set(re.findall(r"\bfn (cu[A-Z]\w*)", open(sys.argv[1]).read())))
for name in names:
    print(f"int {name}(void) {{ return 100; }}")
PY
  cc -shared -fPIC -w -Wl,-soname,libcuda.so.1 -o "$root/lib/stubs/libcuda.so" "$work/stub.c"
}

lay_out_cutlass() {
  say "fetching CUTLASS"
  fetch nvidia-cutlass==3.5.0.0
  python3 -m zipfile -e "$work"/wheels/nvidia_cutlass-*.whl "$work/cutlass"
  local source=$work/cutlass/cutlass_library/source
  mkdir -p "$cutlass/tools/util"
  cp -a "$source/include" "$cutlass/"
  cp -a "$source/tools/util/include" "$cutlass/tools/util/"
  git init --quiet "$cutlass"
  echo "$cutlass_commit" >"$cutlass/.git/HEAD"
}

[[ -x $root/bin/nvcc ]] || lay_out_toolkit
[[ -f $root/lib/stubs/libcuda.so ]] || lay_out_driver_stub
if $flash_attn && [[ ! -d $cutlass ]]; then lay_out_cutlass; fi

cat >"$root/env" <<ENV
export CUDA_HOME="$root" CUDA_PATH="$root" CUDA_ROOT="$root" CUDA_TOOLKIT_ROOT_DIR="$root"
export NVCC="$root/bin/nvcc" CUDAFORGE_HOME="$root/cudaforge" CUDA_COMPUTE_CAP=90
export PATH="$root/bin:\$PATH"
export LIBRARY_PATH="$root/lib:$root/lib/stubs\${LIBRARY_PATH:+:\$LIBRARY_PATH}"
ENV
say "ready: source $root/env"
