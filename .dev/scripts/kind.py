#!/usr/bin/env python3
"""Runs the README's chapter "Kubernetes" on a real cluster, as it stands: each command of its part
for a laptop, in one shell, and what each prints against what the README shows. Then what a cluster
does to a sweep: a worker is evicted, and the image is replaced, while sweeps run. Needs docker,
kind, kubectl and `coordinator` on the PATH, and no cluster of kind's default name; the cluster
stays, to be looked at.

    kind.py            everything
    kind.py --list     the README's commands, nothing else
"""

import json
import pathlib
import re
import socket
import subprocess
import sys
import time

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
CHAPTER = "## Kubernetes"
# What follows is for clusters with GPUs.
END = re.compile(r"^### Five |^On GPU nodes", re.M)
MARK = "kind.py:done"
WORKERS = "deployment/bakeoff-worker"


class Failed(Exception):
    """What did not hold, as a sentence."""


def commands():
    """(command, lines that the README shows after it)"""
    chapter = (REPOSITORY / "README.md").read_text().split(f"\n{CHAPTER}\n")[1].split("\n## ")[0]
    chapter = END.split(chapter)[0]
    found = []
    for block in re.findall(r"```console\n(.*?)```", chapter, re.S):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return found


def shape(line):
    """A line without what differs from run to run: names that the cluster makes up, times and
    rates."""
    line = re.sub(r"\b(bakeoff-\w+)(-[a-z0-9]{4,10}){1,2}(-\d+)?\b", r"\1-X", line)
    return re.sub(r"\b\d+\.\d+\b", "N", line.rstrip())


def shows(shown, real):
    """Whether the lines shown are the real ones, `...` standing for some left out."""
    shown, real = [shape(line) for line in shown], [shape(line) for line in real]
    at, gap = 0, False
    for line in shown:
        if line == "...":
            gap = True
        elif line in real[at:] and (gap or real[at] == line):
            at, gap = real.index(line, at) + 1, False
        else:
            return False
    return gap or at == len(real)


class Shell:
    """One bash for all commands: what one exports or forwards is there for the next."""

    def __init__(self):
        self.process = subprocess.Popen(
            ["bash"],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # What runs in the background, the forwarded ports, ends with it.
        self.process.communicate("kill $(jobs -p) 2>/dev/null\n")

    def run(self, command):
        print(f"\n$ {command}", flush=True)
        background = command.endswith(" &")
        typed = f"{command[:-2]} >/dev/null 2>&1 &" if background else command
        # From /dev/null, since the shell's own input is the next command.
        self.process.stdin.write(
            f"{{ {typed}\n}} </dev/null\nstatus=$?; echo; echo {MARK} $status\n"
        )
        self.process.stdin.flush()
        lines = []
        for line in self.process.stdout:
            if line.startswith(MARK):
                if line.split()[1] != "0":
                    raise Failed(f"`{command}` ended with {line.split()[1]}")
                if background and (port := re.search(r"port-forward .* (\d+)(?=:| &)", command)):
                    reachable(int(port[1]))
                return lines[:-1] if lines and not lines[-1] else lines
            print(line, end="", flush=True)
            lines.append(line.rstrip("\n"))
        raise Failed(f"the shell ended in `{command}`")


def reachable(port, limit_s=30):
    end = time.monotonic() + limit_s
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise Failed(f"nothing listens at port {port} after {limit_s} s") from None
            time.sleep(0.2)


def kubectl(*words, **options):
    words = ["kubectl", "--namespace", "bakeoff", *words]
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, **options).stdout


def pods(selector="app.kubernetes.io/name=bakeoff-worker"):
    """Names of the workers that run and are to stay."""
    listed = json.loads(kubectl("get", "pods", "--selector", selector, "--output", "json"))["items"]
    staying = [
        p
        for p in listed
        if p["status"]["phase"] == "Running" and "deletionTimestamp" not in p["metadata"]
    ]
    return {p["metadata"]["name"] for p in staying}


def evict(pod):
    """By the eviction API, as a drain does."""
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": "bakeoff"},
    }
    kubectl(
        "create",
        "--raw",
        f"/api/v1/namespaces/bakeoff/pods/{pod}/eviction",
        "-f",
        "-",
        input=json.dumps(body),
    )


def a_sweep_survives(shell, name, disturb):
    """Starts the demo under a name, disturbs the cluster while a worker has a job, and waits for
    all twelve."""
    shell.run(f"coordinator run --as {name} >{name}.out 2>{name}.err & {name}=$!")
    end = time.monotonic() + 60
    while "taken by" not in (REPOSITORY / f"{name}.err").read_text():
        if time.monotonic() > end:
            raise Failed(f"no worker took a job of {name} within a minute")
        time.sleep(0.05)
    disturb()
    shell.run(f"wait ${name}")
    shown = (REPOSITORY / f"{name}.out").read_text()
    if f"{name}: 12 of 12 done" not in shown:
        raise Failed(f"{name} ended with:\n{shown}")
    for suffix in "out", "err":
        (REPOSITORY / f"{name}.{suffix}").unlink()


def eviction():
    before = pods()
    evict(next(iter(before)))
    kubectl("rollout", "status", WORKERS, "--timeout=5m")
    if len(before) != len(after := pods()) or after == before:
        raise Failed(f"an evicted worker was not replaced: {before} became {after}")


def upgrade():
    """The same image under another tag: what a new release looks like to the cluster."""
    image = kubectl(
        "get", WORKERS, "--output", "jsonpath={.spec.template.spec.containers[0].image}"
    )
    for words in (
        ["docker", "tag", image, f"{image}-next"],
        ["kind", "load", "docker-image", f"{image}-next"],
    ):
        subprocess.run(words, check=True)
    before = pods()
    kubectl("set", "image", WORKERS, f"worker={image}-next")
    kubectl("rollout", "status", WORKERS, "--timeout=10m")
    if before & pods():
        raise Failed("pods of the old image are left after the upgrade")


def main():
    if sys.argv[1:] == ["--list"]:
        print("\n".join(command for command, _ in commands()))
        return
    with Shell() as shell:
        for command, shown in commands():
            real = shell.run(command)
            if shown and not shows(shown, real):
                raise Failed(
                    f"`{command}` does not print what the README shows:\n" + "\n".join(shown)
                )
        a_sweep_survives(shell, "evicted", eviction)
        a_sweep_survives(shell, "upgraded", upgrade)
    print(
        "\nkind: every command printed what the README shows; "
        "sweeps survived an eviction and an upgrade"
    )


if __name__ == "__main__":
    try:
        main()
    except (Failed, subprocess.CalledProcessError) as error:
        sys.exit(f"kind: {error}")
