#!/usr/bin/env bash
# Renders base, overlays and components, compares them with the committed k8s/rendered, and checks what
# matters. No cluster is needed: kubectl and the schemas come from PyPI, pinned by digest.
#
#   k8s/test.sh            fails when something is wrong or k8s/rendered is not up to date
#   k8s/test.sh --update   copies the files that kustomize must have in its folders, and renders anew
#
# promtool, which tries the alerts on made-up series, comes with Debian's package `prometheus`; where it is not
# installed it is taken from there, or from PROMTOOL=/path.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

source ../.dev/scripts/deployment/venv.sh
export KUBECTL=$venv/bin/kubectl

# Combinations beside each component alone, in the order in which they are taken.
combinations=(
  "gpu-gke-h100 spot-gke"
  "gpu-karpenter-h200 spot-karpenter priority"
  "registry hub-mirror private-ca pull-secret"
  "keda kueue own-nats"
  "s3-role-irsa keda"
  "storage-node keda"
  "nats-exporter keda"
)

if [[ ${1:-} == --update ]]; then
  cp ../deploy/nats.conf base/nats.conf
  cp ../deploy/dashboards/bakeoff.json overlays/monitoring/bakeoff.json
  {
    echo "# deploy/rules/bakeoff.yaml as an object of the Prometheus operator; made by k8s/test.sh --update."
    printf 'apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: bakeoff\nspec:\n'
    sed '/^#/d; s/^/  /' ../deploy/rules/bakeoff.yaml
  } >overlays/monitoring/prometheus-rule.yaml
  {
    cat components/own-nats/values-head.yaml
    printf 'configMap:\n  merge:\n    data:\n      accounts.conf: |\n'
    sed -n '/^accounts {/,$ { s/^\(.\)/        \1/; p; }' ../deploy/nats.conf
  } >components/own-nats/values.yaml
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/rendered/components" "$work/full" "$work/k8s"
"$KUBECTL" kustomize base >"$work/rendered/base.yaml"
for overlay in overlays/*/; do
  "$KUBECTL" kustomize "$overlay" >"$work/rendered/$(basename "$overlay").yaml"
done
# A component is committed as what it changes in the base, which a person can read. `registry` changes nothing
# until somebody puts a registry there; .dev/scripts/deployment/test_deploy.py does so.
cp -r base components "$work/k8s"
mkdir "$work/k8s/case"
for names in $(cd components && printf '%s\n' *) "${combinations[@]}"; do
  {
    printf 'apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nnamespace: bakeoff\n'
    printf 'resources: [../base]\ncomponents:\n'
    printf '  - ../components/%s\n' $names
  } >"$work/k8s/case/kustomization.yaml"
  case=${names// /+}
  "$KUBECTL" kustomize "$work/k8s/case" >"$work/full/$case.yaml"
  diff -U1 --label base --label "$case" "$work/rendered/base.yaml" "$work/full/$case.yaml" \
    >"$work/rendered/components/$case.diff" && [[ $case != registry ]] &&
    { echo "k8s/components/$names changes nothing" >&2; exit 1; }
done
if [[ ${1:-} == --update ]]; then
  rm -rf rendered
  cp -r "$work/rendered" rendered
fi
diff -ru rendered "$work/rendered" ||
  { echo "k8s/rendered is not what the manifests give: run k8s/test.sh --update and read the diff" >&2; exit 1; }

if ! PROMTOOL=${PROMTOOL:-$(command -v promtool)}; then
  PROMTOOL=${BAKEOFF_TEST_CACHE:-$HOME/.cache/bakeoff}/prometheus/usr/bin/promtool
  if [[ ! -x $PROMTOOL ]]; then
    (cd "$work" && { apt-get download -qq prometheus || { apt-get update -qq && apt-get download -qq prometheus; }; } &&
      dpkg-deb -x prometheus_*.deb prometheus && mkdir -p "$(dirname "$PROMTOOL")" &&
      cp prometheus/usr/bin/promtool "$PROMTOOL.new" && mv "$PROMTOOL.new" "$PROMTOOL") ||
      { echo "k8s/test.sh needs promtool: install Debian's prometheus, or name one in PROMTOOL" >&2; exit 1; }
  fi
fi
"$PROMTOOL" check rules ../deploy/rules/bakeoff.yaml >"$work/log" || { cat "$work/log" >&2; exit 1; }
(cd test && "$PROMTOOL" test rules alerts.yaml) >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }

../deploy/make-secrets.sh "$work/secrets" nats nats.bakeoff.svc 2>"$work/log" || { cat "$work/log" >&2; exit 1; }
./secrets.sh "$work/secrets" >"$work/secrets.yaml"
export BAKEOFF_TEST_SECRETS=$work/secrets.yaml BAKEOFF_TEST_CASES=$work/full PYTHONDONTWRITEBYTECODE=1
"$venv/bin/python" -m unittest discover --start-directory test --quiet
# Images, compose file, dashboard and runbook, which must agree with the manifests.
"$venv/bin/hadolint" ../deploy/Dockerfile.*
"$venv/bin/python" -m unittest discover --start-directory ../.dev/scripts/deployment --quiet
