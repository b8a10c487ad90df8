#!/usr/bin/env bash
# Writes the licences of what is linked into the programs; fails on one that about.toml does not
# accept.
#
#   .dev/scripts/release/licences.sh [OUT [PROGRAM...]]
#
# OUT gets PROGRAM.txt; without it nothing is kept. PROGRAM: coordinator, which embeds a worker,
# worker or worker-cuda; all by default.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."

# As in the images.
version=$(sed -n 's/.*install cargo-about .*--version \([0-9.]*\).*/\1/p' deploy/Dockerfile.coordinator)
tool=${BAKEOFF_TEST_CACHE:-$HOME/.cache/bakeoff}/cargo-about-$version
[[ -x $tool/bin/cargo-about ]] ||
  cargo install cargo-about --quiet --locked --version "$version" --features cli --root "$tool"

[[ $# -gt 1 ]] || set -- "${1:-}" coordinator worker worker-cuda
out=$1
if [[ -z $out ]]; then
  out=$(mktemp -d)
  trap 'rm -rf "$out"' EXIT
fi
mkdir -p "$out"
for program in "${@:2}"; do
  case $program in
    coordinator | worker) features=(--manifest-path "$program/Cargo.toml") ;;
    worker-cuda) features=(--manifest-path worker/Cargo.toml --features cuda,flash-attn) ;;
    *)
      echo "licences: unknown program $program: expected coordinator, worker or worker-cuda" >&2
      exit 2
      ;;
  esac
  "$tool/bin/cargo-about" generate --locked --fail "${features[@]}" \
    --output-file "$out/$program.txt" deploy/third-party.hbs
  echo "licences: $program: $(grep -c '^Used by:' "$out/$program.txt") texts"
done
