#!/usr/bin/env bash
# Signs the files of a release and makes a draft of it, which a person publishes. The identity that
# signs is the workflow's; cosign asks the runner for it.
#
#   .dev/scripts/release/publish.sh TAG DIST
set -euo pipefail
tag=${1:?the tag} dist=${2:?the folder with the files}
for file in "$dist"/*.tar.gz; do
  cosign sign-blob --yes --bundle "$file.sigstore.json" "$file"
done
gh release create "$tag" --draft --verify-tag --title "$tag" --notes-file CHANGELOG.md "$dist"/*
