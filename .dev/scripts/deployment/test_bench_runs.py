"""Measured runs under deploy/bench-runs/: each has command, commit, machine, table and
summary.json, and what other documents say of speed is what a run measured."""

import json
import pathlib
import re
import sys
import unittest

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(REPOSITORY / ".dev/scripts"))

import bench_run

RUNS = REPOSITORY / "deploy/bench-runs"
README = (REPOSITORY / "README.md").read_text()


def rows(folder):
    return json.loads((folder / "summary.json").read_text())


def cited(text):
    """The runs that a text names."""
    return [RUNS / name for name in re.findall(r"\(deploy/bench-runs/([\w-]+)/README\.md\)", text)]


class BenchRuns(unittest.TestCase):
    folders = sorted(RUNS.iterdir())

    def test_each_is_complete(self):
        self.assertTrue(self.folders)
        for folder in self.folders:
            with self.subTest(folder.name):
                named = re.fullmatch(r"20\d\d-\d\d-\d\d-[a-z0-9]+-([0-9a-f]{7,40})", folder.name)
                self.assertTrue(named, "not <date>-<gpu>-<commit>")
                text = (folder / "README.md").read_text()
                for what in "- command: `", f"- commit: {named[1]}", "- machine: ":
                    self.assertIn(f"\n{what}", text)
                self.assertIn(f"\n{bench_run.table(rows(folder))}", text)

    def test_the_readmes_table_is_the_runs(self):
        chapter = README.split("\n## Speed on one H100\n")[1].split("\n## ")[0]
        table, after = chapter.split("\nThe first token")
        [run] = cited(table)
        measured = {
            (f"{r['decode_tok_s']:.1f}", f"{r.get('roofline_pct', 0):.1f}") for r in rows(run)
        }
        speeds = {speed for speed, _ in measured}
        shown = re.findall(r"^\|.*\| ([\d.]+) \| ([\d.]+) % \|$", table, re.M)
        self.assertGreater(len(shown), 8)
        for speed, share in shown:
            self.assertIn(speed, speeds)
            if "." in share:
                self.assertIn((speed, share), measured)

        [run] = cited(after)
        first = {
            r["model"]: r["ttft_ms"]
            for r in rows(run)
            if (r["prompt_tokens"], r["depth"]) == (100, 0)
        }
        for figure, name in re.findall(r"([\d.]+) (?:ms )?\(([\w-]+)\)", after.split(", by ")[0]):
            digits = len(figure.partition(".")[2])
            self.assertIn(
                figure, {f"{ms:.{digits}f}" for model, ms in first.items() if name in model}
            )

    def test_the_changelogs_speeds_are_the_readmes(self):
        changes = (REPOSITORY / "CHANGELOG.md").read_text()
        [line] = [
            " ".join(text.split()) for text in changes.split("\n- ") if "tok/s for a 7B" in text
        ]
        shown = re.findall(r"(\d+)(?: tok/s)? for [^(]*\(([\d.]+) %", line)
        self.assertEqual(len(shown), 3, line)
        table = re.findall(r"\| ([\d.]+) \| ([\d.]+) % \|$", README, re.M)
        for speed, share in shown:
            digits = len(share.partition(".")[2])
            known = {(f"{float(s):.0f}", f"{float(p):.{digits}f}") for s, p in table}
            self.assertIn((speed, share), known)


if __name__ == "__main__":
    unittest.main()
