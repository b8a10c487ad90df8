#!/usr/bin/env bash
# Writes the licences of what is linked into the programs; fails on one that about.toml does not accept.
#
#   .dev/scripts/release/licences.sh [OUT]    OUT: gets coordinator.txt, worker.txt, worker-cuda.txt;
#                                             without it nothing is kept
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."

version=$(sed -n 's/.*cargo install cargo-about .*--version \([0-9.]*\).*/\1/p' deploy/Dockerfile.coordinator)
tool=${BAKEOFF_TEST_CACHE:-$HOME/.cache/bakeoff}/cargo-about-$version
[[ -x $tool/bin/cargo-about ]] ||
  cargo install cargo-about --quiet --locked --version "$version" --features cli --root "$tool"

out=${1:-}
if [[ -z $out ]]; then
  out=$(mktemp -d)
  trap 'rm -rf "$out"' EXIT
fi
mkdir -p "$out"
list() {
  "$tool/bin/cargo-about" generate --locked --fail --manifest-path "$2/Cargo.toml" "${@:3}" \
    --output-file "$out/$1.txt" deploy/third-party.hbs
  echo "licences: $1: $(grep -c '^Used by:' "$out/$1.txt") texts"
}
list coordinator coordinator
list worker worker
list worker-cuda worker --features cuda,flash-attn
