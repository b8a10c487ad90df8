"""Checks .github/workflows: each file against GitHub's schema, each action pinned by commit, and
each step one command, which is a script of this repository or cargo, so that it can be tried
elsewhere.

    workflows.py SCHEMA
"""

import json
import os
import pathlib
import re
import sys

import jsonschema
import yaml

from servers import REPOSITORY

PINNED = re.compile(r"[\w.-]+(/[\w.-]+)+@[0-9a-f]{40}")
PROGRAM = re.compile(r"^(?:\w+=\S+ )*(\S+)")


def problems(text, schema):
    workflow = yaml.safe_load(text)
    # YAML 1.1 reads the key `on` as true.
    workflow["on"] = workflow.pop(True, None)
    for error in jsonschema.validators.validator_for(schema)(schema).iter_errors(workflow):
        yield f"{'/'.join(map(str, error.path))}: {error.message}"
    for name, job in workflow["jobs"].items():
        if "timeout-minutes" not in job:
            yield f"{name} has no timeout"
        for step in job["steps"]:
            if "uses" in step and not PINNED.fullmatch(step["uses"]):
                yield f"{name}: {step['uses']} is not pinned by commit"
            if "uses" in step and not re.search(re.escape(step["uses"]) + r" # v\d", text):
                yield f"{name}: no comment tells the version of {step['uses']}"
            if "run" in step:
                yield from (f"{name}: {why}" for why in command(step["run"]))


def command(run):
    if "\n" in run.strip() or re.search(r"[;|]|&&|\$\{\{", run):
        yield f"`{run.strip()}` is more than one command: put it into a script"
    program = PROGRAM.match(run)[1]
    if program != "cargo" and not os.access(REPOSITORY / program, os.X_OK):
        yield f"{program} is neither cargo nor a script of this repository"


def main():
    schema = json.loads(pathlib.Path(sys.argv[1]).read_text())
    files = sorted((REPOSITORY / ".github/workflows").glob("*.yml"))
    found = [
        f"{file.name}: {problem}"
        for file in files
        for problem in problems(file.read_text(), schema)
    ]
    sys.exit("\n".join(found) if found or not files else 0)


if __name__ == "__main__":
    main()
