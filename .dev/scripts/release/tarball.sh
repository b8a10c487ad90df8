#!/usr/bin/env bash
# Makes a release archive for this machine's architecture: both programs, licences, README and
# sweeps, with a list of what is inside (SPDX) and checksums beside it. The same sources give the
# same archive.
#
#   .dev/scripts/release/tarball.sh OUT [BIN]
#
# BIN: folder with ready programs, instead of a release build.
#
# BAKEOFF_COMMIT is what the programs say of themselves; without it, git is asked.
set -euo pipefail
out=$(realpath -m "${1:?the folder that gets the archive}")
bin=${2:+$(realpath "$2")}
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."

if [[ -z $bin ]]; then
  cargo build --locked --release --package bakeoff-coordinator --package bakeoff-worker
  bin=${CARGO_TARGET_DIR:-target}/release
fi
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
name=bakeoff-$version-$(uname -m)-unknown-linux-gnu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mkdir -p "$work/$name" "$out"
install -m 755 "$bin/coordinator" "$bin/worker" "$work/$name/"
install -m 644 LICENSE NOTICE README.md CHANGELOG.md "$work/$name/"
mkdir "$work/$name/sweeps"
install -m 644 deploy/sweeps/*.toml "$work/$name/sweeps/"
# The coordinator embeds a worker: its list holds the worker's.
.dev/scripts/release/licences.sh "$work/licences" coordinator
install -m 644 "$work/licences/coordinator.txt" "$work/$name/THIRD-PARTY.txt"

.dev/scripts/release/syft.sh "$out/$name.spdx.json"
# The time of the last commit; without git, the time of Cargo.lock.
time=$(git log -1 --format=@%ct 2>/dev/null || stat -c @%Y Cargo.lock)
tar --sort=name --mtime="$time" --owner=0 --group=0 --numeric-owner -C "$work" -c "$name" |
  gzip -n -9 >"$out/$name.tar.gz"
(cd "$out" && sha256sum "$name.tar.gz" "$name.spdx.json" >"$name.sha256")
echo "tarball: $out/$name.tar.gz"
"$work/$name/coordinator" --version
"$work/$name/worker" --version
