#!/usr/bin/env bash
# Fails unless a tag is the workspace's version, so that an archive never says another than its
# name.
#
#   .dev/scripts/release/tag.sh v1.2.3
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
[[ ${1:?the tag} == "v$version" ]] || {
  echo "tag: $1 was pushed, and Cargo.toml says version $version: expected the tag v$version" >&2
  exit 1
}
