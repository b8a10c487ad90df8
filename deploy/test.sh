#!/usr/bin/env bash
# Everything that must hold before a change lands: formatting, lints, the CUDA code as far as a machine
# without a GPU can check it, and every test. Needs a Rust toolchain, a C compiler and Python 3 with pip;
# whatever else the tests use (nats-server, SeaweedFS, ...) they fetch by themselves, pinned. The pages are
# tested in Chromium, which is installed here where it is missing.
#
# The deployment on five hosts needs root and network namespaces. Where they are not to be had, the run fails
# at once; BAKEOFF_SKIP_NAMESPACES=1 leaves that step out, and the last line says so.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# A program, from its Debian package if it is not there.
need() { command -v "$1" >/dev/null || { apt-get update -qq && apt-get install --yes -qq "$2"; }; }
step() { printf '\n== %s (%ss)\n' "$1" "$SECONDS"; }

# Asked now, so that nobody waits for every other test to learn it.
namespaces() { [[ $(id -u) == 0 ]] && unshare --net true; }
if [[ ${BAKEOFF_SKIP_NAMESPACES:-} != 1 ]] && ! namespaces; then
  echo "deploy/namespaces.sh cannot run here: it needs root and the right to make network namespaces." >&2
  echo "Run as root (in a container: with CAP_SYS_ADMIN and CAP_NET_ADMIN), or set BAKEOFF_SKIP_NAMESPACES=1 to leave it out." >&2
  exit 1
fi

if ! command -v bwrap > /dev/null; then
    step "bubblewrap, the sandbox of coordinator check"
    apt-get update -qq || true
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends bubblewrap || true
    command -v bwrap > /dev/null || {
        echo "there is no bwrap, and apt-get could not install it: install bubblewrap" >&2
        exit 1
    }
fi

step "formatting"
cargo fmt --all --check
step "lints"
cargo clippy --locked --workspace --all-targets -- -D warnings
step "dependencies: licences, bans, sources"
deploy/check-deny.sh
step "CUDA kernels: type check and machine code for sm_90a"
deploy/check-cuda.sh
step "tests"
need openssl openssl
[[ -n ${CHROMIUM:-} ]] || need chromium chromium || {
  echo "the pages are tested in Chromium, which apt-get could not install: name a browser in CHROMIUM" >&2
  exit 1
}
cargo test --locked --workspace
step "deployment: manifests, images, compose file, runbook"
k8s/test.sh
step "deployment: a sweep through it, as plain processes"
deploy/topology.sh
step "deployment: a sweep through it, on five hosts"
if [[ ${BAKEOFF_SKIP_NAMESPACES:-} == 1 ]]; then
  left_out="NOT RUN: deploy/namespaces.sh, the sweep on five hosts (BAKEOFF_SKIP_NAMESPACES=1)"
else
  need ip iproute2
  deploy/namespaces.sh
fi
step "done"
[[ -z ${left_out:-} ]] || echo "$left_out"
