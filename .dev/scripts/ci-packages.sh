#!/usr/bin/env bash
# What Debian's image `rust` lacks of what the tests and the release scripts ask for (README, "Test it").
set -euo pipefail
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install --yes -qq --no-install-recommends openssl python3-pip python3-venv
