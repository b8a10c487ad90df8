#!/usr/bin/env bash
# Prints the Secrets that the manifests refer to, from a folder of deploy/make-secrets.sh:
#
#   deploy/make-secrets.sh secrets nats nats.bakeoff.svc
#   k8s/secrets.sh secrets | kubectl apply -f -
#
# Put your cloud's keys into secrets/{coordinator,worker}.s3.env first, unless the store is the one of
# overlays/local or the pods have a role (k8s/base/service-accounts.yaml). For gated models the prefetch
# Job takes a token from one more, of your making:
#
#   kubectl -n bakeoff create secret generic huggingface-token --from-literal=token=hf_...
set -euo pipefail
[[ $# -eq 1 && -d $1 ]] || { sed -n '2,11s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }
cd "$1"

secret() { # NAME ARGUMENTS... : nothing is sent anywhere
  echo ---
  "${KUBECTL:-kubectl}" create secret generic "$1" --namespace bakeoff --dry-run=client --output yaml "${@:2}"
}
public() { sed -n "s/^$1=//p" nats.env; }

secret nats-tls --from-file=ca.crt --from-file=tls.crt --from-file=tls.key
secret nats-public-keys --from-literal=coordinator="$(public COORDINATOR_NKEY)" --from-literal=worker="$(public WORKER_NKEY)"
secret nats-coordinator-seed --from-file=seed=coordinator.nk
secret nats-worker-seed --from-file=seed=worker.nk
secret bakeoff-coordinator-s3 --from-env-file=coordinator.s3.env
secret bakeoff-worker-s3 --from-env-file=worker.s3.env
secret bakeoff-store-users --from-file=s3.json
