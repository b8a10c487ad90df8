"""Makes the golden files of the engine's tests, or with --check compares them with a fresh run.

    python -m venv venv && venv/bin/pip install -r requirements.txt
    venv/bin/python make_goldens.py            # rewrite models/ and templates/
    venv/bin/python make_goldens.py --check    # exit 1 where a fresh run differs

Weights, prompts and greedy tokens must come out identical everywhere. Logits depend on the order
in which a CPU sums, so --check allows them 1e-4 of the largest logit, and a half on BF16's error.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file

import model_goldens
import template_goldens

HERE = Path(__file__).resolve().parent
LOGIT_TOLERANCE = 1e-4
BF16_ERROR_TOLERANCE = 0.5


def json_differences(path, kept, fresh):
    """Differences between two golden JSON values: exact but for floats, which are BF16's errors and margins."""
    if isinstance(kept, float) and isinstance(fresh, float):
        if abs(kept - fresh) > BF16_ERROR_TOLERANCE * max(abs(kept), 1e-3):
            yield f"{path}: {kept} is kept, a fresh run gives {fresh}"
    elif isinstance(kept, dict) and isinstance(fresh, dict) and kept.keys() == fresh.keys():
        for key in kept:
            yield from json_differences(f"{path}.{key}", kept[key], fresh[key])
    elif kept != fresh:
        yield f"{path}: differs from a fresh run"


def file_differences(kept: Path, fresh: Path):
    if kept.suffix == ".json":
        yield from json_differences(kept.name, json.loads(kept.read_text()), json.loads(fresh.read_text()))
    elif kept.name == "golden.safetensors":
        kept_tensors, fresh_tensors = load_file(kept), load_file(fresh)
        if kept_tensors.keys() != fresh_tensors.keys():
            yield f"{kept.name}: holds {sorted(kept_tensors)}, a fresh run {sorted(fresh_tensors)}"
            return
        for name, tensor in kept_tensors.items():
            error = (tensor - fresh_tensors[name]).abs().max() / tensor.abs().max()
            if error > LOGIT_TOLERANCE:
                yield f"{kept.name}: {name} is off by {error:.1e} of its largest value"
    elif kept.read_bytes() != fresh.read_bytes():
        yield f"{kept.name}: its bytes differ from a fresh run"


def differences(kept: Path, fresh: Path):
    files = {p.relative_to(root) for root in (kept, fresh) for p in root.rglob("*") if p.is_file()}
    for file in sorted(files):
        if not (kept / file).exists():
            yield f"{file}: missing"
        elif not (fresh / file).exists():
            yield f"{file}: a fresh run does not make it"
        else:
            yield from (f"{file.parent}/{line}" for line in file_differences(kept / file, fresh / file))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with a fresh run, change nothing")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    def make(root):
        template_goldens.make(root / "templates", HERE / "tokenizers" / "qwen3")
        model_goldens.make(root / "models")

    if not arguments.check:
        make(HERE)
        return 0
    with tempfile.TemporaryDirectory() as fresh:
        make(Path(fresh))
        found = [line for part in ("models", "templates") for line in differences(HERE / part, Path(fresh) / part)]
    print("\n".join(found) or "the golden files are what a fresh run makes")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
