#!/usr/bin/env bash
# An image's way to the registry that BAKEOFF_REGISTRY names (registry/owner/repository).
#
#   image.sh name IMAGE             prints name=REGISTRY/IMAGE:VERSION
#   image.sh login                  by REGISTRY_USER and REGISTRY_PASSWORD
#   image.sh build IMAGE DIGESTS    builds it for this machine's architecture, with a list of what
#                                   is inside and where it was built, pushes it without a tag, and
#                                   notes its digest in DIGESTS
#   image.sh publish DIGESTS OUT    joins the architectures under a tag, signs that, and writes
#                                   NAME@DIGEST to OUT
#
# IMAGE: coordinator, worker-cpu or worker-cuda. BAKEOFF_COMMIT is what program and label say.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")

# Registries take small letters only.
registry=${BAKEOFF_REGISTRY:?registry/owner/repository}
registry=${registry,,}
manifest=$here/../../../Cargo.toml
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$manifest")

build() {
  local image=$1 digests=$2 metadata
  mkdir -p "$digests"
  metadata=$(mktemp)
  docker buildx build "$here/../../.." --file "$here/../../../deploy/Dockerfile.$image" \
    --build-arg "BAKEOFF_COMMIT=${BAKEOFF_COMMIT:?the commit}" \
    --label "org.opencontainers.image.source=${GITHUB_SERVER_URL:?}/${GITHUB_REPOSITORY:?}" \
    --label "org.opencontainers.image.created=$(date --utc +%FT%TZ)" \
    --sbom=true --provenance=mode=max --metadata-file "$metadata" \
    --output "type=image,name=$registry/$image,push-by-digest=true,name-canonical=true,push=true"
  python3 -c 'import json, sys; print(json.load(sys.stdin)["containerimage.digest"])' <"$metadata" \
    >"$digests/$image.$(uname -m)"
}

publish() {
  local digests=$1 out=$2 image name sources
  : >"$out"
  for image in coordinator worker-cpu worker-cuda; do
    name=$registry/$image
    mapfile -t sources < <(sed "s|^|$name@|" "$digests/$image".*)
    docker buildx imagetools create --tag "$name:$version" "${sources[@]}"
    # By digest: a tag may move between the two commands.
    name=$name@$(docker buildx imagetools inspect --format '{{.Manifest.Digest}}' "$name:$version")
    cosign sign --yes "$name"
    echo "$name" >>"$out"
  done
}

case ${1:-} in
  name) echo "name=$registry/${2:?IMAGE}:$version" ;;
  login)
    docker login --username "$REGISTRY_USER" --password-stdin "${registry%%/*}" \
      <<<"$REGISTRY_PASSWORD"
    ;;
  build) build "${2:?IMAGE}" "${3:?DIGESTS}" ;;
  publish) publish "${2:?DIGESTS}" "${3:?OUT}" ;;
  *) sed -n '2,14s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2 && exit 2 ;;
esac
