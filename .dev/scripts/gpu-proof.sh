#!/usr/bin/env bash
# Everything that only a GPU machine can show, in one go: correctness, speed, loading, peers.
#
#   .dev/scripts/gpu-proof.sh BIN OUT [SECONDS]
#
# BIN holds `worker`, and the test programs `gpu` of bakeoff-engine and `kernels` of bakeoff-kernels,
# built with the features cuda and flash-attn (`cargo test --profile gpu --no-run --test gpu --test
# kernels` names them; those that are not there are left out, and named); OUT gets a log and the JSON of each
# step, summary.json with all rows and README.md with their table. Steps that would start after
# SECONDS (default 560) are left out and named. Needs Python with torch and transformers for the
# peers, and 62 GB of /dev/shm; with A3B_LAYERS=6, so many layers instead of all against
# transformers, 16 GB. Run it from the root of the repository.
set -u
bin=$1 out=$2 seconds=${3:-560}
models=deploy/models goldens=worker/engine/goldens/models scratch=/dev/shm/bakeoff-proof
export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:-/usr/local/cuda/lib64} PYTHONUNBUFFERED=1
mkdir -p "$out" "$scratch"
trap 'rm -rf "$scratch"' EXIT

# step NAME LIMIT_S COMMAND...: a failure is shown and does not end the run.
step() {
  local name=$1 limit=$2 start=$SECONDS status
  shift 2
  if [[ ! -x $1 ]] && ! command -v "$1" >/dev/null; then
    echo "== $name: left out, there is no $1"
    return
  fi
  if ((SECONDS + 10 > seconds)); then
    echo "== $name: left out, $SECONDS s are spent"
    return
  fi
  timeout "$limit" "$@" >"$out/$name.out" 2>"$out/$name.log"
  status=$?
  echo "== $name: exit $status, $((SECONDS - start)) s"
  case $name in
  check-*) grep -hE '^(FAIL|--  |[0-9]+ ok)' "$out/$name.out" | cut -c1-180 ;;
  bench-*)
    grep -h -A20 '^| model' "$out/$name.log" | tail -n +3
    ((status == 0)) && mv "$out/$name.out" "$out/$name.json"
    ;;
  esac
  ((status == 0)) || tail -n 3 "$out/$name.log" | cut -c1-300
}
# MODEL=FILE as `worker bench` takes it: the shape without weights.
shape() { echo "Qwen/$1=$models/$1.json"; }
# kernels NAME LIMIT_S: the tests of the kernels. gpu NAME LIMIT_S TEST VARIABLE=VALUE...: one of the
# engine's.
ignored=(--ignored --nocapture --test-threads=1)
kernels() { step "check-$1" "$2" "$bin/kernels" "${ignored[@]}"; }
gpu() {
  local name=$1 limit=$2 test=$3
  shift 3
  if [[ ! -x $bin/gpu ]]; then
    echo "== check-$name: left out, there is no $bin/gpu"
    return
  fi
  step "check-$name" "$limit" env "$@" "$bin/gpu" "$test" --exact "${ignored[@]}"
}
bench() {
  local name=$1 limit=$2
  shift 2
  step "bench-$name" "$limit" "$bin/worker" bench --json "$@"
}

nvidia-smi --format=csv \
  --query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit | tee "$out/machine.csv"
kernels kernels 120
gpu goldens 90 goldens BAKEOFF_GPU_GOLDENS=$goldens
gpu faults 40 faults BAKEOFF_GPU_GOLDENS=$goldens
cat "$out"/check-faults.out 2>/dev/null

for model in tiny-qwen2 tiny-qwen3 tiny-qwen3-moe; do
  gpu "reference-$model" 40 reference BAKEOFF_GPU_TOKENS=500 \
    BAKEOFF_GPU_MODEL="worker/engine/demo-models/$model"
done
# A long context: golden models whose limit is raised, which changes nothing else.
for model in qwen2 qwen3-moe qwen3-yarn-head128; do
  cp -r "$goldens/$model" "$scratch/"
  sed -i -E 's/"max_position_embeddings": [0-9]+/"max_position_embeddings": 32768/' "$scratch/$model/config.json"
  gpu "reference-long-$model" 60 reference BAKEOFF_GPU_TOKENS=16384 BAKEOFF_GPU_MODEL="$scratch/$model"
done
cat "$out"/check-reference-*.out 2>/dev/null

bench 7b 60 --model "$(shape Qwen2.5-Coder-7B-Instruct)" --depth 0,8192
bench 30b-a3b 60 --model "$(shape Qwen3-30B-A3B)" --depth 0,8192
bench coder-30b-a3b 60 --model "$(shape Qwen3-Coder-30B-A3B-Instruct)" --prompt-tokens 100 \
  --depth 0,8192
bench 32b 70 --model "$(shape Qwen3-32B)"
bench 32b-deep 50 --model "$(shape Qwen3-32B)" --prompt-tokens 100 --depth 8192 --repeats 3
bench coder-32b 60 --model "$(shape Qwen2.5-Coder-32B-Instruct)" --prompt-tokens 100 \
  --depth 0,8192 --repeats 3
bench sampling 30 --model "$(shape Qwen2.5-Coder-7B-Instruct)" --prompt-tokens 100 --sample
bench no-graph 40 --model "$(shape Qwen2.5-Coder-7B-Instruct)" --prompt-tokens 100 --no-cuda-graph

# The same weights through transformers and through us; then how fast they load from the page cache.
step peer-7b 90 python3 .dev/scripts/bench-peers.py model $models/Qwen2.5-Coder-7B-Instruct.json \
  "$scratch/7b"
gpu peer-7b 60 peer BAKEOFF_GPU_MODEL="$scratch/7b" \
  BAKEOFF_GPU_LOGITS="$scratch/7b/logits.safetensors"
cat "$out"/check-peer-7b.out 2>/dev/null
# Pages that were just written are slow to read the first time, and that is not what loading costs.
for _ in 1 2; do cat "$scratch"/7b/*.safetensors >/dev/null; done
bench load-7b 60 --model Qwen/Qwen2.5-Coder-7B-Instruct="$scratch/7b" --prompt-tokens 100 \
  --repeats 3
step peer-a3b 240 python3 .dev/scripts/bench-peers.py model $models/Qwen3-30B-A3B.json \
  "$scratch/a3b" --layers "${A3B_LAYERS:-48}"
gpu peer-a3b 120 peer BAKEOFF_GPU_MODEL="$scratch/a3b" \
  BAKEOFF_GPU_LOGITS="$scratch/a3b/logits.safetensors"
cat "$out"/check-peer-a3b.out 2>/dev/null
rm -rf "$scratch/a3b"
gpu long-7b 40 long BAKEOFF_GPU_TOKENS=16384 \
  BAKEOFF_GPU_MODEL=$models/Qwen2.5-Coder-7B-Instruct.json
gpu long-a3b 40 long BAKEOFF_GPU_TOKENS=16384 BAKEOFF_GPU_MODEL=$models/Qwen3-30B-A3B.json
cat "$out"/check-long-*.out 2>/dev/null
bench stock-7b 90 --model Qwen/Qwen2.5-Coder-7B-Instruct="$scratch/7b" --prompt-tokens 100 \
  --repeats 2 --engine stock
rm -rf "$scratch/7b"
step peers 120 python3 .dev/scripts/bench-peers.py bench $models/Qwen2.5-Coder-7B-Instruct.json \
  --repeats 3 --json
tail -n 4 "$out/peers.log"
[ -s "$out/peers.out" ] && mv "$out/peers.out" "$out/bench-peers.json"

python3 .dev/scripts/bench_run.py "$out" "cargo xtask gpu-proof BIN OUT $seconds"
