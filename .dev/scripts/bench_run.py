#!/usr/bin/env python3
"""Writes down a measured run as deploy/bench-runs/ keeps it: its rows in summary.json, and
README.md with command, commit, machine and table.

    bench_run.py FOLDER COMMAND    FOLDER holds machine.csv and the rows that `worker bench --json`
                                   printed, as bench-*.json

The folder then belongs under deploy/bench-runs/<date>-<gpu>-<commit>, without the files of single
steps.
"""
import datetime
import json
import pathlib
import subprocess
import sys

# (heading, key, digits)
FIGURES = (
    ("prompt", "prompt_tokens", 0),
    ("depth", "depth", 0),
    ("decode tok/s", "decode_tok_s", 1),
    ("% of bound", "roofline_pct", 1),
    ("TTFT ms", "ttft_ms", 1),
    ("prefill tok/s", "prefill_tok_s", 0),
    ("% of cuBLAS", "prefill_gemm_pct", 1),
    ("load GB/s", "load_gb_s", 1),
    ("J/token", "energy_j_per_token", 3),
)


def engine(row):
    """The engine, and what sets a row apart from the others."""
    apart = [row["dtype"]] if "dtype" in row else []
    apart += ["sampling"] if row.get("sampling") == "sample" else []
    apart += ["no graph"] if row.get("cuda_graph") == "off" else []
    apart += ["from files"] if row.get("load_format") == "safetensors" else []
    return ", ".join([row["engine"], *apart])


def figure(row, key):
    # Random weights are made on the device: how fast says nothing of loading.
    if key == "load_gb_s" and row.get("load_format") != "safetensors":
        return None
    return row.get(key)


def table(rows):
    """The rows as markdown; a figure that no row has gets no column."""
    figures = [
        (*names, digits)
        for *names, digits in FIGURES
        if any(figure(row, names[1]) is not None for row in rows)
    ]
    lines = [
        ["model", "engine", *(heading for heading, _, _ in figures)],
        ["---", "---", *("--:" for _ in figures)],
    ]
    for row in rows:
        cells = (figure(row, key) for _, key, _ in figures)
        shown = [
            "–" if cell is None else f"{cell:,.{digits}f}"
            for cell, (_, _, digits) in zip(cells, figures)
        ]
        lines.append([row["model"].split("/")[-1], engine(row), *shown])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def readme(folder, command, rows):
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True
    )
    commit = described.stdout.strip() or "unknown: write down what was built"
    _, machine = (folder / "machine.csv").read_text().splitlines()[:2]
    now = datetime.datetime.now(datetime.timezone.utc)
    return f"""# {machine.split(",")[0]}, {now:%Y-%m-%d}

- command: `{command}`, ended {now:%H:%M} UTC
- commit: {commit}
- machine: {machine}

{table(rows)}"""


def main():
    folder, command = pathlib.Path(sys.argv[1]), sys.argv[2]
    rows = [
        row for path in sorted(folder.glob("bench-*.json")) for row in json.loads(path.read_text())
    ]
    (folder / "summary.json").write_text(json.dumps(rows, indent=1) + "\n")
    (folder / "README.md").write_text(readme(folder, command, rows))
    print(f"{len(rows)} rows in {folder}/summary.json")


if __name__ == "__main__":
    main()
