#!/usr/bin/env python3
"""What transformers does on the same GPU with the same shapes.

    bench-peers.py bench CONFIG [--mode eager,compile] [--json]   speed, random weights
    bench-peers.py model CONFIG OUT [--layers N]                  a random checkpoint, and the
                                                                  logits of transformers with it

`bench` prints rows with the fields of `worker bench --json`, as far as they apply: `eager` is what
`model.generate` does, `compile` a static cache with `torch.compile(mode="reduce-overhead")`.
`model` writes OUT/config.json, OUT/model*.safetensors and OUT/logits.safetensors (`ids`, and the
last 64 positions in FP32, `exact`, and in BF16, `rounded`), which the engine's GPU test `peer` reads.
"""
import argparse
import json
import re
import statistics
import sys
import time
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

POSITIONS = 64


def random_model(path, layers=None):
    config = AutoConfig.from_pretrained(path.parent if path.name == "config.json" else str(path))
    if layers:
        config.num_hidden_layers = layers
        config.max_window_layers = layers
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[:layers]
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(
            config, dtype=torch.bfloat16, attn_implementation="sdpa"
        )
    model.eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            mean = 1.0 if "norm" in name else 0.0
            parameter.normal_(mean, 0.02)
    return model


def prompt(model, tokens):
    generator = torch.Generator().manual_seed(1)
    vocab = min(model.config.vocab_size, 100_000)
    return torch.randint(0, vocab, (1, tokens), generator=generator).cuda()


def seconds(run):
    torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def bench(arguments):
    rows = []
    for path in arguments.config:
        model = random_model(path)
        for mode in arguments.mode.split(","):
            rows += [
                bench_mode(model, path.stem, mode, tokens, arguments)
                for tokens in arguments.prompt_tokens
            ]
        del model
        torch.cuda.empty_cache()
    if arguments.json:
        json.dump(rows, sys.stdout, indent=1)
        print()


def bench_mode(model, name, mode, tokens, arguments):
    ids = prompt(model, tokens)
    new = arguments.gen_tokens
    common = dict(
        do_sample=False,
        temperature=None,
        top_p=None,
        top_k=None,
        pad_token_id=0,
        eos_token_id=None,
        attention_mask=torch.ones_like(ids),
    )
    if mode == "compile":
        # `generate` compiles the decode step when the cache is static.
        common["cache_implementation"] = "static"
        common["compile_config"] = transformers.CompileConfig(
            mode="reduce-overhead", fullgraph=True
        )

    def generate(count):
        out = model.generate(ids, max_new_tokens=count, min_new_tokens=count, **common)
        assert out.shape[1] == tokens + count, out.shape

    with torch.no_grad():
        for _ in range(3 if mode == "compile" else 1):
            generate(new)
        first, whole = [], []
        for _ in range(arguments.repeats):
            first.append(seconds(lambda: generate(1)))
            whole.append(seconds(lambda: generate(new)))
    ttft = statistics.median(first)
    samples = [(new - 1) / (total - ttft) for total in whole]
    row = {
        "model": name,
        "engine": f"transformers-{mode}",
        "load_format": "dummy",
        "batch": 1,
        "prompt_tokens": tokens,
        "gen_tokens": new,
        "depth": 0,
        "sampling": "greedy",
        "decode_tok_s": statistics.median(samples),
        "decode_tok_s_sd": statistics.stdev(samples) if len(samples) > 1 else 0.0,
        "tpot_ms": 1e3 / statistics.median(samples),
        "ttft_ms": ttft * 1e3,
        "prefill_tok_s": tokens / ttft,
        "samples": samples,
        "versions": f"torch {torch.__version__}, transformers {transformers.__version__}",
    }
    print(
        f"{name} {row['engine']}: prompt {tokens}, {row['decode_tok_s']:.1f} tok/s "
        f"(sd {row['decode_tok_s_sd']:.1f}), ttft {row['ttft_ms']:.1f} ms",
        file=sys.stderr,
    )
    return row


def in_fp32(model):
    """The model in FP32, one layer at a time: its BF16 weights fill the GPU."""
    layers = model.model.layers
    for layer in layers:
        layer.register_forward_pre_hook(lambda module, _: module.float() and None)
        layer.register_forward_hook(lambda module, *_: module.bfloat16() and None)
    for module in [*model.model.children(), model.lm_head]:
        if module is not layers:
            module.float()
    return model


def save_model(model, folder):
    """`save_pretrained`, a file a layer: the GPU has no room for two copies of all experts."""
    from transformers.core_model_loading import revert_weight_conversion

    folder.mkdir(parents=True, exist_ok=True)
    model.config.save_pretrained(folder)
    state, files = model.state_dict(), {}
    if model.config.tie_word_embeddings:
        del state["lm_head.weight"]
    for name, tensor in state.items():
        layer = re.match(r"model\.layers\.(\d+)\.", name)
        files.setdefault(
            f"model-{int(layer[1]):03}.safetensors" if layer else "model-rest.safetensors", {}
        )[name] = tensor
    weight_map = {}
    for file, tensors in files.items():
        tensors = {
            name: t.contiguous() for name, t in revert_weight_conversion(model, tensors).items()
        }
        save_file(tensors, folder / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(tensors, file))
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def write_model(arguments):
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    model = random_model(arguments.config, arguments.layers)
    save_model(model, arguments.out)
    ids = prompt(model, 2 * POSITIONS)
    with torch.no_grad():
        rounded = model(ids).logits[0, -POSITIONS:].float().cpu()
        exact = in_fp32(model)(ids).logits[0, -POSITIONS:].float().cpu()
    error = ((rounded - exact).norm() / exact.norm()).item()
    print(
        f"{arguments.config.stem}: transformers in BF16 is {error:.4f} off its FP32 run",
        file=sys.stderr,
    )
    save_file(
        {"ids": ids[0].cpu(), "rounded": rounded.contiguous(), "exact": exact.contiguous()},
        arguments.out / "logits.safetensors",
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("bench")
    command.add_argument("config", type=Path, nargs="+")
    command.add_argument("--mode", default="eager,compile")
    command.add_argument("--prompt-tokens", type=int, nargs="+", default=[100])
    command.add_argument("--gen-tokens", type=int, default=128)
    command.add_argument("--repeats", type=int, default=5)
    command.add_argument("--json", action="store_true")
    command.set_defaults(run=bench)
    command = commands.add_parser("model")
    command.add_argument("config", type=Path)
    command.add_argument("out", type=Path)
    command.add_argument("--layers", type=int)
    command.set_defaults(run=write_model)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
