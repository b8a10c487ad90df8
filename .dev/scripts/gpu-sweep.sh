#!/usr/bin/env bash
# A whole sweep on a GPU machine without network: broker, worker and coordinator as processes, the
# demo models with their weights and the five models' shapes with random ones.
#
#   .dev/scripts/gpu-sweep.sh BIN OUT SWEEP
#
# BIN holds `worker` (features cuda and flash-attn), `coordinator` and `nats-server`; OUT gets the
# logs and results.tar, what the object store holds of the sweep. Run it from the root of the
# repository.
set -eu
bin=$1 out=$2 sweep=$3
models=/tmp/bakeoff-models tokenizer=worker/engine/goldens/tokenizers/qwen3
export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:-/usr/local/cuda/lib64}
work=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; rm -rf "$work" "$models"' EXIT
mkdir -p "$out"

for config in deploy/models/*.json; do
  folder=$models/$(basename "$config" .json)
  mkdir -p "$folder"
  cp "$config" "$folder/config.json"
  cp "$tokenizer/tokenizer_config.json" "$folder/"
  gzip -dc "$tokenizer/tokenizer.json.gz" >"$folder/tokenizer.json"
done
"$bin/nats-server" --jetstream --store_dir "$work/jetstream" --addr 127.0.0.1 --port 4222 \
  >"$out/nats.log" 2>&1 &
pids+=($!)
export NATS_URL=nats://127.0.0.1:4222 BAKEOFF_STORE=$work/store
until "$bin/worker" doctor --json >"$out/doctor.json" 2>"$out/doctor.log" ||
  ((SECONDS > 20)); do :; done
"$bin/worker" run >"$out/worker.log" 2>&1 &
pids+=($!)
timeout "${SWEEP_LIMIT:-260}" "$bin/coordinator" run "$sweep" >"$out/coordinator.log" 2>&1 ||
  echo "coordinator: exit $?"
tar -C "$BAKEOFF_STORE" -cf "$out/results.tar" .
tail -n 30 "$out/coordinator.log"
