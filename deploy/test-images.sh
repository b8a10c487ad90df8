#!/usr/bin/env bash
# Runs the build stages of a Dockerfile in a plain folder, command by command, and starts the program that
# the image would hold. Minutes for the CPU images. For worker-cuda the toolkit of deploy/cuda-toolchain.sh
# stands in for NVIDIA's development image, unless CUDA_HOME names another; FlashAttention's kernels take
# hours of one core, unless NVCC names a compiler that caches.
#
#   deploy/test-images.sh coordinator|worker-cpu|worker-cuda [--folder DIR] [--profile PROFILE]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [[ ${1:-} == worker-cuda && -z ${CUDA_HOME:-} ]]; then
  toolkit=${BAKEOFF_CUDA_DIR:-$HOME/.cache/bakeoff-cuda}
  deploy/cuda-toolchain.sh --flash-attn "$toolkit"
  compiler=${NVCC:-}
  # shellcheck source=/dev/null
  source "$toolkit/env"
  export NVCC=${compiler:-$NVCC}
fi
PYTHONDONTWRITEBYTECODE=1 exec python3 deploy/test/images.py "$@"
