"""What can be told of a release before one is made: licences, toolchain, workflows and the
script that tries a cluster."""

import contextlib
import io
import re
import sys
import tomllib
import unittest

import workflows
from servers import REPOSITORY

sys.path.insert(0, str(REPOSITORY / ".dev/scripts"))

import kind

DOCKERFILES = sorted((REPOSITORY / "deploy").glob("Dockerfile.*"))
FLOWS = sorted((REPOSITORY / ".github/workflows").glob("*.yml"))


def toml(path):
    return tomllib.loads((REPOSITORY / path).read_text())


class Licences(unittest.TestCase):
    def test_the_list_accepts_what_the_check_of_dependencies_accepts(self):
        about, deny = toml("about.toml"), toml("deny.toml")
        self.assertEqual(set(about["accepted"]), set(deny["licenses"]["allow"]))
        exceptions = {e["crate"]: e["allow"] for e in deny["licenses"]["exceptions"]}
        self.assertEqual(
            {k: v["accepted"] for k, v in about.items() if isinstance(v, dict) and "accepted" in v},
            exceptions,
        )
        self.assertEqual(about["targets"], deny["graph"]["targets"])

    def test_the_licence_is_the_one_that_the_workspace_declares(self):
        self.assertEqual(toml("Cargo.toml")["workspace"]["package"]["license"], "Apache-2.0")
        text = (REPOSITORY / "LICENSE").read_text()
        self.assertIn("Apache License\n                           Version 2.0, January 2004", text)
        self.assertIn("END OF TERMS AND CONDITIONS", text)

    def test_what_packages_compile_in_is_in_the_notice(self):
        notice = (REPOSITORY / "NOTICE").read_text()
        locked = {package["name"] for package in toml("Cargo.lock")["package"]}
        for package in "onig_sys", "candle-flash-attn":
            self.assertIn(package, locked)
            self.assertIn(package, notice)


class Pins(unittest.TestCase):
    def test_one_version_of_each_tool_and_one_toolchain(self):
        texts = [file.read_text() for file in DOCKERFILES]
        for tool in "cargo-chef", "cargo-about":
            versions = {
                v
                for text in texts
                for v in re.findall(rf"cargo install {tool} .*--version (\S+)", text)
            }
            self.assertEqual(len(versions), 1, f"{tool}: {versions}")
        toolchain = toml("rust-toolchain.toml")["toolchain"]["channel"]
        images = {
            i
            for text in texts + [f.read_text() for f in FLOWS]
            for i in re.findall(r"\brust:\S+", text)
        }
        self.assertEqual(len(images), 1, images)
        self.assertIn(f"rust:{toolchain}-", images.pop())
        self.assertTrue(
            toolchain.startswith(toml("Cargo.toml")["workspace"]["package"]["rust-version"])
        )


class Workflows(unittest.TestCase):
    def test_what_is_wrong_is_found(self):
        text = (REPOSITORY / ".github/workflows/ci.yml").read_text()
        self.assertEqual(list(workflows.problems(text, {})), [])
        for old, new, expected in (
            ("@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1", "@v7", "not pinned by commit"),
            (" # v7.0.1", "", "no comment tells the version"),
            ("run: cargo xtask test", "run: cargo xtask test && true", "more than one command"),
            ("run: cargo xtask test", "run: npm test", "neither cargo nor a script"),
            ("    timeout-minutes: 120\n", "", "no timeout"),
        ):
            with self.subTest(expected):
                self.assertIn(old, text)
                self.assertIn(expected, "\n".join(workflows.problems(text.replace(old, new), {})))
        schema = {"properties": {"jobs": {"properties": {"test": {"required": ["needs"]}}}}}
        self.assertIn("'needs' is a required property", "\n".join(workflows.problems(text, schema)))


class Kind(unittest.TestCase):
    def test_lines_are_compared_but_for_what_differs_from_run_to_run(self):
        shown = [
            "job: taken by bakeoff-worker-7d9f8c6b54-x7x2f-1, 4 of 4 cells open",
            "...",
            "58 tokens in 0.1 s",
        ]
        real = [
            "job: taken by bakeoff-worker-5c9d8b7f66-2zx9q-1, 4 of 4 cells open",
            "more",
            "58 tokens in 1.7 s",
        ]
        self.assertTrue(kind.shows(shown, real))
        self.assertFalse(kind.shows(shown, [real[0], real[1], "57 tokens in 1.7 s"]))
        self.assertFalse(kind.shows(["a", "c"], ["a", "b", "c"]))

    def test_the_commands_are_the_chapters(self):
        typed = [command for command, _ in kind.commands()]
        self.assertIn("kind create cluster", typed)
        self.assertTrue(
            any(command.startswith("kubectl apply -k k8s/overlays/local") for command in typed)
        )
        self.assertFalse(
            [command for command in typed if "$REGISTRY" in command], "these need a registry"
        )

    def test_a_shell_keeps_what_a_command_sets_and_ends_at_a_failure(self):
        with contextlib.redirect_stdout(io.StringIO()), kind.Shell() as shell:
            shell.run("export WORD=one")
            self.assertEqual(
                shell.run("source <(echo OTHER=two); echo $WORD; echo $OTHER"), ["one", "two"]
            )
            with self.assertRaisesRegex(kind.Failed, "`false` ended with 1"):
                shell.run("false")


if __name__ == "__main__":
    unittest.main()
