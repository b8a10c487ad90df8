#!/usr/bin/env bash
# Prints the Secrets that the manifests refer to, from a folder of deploy/make-secrets.sh:
#
#   deploy/make-secrets.sh secrets nats nats.bakeoff.svc localhost
#   k8s/secrets.sh secrets | kubectl apply -f -
#
#   k8s/secrets.sh [--no-store-keys] [--broker-namespace NAME] DIR
#
# Put your cloud's keys into DIR/{coordinator,worker}.s3.env first, unless the store is the one of
# components/store; or, where pods have a role, leave the keys out with --no-store-keys, since keys win.
# A broker of your own in another namespace (components/own-nats) gets its certificate and the public keys there,
# and the pods of Bakeoff its authority's certificate alone. The authority's key is in no Secret. For gated
# models the prefetch Jobs take a token from one more, of your making:
#
#   kubectl -n bakeoff create secret generic huggingface-token --from-literal=token=hf_...
set -euo pipefail
usage() { sed -n '2,17s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }

store_keys=1
broker=bakeoff
while [[ ${1:-} == --* ]]; do
  case $1 in
    --no-store-keys) store_keys= ;;
    --broker-namespace) [[ -n ${2:-} ]] || usage; broker=$2; shift ;;
    *) usage ;;
  esac
  shift
done
[[ $# -eq 1 && -d $1 ]] || usage
cd "$1"

secret() { # NAMESPACE NAME ARGUMENTS... : nothing is sent anywhere
  echo ---
  "${KUBECTL:-kubectl}" create secret generic "$2" --namespace "$1" --dry-run=client --output yaml "${@:3}"
}
public() { sed -n "s/^$1=//p" nats.env; }

secret "$broker" nats-tls --from-file=ca.crt --from-file=tls.crt --from-file=tls.key
secret "$broker" nats-public-keys --from-literal=coordinator="$(public COORDINATOR_NKEY)" --from-literal=worker="$(public WORKER_NKEY)"
[[ $broker == bakeoff ]] || secret bakeoff nats-tls --from-file=ca.crt
secret bakeoff nats-coordinator-seed --from-file=seed=coordinator.nk
secret bakeoff nats-worker-seed --from-file=seed=worker.nk
if [[ -n $store_keys ]]; then
  secret bakeoff bakeoff-coordinator-s3 --from-env-file=coordinator.s3.env
  secret bakeoff bakeoff-worker-s3 --from-env-file=worker.s3.env
  secret bakeoff bakeoff-store-users --from-file=s3.json
fi
