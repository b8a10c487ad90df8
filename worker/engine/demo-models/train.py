"""Trains the demo models: three toys of 2.6 million parameters, one for each architecture.

    python corpus.py corpus.jsonl.xz                     # see corpus.py
    python train.py prepare corpus.jsonl.xz work/        # tokenizer and token ids
    python train.py train work/ out/ tiny-qwen2          # likewise tiny-qwen3, tiny-qwen3-moe
    python train.py sample out/tiny-qwen2                # how it answers the demo's prompts

Training runs on a GPU where there is one, by default for two minutes; the learning rate follows the
clock. Needs torch, transformers, tokenizers, numpy. Run at another speed it gives other weights.
"""

import argparse
import json
import lzma
import math
import shutil
import time
from pathlib import Path

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

from exercises import exercises

VOCAB = 1536
END, TURN, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
MAX_TOKENS = 320
BATCH_TOKENS = 32768
# Training sees one stream of examples, cut into rows of this length.
ROW_TOKENS, ROWS = 256, 64
EXERCISE_REPEATS = 8
PEAK_RATE = 3e-3
WARM_UP_STEPS = 5

TEMPLATE = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

SHARED = dict(
    vocab_size=VOCAB,
    hidden_act="silu",
    max_position_embeddings=1024,
    rms_norm_eps=1e-6,
    rope_theta=10000.0,
    rope_scaling=None,
    initializer_range=0.02,
    attention_dropout=0.0,
    use_sliding_window=False,
    use_cache=True,
    torch_dtype="bfloat16",
)
CONFIGS = {
    "tiny-qwen2": SHARED
    | dict(architectures=["Qwen2ForCausalLM"], model_type="qwen2", hidden_size=192, intermediate_size=512)
    | dict(num_hidden_layers=6, num_attention_heads=6, num_key_value_heads=2, tie_word_embeddings=True),
    "tiny-qwen3": SHARED
    | dict(architectures=["Qwen3ForCausalLM"], model_type="qwen3", hidden_size=192, intermediate_size=448)
    | dict(num_hidden_layers=6, num_attention_heads=8, num_key_value_heads=2, head_dim=32)
    | dict(attention_bias=False, tie_word_embeddings=False),
    "tiny-qwen3-moe": SHARED
    | dict(architectures=["Qwen3MoeForCausalLM"], model_type="qwen3_moe", hidden_size=160, intermediate_size=320)
    | dict(num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=2, head_dim=32)
    | dict(attention_bias=False, tie_word_embeddings=True, num_experts=8, num_experts_per_tok=2)
    | dict(moe_intermediate_size=128, norm_topk_prob=True, decoder_sparse_step=1, mlp_only_layers=[])
    | dict(router_aux_loss_coef=0.01, output_router_logits=False),
}
DEMO_PROMPTS = (
    "Write a Python function that returns the sum of a list of numbers.",
    "Write a Python function that checks whether a string is a palindrome.",
)


def chat(request, answer):
    return f"{TURN}user\n{request}{TURN_END}\n{TURN}assistant\n", f"```python\n{answer}\n```{TURN_END}"


def prepare(corpus, work):
    """Trains the tokenizer and writes token ids: one flat array, with the bounds of each example."""
    examples = [json.loads(line) for line in lzma.decompress(Path(corpus).read_bytes()).decode().splitlines()]
    tokenizer = Tokenizer(models.BPE())
    words = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(words), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=[END, TURN, TURN_END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((part for request, code, _ in examples for part in chat(request, code)), trainer)
    assert tokenizer.get_vocab_size() == VOCAB
    work = Path(work)
    work.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(work / "tokenizer.json"), pretty=False)

    pairs = [chat(request, code) for request, code, _ in examples]
    prompts, answers = ([e.ids for e in tokenizer.encode_batch([p[i] for p in pairs])] for i in (0, 1))
    # The line end after a turn's end belongs to what follows, so prompt and answer tokenize apart.
    kept = [i for i in range(len(pairs)) if len(prompts[i]) + len(answers[i]) <= MAX_TOKENS]
    flat = np.array([t for i in kept for t in prompts[i] + answers[i]], np.uint16)
    ends = np.cumsum([len(prompts[i]) + len(answers[i]) for i in kept])
    np.savez_compressed(
        work / "tokens.npz",
        flat=flat,
        ends=ends,
        prompt_lengths=np.array([len(prompts[i]) for i in kept], np.uint16),
        held_out=np.array([examples[i][2] for i in kept]),
        # Exercises come last.
        exercise=np.array(kept) >= len(examples) - sum(1 for _ in exercises()),
    )
    print(f"{len(kept)} of {len(examples)} examples, {len(flat) / 1e6:.1f} million tokens, longest answer {max(len(answers[i]) for i in kept)}")


class Examples:
    def __init__(self, work, device):
        data = np.load(Path(work) / "tokens.npz")
        ends = data["ends"]
        starts = np.concatenate([[0], ends[:-1]])
        self.starts, self.lengths, self.prompts = starts, ends - starts, data["prompt_lengths"].astype(np.int64)
        self.flat = torch.from_numpy(data["flat"].astype(np.int32)).to(device)
        self.held_out = np.flatnonzero(data["held_out"])
        train = np.flatnonzero(~data["held_out"])
        self.train = np.concatenate([train, np.repeat(np.flatnonzero(data["exercise"]), EXERCISE_REPEATS - 1)])
        self.device = device

    def batches(self, chosen, rng=None):
        """Index arrays of similar lengths, each about BATCH_TOKENS; shuffled when `rng` is given."""
        noise = rng.uniform(0, 8, len(chosen)) if rng else 0
        ordered = chosen[np.argsort(self.lengths[chosen] + noise, kind="stable")]
        batches, first = [], 0
        while first < len(ordered):
            size = max(1, BATCH_TOKENS // int(self.lengths[ordered[min(first + 64, len(ordered) - 1)]] + 8))
            batches.append(ordered[first : first + size])
            first += size
        return [batches[i] for i in rng.permutation(len(batches))] if rng else batches

    def rows(self, rng):
        """One epoch, shuffled: batches [ROWS, ROW_TOKENS] cut from the examples in a row."""
        order = rng.permutation(self.train)
        lengths = self.lengths[order]
        offsets = np.repeat(self.starts[order] - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
        stream = self.flat[torch.from_numpy(offsets + np.arange(len(offsets))).to(self.device)].long()
        size = ROWS * ROW_TOKENS
        return stream[: len(stream) // size * size].view(-1, ROWS, ROW_TOKENS)

    def tensors(self, batch, answers_only):
        """Token ids [batch, longest] padded with 0 on the right, and labels with -100 where nothing is learnt."""
        lengths = torch.from_numpy(self.lengths[batch]).to(self.device)
        starts = torch.from_numpy(self.starts[batch]).to(self.device)
        prompts = torch.from_numpy(self.prompts[batch]).to(self.device)
        at = torch.arange(int(self.lengths[batch].max()), device=self.device)
        inside = at < lengths[:, None]
        ids = self.flat[(starts[:, None] + at).clamp(max=len(self.flat) - 1)].long() * inside
        learnt = inside & (at >= prompts[:, None]) if answers_only else inside
        return ids, torch.where(learnt, ids, -100)


def held_out_perplexities(model, examples):
    """Perplexity a token of the held-out answers, for the model and for a bigram model of the same training tokens."""
    counts = torch.full((VOCAB, VOCAB), 0.05, dtype=torch.float64, device=examples.device)
    for batch in examples.batches(np.unique(examples.train)):
        ids, labels = examples.tensors(batch, answers_only=False)
        seen = labels[:, 1:] >= 0
        pairs = ids[:, :-1][seen] * VOCAB + ids[:, 1:][seen]
        counts.view(-1).index_add_(0, pairs, torch.ones_like(pairs, dtype=torch.float64))
    bigram = (counts / counts.sum(-1, keepdim=True)).log()
    losses, tokens = [0.0, 0.0], 0
    model.eval()
    with torch.no_grad():
        for batch in examples.batches(examples.held_out):
            ids, labels = examples.tensors(batch, answers_only=True)
            learnt = labels[:, 1:] >= 0
            target = ids[:, 1:][learnt]
            logits = model(ids, use_cache=False).logits[:, :-1][learnt].float()
            losses[0] += torch.nn.functional.cross_entropy(logits, target, reduction="sum").item()
            losses[1] -= bigram[ids[:, :-1][learnt], target].sum().item()
            tokens += len(target)
    return [math.exp(loss / tokens) for loss in losses]


def save(model, name, work, out):
    folder = Path(out) / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer = Tokenizer.from_file(str(Path(work) / "tokenizer.json"))
    shutil.copy(Path(work) / "tokenizer.json", folder)
    end, turn_end = tokenizer.token_to_id(END), tokenizer.token_to_id(TURN_END)
    # The hub's own spelling, which candle-transformers reads too, in place of what transformers 5 writes.
    config = CONFIGS[name] | dict(bos_token_id=end, eos_token_id=turn_end, pad_token_id=end)
    generation = dict(bos_token_id=end, pad_token_id=end, eos_token_id=[turn_end, end], do_sample=True, temperature=0.7, top_p=0.9)
    special = dict(bos_token=None, eos_token=TURN_END, pad_token=END, unk_token=None)
    tokenizer_config = special | dict(
        tokenizer_class="PreTrainedTokenizerFast",
        model_max_length=config["max_position_embeddings"],
        clean_up_tokenization_spaces=False,
        chat_template=TEMPLATE,
    )
    for file, value in (("config", config), ("generation_config", generation), ("tokenizer_config", tokenizer_config)):
        (folder / f"{file}.json").write_text(json.dumps(value, indent=2) + "\n")
    size = sum(f.stat().st_size for f in folder.iterdir())
    assert size < 6e6, f"{folder} takes {size} bytes: a demo model stays under 6 MB"
    return folder


def all_experts(self, hidden, chosen, weights):
    """Every expert for every token, weighted by the router: for so few experts the fastest way to train."""
    routed = torch.zeros(len(hidden), self.num_experts, dtype=weights.dtype, device=hidden.device)
    routed = routed.scatter(1, chosen, weights)
    gate, up = torch.einsum("th,eih->tei", hidden, self.gate_up_proj).chunk(2, dim=-1)
    inner = self.act_fn(gate) * up * routed[..., None]
    return torch.einsum("tei,ehi->th", inner, self.down_proj).to(hidden.dtype)


ALL_EXPERTS_FUNCTIONS.register("all", all_experts)


def build(name):
    config = AutoConfig.for_model(**CONFIGS[name])
    config._attn_implementation = "sdpa"
    if name.endswith("moe"):
        config._experts_implementation = "all"
        config.output_router_logits = True
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def train(work, out, name, seconds, max_steps, use_compile):
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = True
    examples = Examples(work, device)
    model = build(name).to(device)
    parameters = sum(p.numel() for p in model.parameters())
    groups = [
        dict(params=[p for p in model.parameters() if p.dim() >= 2], weight_decay=0.1),
        dict(params=[p for p in model.parameters() if p.dim() < 2], weight_decay=0.0),
    ]
    optimizer = torch.optim.AdamW(groups, lr=torch.tensor(0.0, device=device), betas=(0.9, 0.95), fused=True)
    model.train()

    def loss_of(ids):
        with torch.autocast(device, dtype=torch.bfloat16):
            return model(ids, labels=ids, use_cache=False).loss

    with torch.no_grad():
        # The first forward installs hooks, which cannot be compiled.
        loss_of(torch.zeros(1, 8, dtype=torch.long, device=device))
    # On a GPU so small a model is bound by its thousand launches a step: fused and replayed, it is not.
    compiled = torch.compile(loss_of, dynamic=False, mode="reduce-overhead") if use_compile else loss_of
    step, epoch, done = 0, 0, 0.0
    started = time.monotonic()
    while done < 1:
        epoch += 1
        for ids in examples.rows(rng):
            if step == WARM_UP_STEPS:
                # Compiling is not training: the clock starts behind it.
                started = time.monotonic()
            done = max((time.monotonic() - started) / seconds if step >= WARM_UP_STEPS else 0, step / max_steps)
            if done >= 1:
                break
            rate = PEAK_RATE * min(1, step / 200) * 0.5 * (1 + math.cos(math.pi * done)) + 1e-5
            for group in optimizer.param_groups:
                group["lr"].fill_(rate)
            loss = compiled(ids)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            if step % 500 == 0 or step == WARM_UP_STEPS:
                print(f"{name} step {step} epoch {epoch} done {done:.2f} loss {loss.item():.3f}", flush=True)
            if step % 50 == 0:
                # Without this the host runs far ahead, and the clock with it.
                torch.cuda.synchronize() if device == "cuda" else None
    tokens = step * ROWS * ROW_TOKENS
    if name.endswith("moe"):
        model.config.output_router_logits = False
    folder = save(model, name, work, out)
    kept = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).to(device)
    perplexity, bigram = held_out_perplexities(kept, examples)
    (folder / "training.json").write_text(
        json.dumps(
            dict(
                parameters=parameters, steps=step, tokens=tokens, epochs=epoch, seconds=round(time.monotonic() - started),
                device=torch.cuda.get_device_name() if device == "cuda" else "cpu",
                held_out_perplexity=round(perplexity, 3), bigram_perplexity=round(bigram, 3),
            ),
            indent=2,
        )
        + "\n"
    )
    print(f"{name}: {parameters / 1e6:.2f} M parameters, {step} steps, {tokens / 1e6:.0f} M tokens, {epoch} epochs; "
          f"held-out perplexity {perplexity:.2f}, bigram {bigram:.2f}", flush=True)
    sample(folder, 4, device)


@torch.no_grad()
def sample(folder, runs, device="cpu"):
    """Answers the demo's prompts as the demo sweep does, and counts how many end by themselves."""
    folder = Path(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).to(device).eval()
    torch.manual_seed(1)
    stops = 0
    for prompt in DEMO_PROMPTS:
        inputs = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        ).to(device)
        out = model.generate(**inputs, do_sample=True, temperature=0.7, top_p=0.9, max_new_tokens=256, num_return_sequences=runs)
        answers = out[:, inputs["input_ids"].shape[1] :]
        ends = tokenizer.convert_tokens_to_ids(TURN_END)
        stopped = [(answer == ends).any().item() for answer in answers]
        stops += sum(stopped)
        print(f"--- {folder.name}: {prompt} ({sum(stopped)} of {runs} stop)")
        for answer in answers[:2]:
            print(tokenizer.decode(answer, skip_special_tokens=True), flush=True)
    print(f"{folder.name}: {stops} of {runs * len(DEMO_PROMPTS)} answers stop", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("prepare")
    command.add_argument("corpus")
    command.add_argument("work")
    command = commands.add_parser("train")
    command.add_argument("work")
    command.add_argument("out")
    command.add_argument("name", choices=CONFIGS)
    command.add_argument("--seconds", type=float, default=120)
    command.add_argument("--max-steps", type=int, default=10**9)
    command.add_argument("--compile", action=argparse.BooleanOptionalAction, default=torch.cuda.is_available())
    command = commands.add_parser("sample")
    command.add_argument("folder")
    command.add_argument("--runs", type=int, default=8)
    arguments = parser.parse_args()
    if arguments.command == "prepare":
        prepare(arguments.corpus, arguments.work)
    elif arguments.command == "train":
        train(arguments.work, arguments.out, arguments.name, arguments.seconds, arguments.max_steps, arguments.compile)
    else:
        sample(arguments.folder, arguments.runs)


if __name__ == "__main__":
    main()
