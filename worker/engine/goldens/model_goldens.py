"""Tiny random checkpoints of each architecture, and what transformers computes with them.

Each case is one folder `models/<name>/` that looks like a checkpoint on the hub:
config.json (in the hub's own spelling, not as transformers rewrites it), weights under
the hub's tensor names, generation_config.json. Beside them:

golden.json         the prompts, greedy continuations, and the error of transformers' BF16
golden.safetensors  short_logits [short_ids, vocab] and long_logits [long_positions, vocab], FP32
"""

import json
import math
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, GenerationConfig
from transformers.utils import logging as transformers_logging

transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()

VOCAB = 320
# The last ids stand for special tokens: never in a prompt, and never the greedy choice,
# because their rows of the output matrix are zero.
SPECIAL = 4
SHORT_TOKENS = 40
LONG_TOKENS = 600
GREEDY_TOKENS = 64
# A BF16 rotary table is still right near position 0 and wrong past 256, so both sides are kept.
LONG_POSITIONS = [0, 1, 100, 255, 256, 257, 300, 400, 511, 512, 513, *range(584, 600)]
# The closest call a greedy choice may be: FP32 engines that sum in another order differ by about 1e-5.
MIN_MARGIN = 0.005

BASE = dict(
    vocab_size=VOCAB,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=1024,
    rms_norm_eps=1e-6,
    rope_theta=1000000.0,
    hidden_act="silu",
    attention_dropout=0.0,
    tie_word_embeddings=False,
    use_cache=True,
    torch_dtype="bfloat16",
    bos_token_id=318,
    eos_token_id=319,
)
QWEN2 = BASE | dict(
    architectures=["Qwen2ForCausalLM"],
    model_type="qwen2",
    # Real Qwen2.5 configs carry these although no layer slides.
    use_sliding_window=False,
    sliding_window=512,
    max_window_layers=2,
)
QWEN3 = BASE | dict(
    architectures=["Qwen3ForCausalLM"],
    model_type="qwen3",
    head_dim=32,
    attention_bias=False,
    use_sliding_window=False,
    sliding_window=None,
    max_window_layers=2,
)
QWEN3_MOE = QWEN3 | dict(
    architectures=["Qwen3MoeForCausalLM"],
    model_type="qwen3_moe",
    num_experts=8,
    num_experts_per_tok=2,
    moe_intermediate_size=16,
    norm_topk_prob=True,
    decoder_sparse_step=1,
    mlp_only_layers=[],
    output_router_logits=False,
    router_aux_loss_coef=0.001,
)
LLAMA = BASE | dict(
    architectures=["LlamaForCausalLM"],
    model_type="llama",
    rms_norm_eps=1e-5,
    rope_theta=100000.0,
    attention_bias=False,
    mlp_bias=False,
    rope_scaling=None,
    rope_interleaved=False,
)
# Mistral 7B from v0.2 on: Llama's layers, and no sliding window.
MISTRAL = BASE | dict(
    architectures=["MistralForCausalLM"],
    model_type="mistral",
    rms_norm_eps=1e-5,
    sliding_window=None,
)
YARN = dict(rope_scaling=dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=256))


@dataclass
class Case:
    name: str
    config: dict
    generation_config: dict = field(default_factory=dict)
    shards: int = 1
    dtype: torch.dtype = torch.bfloat16
    # Index of the greedy step whose token is made an end-of-sequence id.
    stop_at: int | None = None


CASES = [
    Case("qwen2", QWEN2),
    Case("qwen2-tied", QWEN2 | dict(tie_word_embeddings=True)),
    Case("qwen2-yarn", QWEN2 | YARN),
    # The older spelling of the key, which checkpoints on the hub still have.
    Case("qwen2-linear", QWEN2 | dict(rope_scaling=dict(type="linear", factor=2.0))),
    Case(
        "qwen2-eos-list",
        QWEN2,
        # The shape of Qwen2.5's own file: sampling settings, a penalty, and a list of ends.
        generation_config=dict(
            do_sample=True, temperature=0.7, top_p=0.8, top_k=20, repetition_penalty=1.1
        ),
        stop_at=30,
    ),
    Case("qwen3", QWEN3),
    Case("qwen3-tied-sharded", QWEN3 | dict(tie_word_embeddings=True, num_hidden_layers=3), shards=3),
    Case("qwen3-yarn-head128", QWEN3 | YARN | dict(head_dim=128, num_attention_heads=2, num_key_value_heads=1)),
    # The spelling that transformers 5 writes.
    Case(
        "qwen3-rope-parameters",
        {k: v for k, v in QWEN3.items() if k not in ("rope_theta", "torch_dtype")}
        | dict(rope_parameters=dict(rope_type="linear", rope_theta=10000.0, factor=4.0), dtype="bfloat16"),
    ),
    Case("qwen3-repetition", QWEN3, generation_config=dict(repetition_penalty=1.3)),
    Case("qwen3-moe", QWEN3_MOE),
    Case("qwen3-moe-raw-topk", QWEN3_MOE | dict(norm_topk_prob=False)),
    Case("qwen3-moe-mlp-only", QWEN3_MOE | dict(num_hidden_layers=3, mlp_only_layers=[1])),
    Case("qwen3-moe-sparse-step", QWEN3_MOE | dict(num_hidden_layers=3, decoder_sparse_step=2)),
    Case("llama", LLAMA),
    # SmolLM2's habits: tied, heads that are no power of two; stored as FP32.
    Case(
        "llama-tied-f32",
        LLAMA
        | dict(hidden_size=48, num_attention_heads=3, num_key_value_heads=1, tie_word_embeddings=True)
        | dict(torch_dtype="float32"),
        dtype=torch.float32,
    ),
    Case("mistral", MISTRAL),
]


def is_moe_layer(config, layer):
    """Whether `layer` is routed, by the rule of transformers' Qwen3MoeDecoderLayer."""
    return (
        config["model_type"] == "qwen3_moe"
        and layer not in config["mlp_only_layers"]
        and (layer + 1) % config["decoder_sparse_step"] == 0
    )


def random_weights(config, rng, dtype):
    """Weights under the hub's names, spread so that attention matters and logits are far apart."""
    hidden, heads, kv_heads = (config[k] for k in ("hidden_size", "num_attention_heads", "num_key_value_heads"))
    head_dim = config.get("head_dim", hidden // heads)
    weights = {}

    def put(name, array):
        # Rounded through BF16 whatever it is stored as, so that BF16 and FP32 runs share their weights.
        weights[name] = torch.from_numpy(array.astype(np.float32)).to(torch.bfloat16).to(dtype)

    def linear(name, rows, columns, gain):
        put(f"{name}.weight", rng.normal(0, gain / math.sqrt(columns), (rows, columns)))

    def vocabulary(name, std):
        rows = rng.normal(0, std, (config["vocab_size"], hidden))
        rows[-SPECIAL:] = 0
        put(f"{name}.weight", rows)

    def norm(name, size):
        put(f"{name}.weight", 1 + rng.normal(0, 0.15, size))

    def mlp(name, inner):
        linear(f"{name}.gate_proj", inner, hidden, 1.5)
        linear(f"{name}.up_proj", inner, hidden, 1.5)
        linear(f"{name}.down_proj", hidden, inner, 1.5)

    vocabulary("model.embed_tokens", 0.5)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        norm(f"{prefix}.input_layernorm", hidden)
        for part, rows in (("q", heads), ("k", kv_heads), ("v", kv_heads)):
            linear(f"{prefix}.self_attn.{part}_proj", rows * head_dim, hidden, 2.0)
            if config["model_type"] == "qwen2":
                put(f"{prefix}.self_attn.{part}_proj.bias", rng.normal(0, 0.3, rows * head_dim))
        linear(f"{prefix}.self_attn.o_proj", hidden, heads * head_dim, 2.0)
        if config["model_type"].startswith("qwen3"):
            norm(f"{prefix}.self_attn.q_norm", head_dim)
            norm(f"{prefix}.self_attn.k_norm", head_dim)
        norm(f"{prefix}.post_attention_layernorm", hidden)
        if is_moe_layer(config, layer):
            linear(f"{prefix}.mlp.gate", config["num_experts"], hidden, 2.0)
            for expert in range(config["num_experts"]):
                mlp(f"{prefix}.mlp.experts.{expert}", config["moe_intermediate_size"])
        else:
            mlp(f"{prefix}.mlp", config["intermediate_size"])
    norm("model.norm", hidden)
    if not config["tie_word_embeddings"]:
        vocabulary("lm_head", 3 / math.sqrt(hidden))
    return weights


def write_weights(folder, weights, shards):
    metadata = {"format": "pt"}
    if shards == 1:
        save_file(weights, folder / "model.safetensors", metadata)
        return
    names = sorted(weights)
    weight_map = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: weights[name] for name in names[shard::shards]}
        save_file(part, folder / file, metadata)
        weight_map |= dict.fromkeys(part, file)
    total = sum(t.numel() * t.element_size() for t in weights.values())
    write_json(folder / "model.safetensors.index.json", dict(metadata=dict(total_size=total), weight_map=weight_map))


def write_json(path, value):
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")


def load(folder, dtype):
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, output_loading_info=True)
    problems = {k: v for k, v in info.items() if v}
    assert not problems, f"{folder.name}: the weights do not fit the model: {problems}"
    assert {p.dtype for p in model.parameters()} == {dtype}
    return model.eval()


@torch.no_grad()
def logits(model, ids):
    return model(torch.tensor([ids]), use_cache=False).logits[0].float()


@torch.no_grad()
def greedy(model, ids, generation_config):
    """Greedy tokens and the smallest lead of a chosen token over the runner-up."""
    out = model.generate(
        torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        generation_config=generation_config,
        do_sample=False,
        temperature=None,
        top_p=None,
        top_k=None,
        max_new_tokens=GREEDY_TOKENS,
        return_dict_in_generate=True,
        output_scores=True,
    )
    tokens = out.sequences[0, len(ids) :].tolist()
    top = torch.stack([s[0] for s in out.scores]).topk(2).values
    return dict(tokens=tokens, min_margin=round((top[:, 0] - top[:, 1]).min().item(), 4))


def bf16_error(exact, rounded):
    """Relative L2 error of `rounded` over all positions, and its spread over single positions."""
    per_position = (rounded - exact).norm(dim=-1) / exact.norm(dim=-1)
    return dict(
        rel_l2=((rounded - exact).norm() / exact.norm()).item(),
        rel_l2_median_position=per_position.median().item(),
        rel_l2_worst_position=per_position.max().item(),
        max_abs=(rounded - exact).abs().max().item(),
    )


@torch.no_grad()
def router_logits(model, ids):
    """[layers, positions, experts] of the layers that choose."""
    seen = []
    gates = [module for name, module in model.named_modules() if name.endswith("mlp.gate")]
    hooks = [g.register_forward_hook(lambda _module, _inputs, out: seen.append(out)) for g in gates]
    model(torch.tensor([ids]), use_cache=False)
    for hook in hooks:
        hook.remove()
    out = [one[0] if isinstance(one, tuple) else one for one in seen]
    return torch.stack([one.float().reshape(len(ids), -1) for one in out])


def routing(exact, rounded, ids):
    """Where FP32's choice of experts hangs on less than what BF16 changes: any order of rounding may turn it."""
    top_k = exact.config.num_experts_per_tok
    ours, theirs = router_logits(exact, ids), router_logits(rounded, ids)
    error = (ours - theirs).abs().amax(-1).median().item()
    ranked = ours.sort(-1, descending=True).values
    margin = (ranked[..., top_k - 1] - ranked[..., top_k]).amin(0)
    return dict(bf16_error=round(error, 4), near_ties=(margin < error).nonzero().flatten().tolist())


def attempt(case, folder, seed):
    """Writes the case with this seed; returns False when its greedy run is too close a call or too dull."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rng = np.random.default_rng([seed, *case.name.encode()])
    write_json(folder / "config.json", case.config)
    write_weights(folder, random_weights(case.config, rng, case.dtype), case.shards)
    short_ids = rng.integers(0, VOCAB - SPECIAL, SHORT_TOKENS).tolist()
    long_ids = rng.integers(0, VOCAB - SPECIAL, LONG_TOKENS).tolist()

    model = load(folder, torch.float32)
    plain = GenerationConfig(bos_token_id=318, eos_token_id=319, pad_token_id=319)
    own = dict(bos_token_id=318, eos_token_id=[319, 317], pad_token_id=319) | case.generation_config
    expected = GREEDY_TOKENS
    if case.stop_at is not None:
        tokens = greedy(model, short_ids, GenerationConfig(**own))["tokens"]
        own["eos_token_id"] = [319, tokens[case.stop_at]]
        expected = tokens.index(tokens[case.stop_at]) + 1
    write_json(folder / "generation_config.json", own)
    own = GenerationConfig.from_pretrained(folder)

    runs = {}
    for name, ids, settings, length in (
        ("greedy", short_ids, plain, GREEDY_TOKENS),
        ("greedy_long", long_ids, plain, GREEDY_TOKENS),
        ("greedy_generation_config", short_ids, own, expected),
    ):
        run = greedy(model, ids, settings)
        assert len(run["tokens"]) == length, f"{case.name}: {name} stopped after {len(run['tokens'])} tokens"
        if run["min_margin"] < MIN_MARGIN or len(set(run["tokens"])) < 12:
            return False
        runs[name] = run

    short, long = logits(model, short_ids), logits(model, long_ids)
    rounded = load(folder, torch.bfloat16)
    golden = dict(
        seed=seed,
        short_ids=short_ids,
        long_ids=long_ids,
        long_positions=LONG_POSITIONS,
        bf16_short=bf16_error(short, logits(rounded, short_ids)),
        bf16_long=bf16_error(long, logits(rounded, long_ids)),
        **runs,
    )
    if hasattr(model.config, "num_experts_per_tok"):
        golden["routing_short"] = routing(model, rounded, short_ids)
    write_json(folder / "golden.json", golden)
    tensors = dict(short_logits=short.contiguous(), long_logits=long[LONG_POSITIONS].contiguous())
    save_file(tensors, folder / "golden.safetensors")
    return True


def make(root: Path, only=None):
    for case in CASES:
        if only and case.name not in only:
            continue
        seed = next((s for s in range(200) if attempt(case, root / case.name, s)), None)
        assert seed is not None, f"{case.name}: no seed gives a clear greedy run"
        size = sum(f.stat().st_size for f in (root / case.name).iterdir())
        golden = json.loads((root / case.name / "golden.json").read_text())
        print(
            f"{case.name:24} seed {seed:3} {size / 1000:6.0f} kB, "
            f"BF16 error {golden['bf16_short']['rel_l2']:.4f} short, {golden['bf16_long']['rel_l2']:.4f} long, "
            f"margins {[golden[k]['min_margin'] for k in ('greedy', 'greedy_long', 'greedy_generation_config')]}, "
            f"distinct {[len(set(golden[k]['tokens'])) for k in ('greedy', 'greedy_long', 'greedy_generation_config')]}",
            flush=True,
        )
