#!/usr/bin/env bash
# Renders base and overlays, compares them with the committed k8s/rendered, and checks what matters.
# No cluster is needed: kubectl and the schemas come from PyPI, pinned by digest.
#
#   k8s/test.sh            fails when something is wrong or k8s/rendered is not up to date
#   k8s/test.sh --update   copies the files that kustomize must have in its folders, and renders anew
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

source ../.dev/scripts/deployment/venv.sh
export KUBECTL=$venv/bin/kubectl

if [[ ${1:-} == --update ]]; then
  cp ../deploy/nats.conf base/nats.conf
  cp ../deploy/sweeps/qwen-codegen.toml base/sweep.toml
  cp ../coordinator/src/demo.toml overlays/local/sweep.toml
  cp ../deploy/dashboards/bakeoff.json overlays/monitoring/bakeoff.json
  {
    echo "# deploy/rules/bakeoff.yaml as an object of the Prometheus operator; made by k8s/test.sh --update."
    printf 'apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: bakeoff\nspec:\n'
    sed '/^#/d; s/^/  /' ../deploy/rules/bakeoff.yaml
  } >overlays/monitoring/prometheus-rule.yaml
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$KUBECTL" kustomize base >"$work/base.yaml"
for overlay in overlays/*/; do
  "$KUBECTL" kustomize "$overlay" >"$work/$(basename "$overlay").yaml"
done
if [[ ${1:-} == --update ]]; then
  rm -rf rendered
  mkdir rendered
  cp "$work"/*.yaml rendered/
fi
diff -ru rendered "$work" ||
  { echo "k8s/rendered is not what the manifests give: run k8s/test.sh --update and read the diff" >&2; exit 1; }

../deploy/make-secrets.sh "$work/secrets" nats nats.bakeoff.svc 2>"$work/log" || { cat "$work/log" >&2; exit 1; }
./secrets.sh "$work/secrets" >"$work/secrets.yaml"
export BAKEOFF_TEST_SECRETS=$work/secrets.yaml PYTHONDONTWRITEBYTECODE=1
"$venv/bin/python" -m unittest discover --start-directory test --quiet
# Images, compose file, dashboard and runbook, which must agree with the manifests.
"$venv/bin/hadolint" ../deploy/Dockerfile.*
"$venv/bin/python" -m unittest discover --start-directory ../.dev/scripts/deployment --quiet
