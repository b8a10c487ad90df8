"""Collects short Python functions and turns each into a request and its answer.

    python3.12 -m venv corpus && corpus/bin/pip install --no-deps -r corpus-requirements.txt
    corpus/bin/python corpus.py corpus.jsonl.xz

Sources: the standard library of the interpreter that runs this, the packages of
corpus-requirements.txt, and exercises.py. One JSON array a line: [request, code, held out].
The same interpreter and packages give the same bytes.
"""

import ast
import hashlib
import json
import lzma
import re
import sys
import sysconfig
import textwrap
from pathlib import Path

from exercises import exercises

MAX_CODE_CHARACTERS = 700
MIN_CODE_CHARACTERS = 40
HELD_OUT = 0.02
PACKAGES = (
    "django", "boltons", "matplotlib", "more_itertools", "networkx", "numpy", "pandas",
    "skimage", "sklearn", "scipy", "statsmodels", "sympy", "toolz",
)
# Parts of the standard library that are not code as people write it, or not the library's own.
SKIPPED = {"site-packages", "lib2to3", "idlelib", "turtledemo", "ensurepip", "pydoc_data", "test", "tests", "testing"}


def python_files():
    library, packages = (Path(sysconfig.get_path(kind)) for kind in ("stdlib", "purelib"))
    for root in (library, *(packages / package for package in PACKAGES)):
        found = sorted(root.rglob("*.py"))
        assert found, f"{root.name} is not installed: see corpus-requirements.txt"
        yield from (path for path in found if not SKIPPED & set(path.relative_to(root).parts))


def functions(path):
    """(kind, name, parameters, first line of the docstring or None, code without docstring) of each short function."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError, ValueError):
        return
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef) or node.name.startswith("__"):
            continue
        documentation = (ast.get_docstring(node) or "").strip()
        if ast.get_docstring(node) is not None:
            node.body = node.body[1:]
        if not node.body or isinstance(node.body[0], ast.Pass):
            continue
        node.decorator_list = []
        code = textwrap.dedent(ast.unparse(node)).strip()
        if MIN_CODE_CHARACTERS <= len(code) <= MAX_CODE_CHARACTERS and code.isascii():
            names = [a.arg for a in node.args.args if a.arg not in ("self", "cls")]
            kind = "function" if len(names) == len(node.args.args) else "method"
            first = documentation.splitlines()[0].strip() if documentation else None
            yield kind, node.name, names, first, code


def request(kind, name, parameters, first_line):
    """What a person could have asked to get this function; varied, but fixed by the name."""
    pick = hashlib.sha256(f"{name}{parameters}".encode()).digest()[0]
    described = first_line and re.fullmatch(r"[A-Z][a-z]+ [^`*:\\]{8,100}\.", first_line)
    if described:
        what = first_line[0].lower() + first_line[1:]
        return (
            f"Write a Python {kind} `{name}`: {what}",
            f"Write a Python {kind} to {what}",
            f"Write a Python {kind} that does this: {what}",
        )[pick % 3]
    arguments = f" with the arguments {', '.join(parameters)}" if parameters and pick % 2 else ""
    return f"Write a Python {kind} `{name}`{arguments}."


def main(target):
    seen = set()
    lines = []
    for path in python_files():
        for kind, name, parameters, first_line, code in functions(path):
            digest = hashlib.sha256(code.encode()).digest()
            # A function that differs only in names and numbers must not stand on both sides of the hold-out.
            shape = re.sub(r"\w+", "w", code) + name
            if digest in seen or shape in seen:
                continue
            seen |= {digest, shape}
            lines.append([request(kind, name, parameters, first_line), code, digest[0] / 256 < HELD_OUT])
    found = len(lines)
    lines.extend([text, code, False] for text, code in exercises())
    text = "\n".join(json.dumps(line) for line in lines)
    Path(target).write_bytes(lzma.compress(text.encode(), preset=6))
    print(f"{found} functions, {len(lines) - found} exercises, {len(text) / 1e6:.1f} MB -> {Path(target).stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(*sys.argv[1:])
