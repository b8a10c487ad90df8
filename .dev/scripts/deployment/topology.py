"""The services of deploy/compose.yaml as plain processes on this machine: the demo sweep passes
through them as the README shows it, with the keys of deploy/make-secrets.sh.

    topology.py [--namespaces] --nats-server FILE --weed FILE BIN

BIN is the folder with coordinator and worker; `cargo xtask topology` fetches the other programs.

What one program does by itself (metrics, traces, refusals, draining) is tested in Rust.

With --namespaces each process has a network of its own, joined by a bridge: five hosts. They run as
the images' user, who may write nothing but /tmp and its data. Needs root.
"""

import argparse
import csv
import fnmatch
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

import yaml

from compose import Compose, Failed, Processes, get, wait_until
from servers import REPOSITORY

WORKERS = ["worker-1", "worker-2"]
HEALTH = 9090
USER = 10001
CELLS = 12
# Seconds in which a worker that was told to stop must have ended: compose.yaml's stop_grace_period.
GRACE = 60


class Loopback:
    """Every process on 127.0.0.1, each on free ports."""

    def __init__(self):
        self.hosts = {name: "127.0.0.1" for name in ["nats", "store", "coordinator", *WORKERS]}
        free = []
        while len(free) < 7:
            free = [socket.create_server(("127.0.0.1", 0)) for _ in range(7)]
            # SeaweedFS listens 10000 above each of its ports too.
            free = free if all(s.getsockname()[1] < 55000 for s in free) else []
        numbers = [s.getsockname()[1] for s in free]
        for listener in free:
            listener.close()
        self.ports = dict(zip([4222, 8222, 8333, 9333, 9340, 8888], numbers))

    def prefix(self, name):
        return []

    def place(self, folder, programs):
        return programs

    def own(self, folder):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


class Namespaces:
    """A network namespace for each process, and a bridge that joins them to this one."""

    def __init__(self):
        self.tag = f"bk{os.getpid() % 100000}"
        self.net = f"10.213.{os.getpid() % 250}"
        self.here = f"{self.net}.1"
        self.hosts = {
            name: f"{self.net}.{at}"
            for at, name in enumerate(["nats", "store", "coordinator", *WORKERS], 10)
        }
        self.ports = {}

    def prefix(self, name):
        # As in a pod: a /tmp of its own, and a user without any right.
        own_tmp = ["sh", "-euc", 'mount -t tmpfs -o mode=1777 tmpfs /tmp; exec "$@"', "sh"]
        user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--no-new-privs"]
        return ["ip", "netns", "exec", f"{self.tag}-{name}", *own_tmp, *user]

    def place(self, folder, programs):
        """The programs where the user can read them."""
        target = folder / "bin"
        target.mkdir()
        return {name: target / shutil.copy(path, target) for name, path in programs.items()}

    def own(self, folder):
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, USER, USER)

    def __enter__(self):
        self.ip("link", "add", self.tag, "type", "bridge")
        self.ip("addr", "add", f"{self.here}/24", "dev", self.tag)
        self.ip("link", "set", self.tag, "up")
        for at, (name, address) in enumerate(self.hosts.items()):
            space, outer = f"{self.tag}-{name}", f"{self.tag}v{at}"
            self.ip("netns", "add", space)
            self.ip("link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", space)
            self.ip("link", "set", outer, "master", self.tag, "up")
            for words in (
                ["addr", "add", f"{address}/24", "dev", "eth0"],
                ["link", "set", "eth0", "up"],
                ["link", "set", "lo", "up"],
            ):
                self.ip("-n", space, *words)
        return self

    def __exit__(self, *_):
        for name in self.hosts:
            subprocess.run(["ip", "netns", "del", f"{self.tag}-{name}"], check=False)
        subprocess.run(["ip", "link", "del", self.tag], check=False)

    @staticmethod
    def ip(*words):
        subprocess.run(["ip", *words], check=True)


class Topology:
    def __init__(self, network, folder, programs, processes):
        self.network, self.folder, self.processes = network, folder, processes
        for name in "nats", "store", "models":
            (folder / "data" / name).mkdir(parents=True)
        (folder / "nats.conf").write_text(self.broker_configuration())
        make = [
            REPOSITORY / "deploy/make-secrets.sh",
            folder / "secrets",
            "nats",
            "localhost",
            "127.0.0.1",
        ]
        subprocess.run([*make, network.hosts["nats"]], check=True, capture_output=True, text=True)
        self.programs = programs = network.place(folder, programs)
        network.own(folder)
        self.compose = Compose(
            REPOSITORY / "deploy/compose.yaml", folder, programs, network.hosts, network.ports
        )
        self.health = {}

    def broker_configuration(self):
        """deploy/nats.conf with this machine's paths and, on one host, this run's ports."""
        text = (REPOSITORY / "deploy/nats.conf").read_text()
        for there, here in (
            ("/etc/nats-tls", f"{self.folder}/secrets"),
            ('"/data"', f'"{self.folder}/data/nats"'),
        ):
            assert there in text, f"deploy/nats.conf holds no {there}"
            text = text.replace(there, here)
        for there, here in self.network.ports.items():
            text = text.replace(f'0.0.0.0:{there}"', f'0.0.0.0:{here}"')
        return text

    def start_servers(self):
        for service in "nats", "store":
            words, env = self.compose.command(service)
            if service == "store":
                flags = {"-master.port": 9333, "-volume.port": 9340, "-filer.port": 8888}
                words += [
                    f"{flag}={self.network.ports.get(port, port)}" for flag, port in flags.items()
                ]
            self.processes.start(service, words, env, self.network.prefix(service))
        for service in "nats", "store":
            url = self.compose.health(service)
            wait_until(f"{service} is healthy at {url}", lambda: self.ok(url))

    def ok(self, url):
        self.processes.check_running()
        return (get(url) or [0])[0] == 200

    def program(self, name, service, arguments=None, **more):
        """Arguments and environment of one of our programs."""
        words, env = self.compose.command(service, arguments)
        return words, env | more, self.network.prefix(name)

    def start_workers(self):
        for name in WORKERS:
            self.start_worker(name)
        for name in WORKERS:
            self.wait_for_worker(name)

    def start_worker(self, name):
        address = self.network.hosts[name]
        if isinstance(self.network, Loopback):
            with socket.create_server((address, 0)) as free:
                port = free.getsockname()[1]
        else:
            port = HEALTH
        self.health[name] = f"http://{address}:{port}"
        env = {
            "BAKEOFF_HEALTH_ADDR": f"0.0.0.0:{port}",
            "BAKEOFF_WORKER_NAME": name,
            "BAKEOFF_DEVICE": "cpu",
        }
        self.processes.start(name, *self.program(name, "worker-cpu", **env))

    def wait_for_worker(self, name):
        url = self.health[name]
        wait_until(f"{name} is ready at {url}", lambda: self.ok(f"{url}/readyz"))

    def coordinator(self, *arguments, **more):
        words, env, prefix = self.program(
            "coordinator", "coordinator", list(arguments) or None, **more
        )
        return self.run(prefix + words, env)

    def run(self, words, env):
        return subprocess.run(
            words,
            env=env,
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )


def expect(holds, what):
    if not holds:
        raise Failed(what)


def the_demo_sweep_passes(topology):
    ended = topology.coordinator(**pod_logging())
    expect(
        ended.returncode == 0,
        f"coordinator run: exit code {ended.returncode}\n{ended.stdout}{ended.stderr}",
    )
    the_readme_shows(ended)
    kept = the_readme_goes_on(topology)
    [table] = kept.rglob("second_summary.csv")
    with open(table) as file:
        rows = list(csv.DictReader(file))
    expect(len(rows) == CELLS and all(row["status"] == "done" for row in rows), f"{table}: {rows}")
    records = [json.loads(path.read_text()) for path in kept.rglob("metrics/*.json")]
    expect(len(records) == CELLS, f"{len(records)} records")
    keys = [f"second/{path.relative_to(kept)}" for path in kept.rglob("*") if path.is_file()]
    return f"{len(rows)} rows, all done", keys


def readme():
    return (REPOSITORY / "README.md").read_text()


def pod_logging():
    """How the programs log in the cluster."""
    manifests = yaml.safe_load_all((REPOSITORY / "k8s/rendered/local.yaml").read_text())
    [data] = [
        doc["data"]
        for doc in manifests
        if doc["kind"] == "ConfigMap" and "BAKEOFF_STORE" in doc["data"]
    ]
    return {
        name: value for name, value in data.items() if name in ("BAKEOFF_LOG_FORMAT", "RUST_LOG")
    }


def the_readme_shows(ended):
    """The README's output of the coordinator is this one, but for figures and the worker's name."""
    shown = re.search(
        r"\$ kubectl -n bakeoff logs job/demo\n(.*?)\n```", readme(), re.S
    )[1]
    told, summary = shown.split("\n...\n")
    expect(
        summary == ended.stdout.strip(),
        f"README shows\n{summary}\nand the coordinator said\n{ended.stdout}",
    )

    def shape(line):
        return re.sub(r"taken by [\w-]+", "taken by W", re.sub(r"\d+\.\d+", "N", line))

    said = [shape(line) for line in ended.stderr.splitlines()]
    logged = [line for line in ended.stderr.splitlines() if line.startswith("{")]
    expect(not logged, f"README shows no log lines, and there are {logged}")
    for line in told.splitlines():
        expect(
            shape(line) in said,
            f"README shows {line!r}, and the coordinator said no such line:\n{ended.stderr}",
        )


def the_readme_goes_on(topology):
    """The README's second sweep from one's own machine, typed where its secrets are; nothing
    forwards a port here."""
    block = re.search(r"^\$ export NATS_URL=tls:.*?(?=^```)", readme(), re.M | re.S)[0]
    commands = [line[2:] for line in block.splitlines() if line.startswith("$ ")]
    shown = [line for line in block.splitlines() if not line.startswith("$ ") and line != "..."]
    script = "\n".join(commands)
    network = topology.network
    for service, forwarded, port in (
        ("nats", "localhost:4222", 4222),
        ("store", "127.0.0.1:8333", 8333),
    ):
        expect(script.count(forwarded) == 1, f"README's commands do not go through {forwarded}")
        there = f"{network.hosts[service]}:{network.ports.get(port, port)}"
        script = script.replace(forwarded, there)
    ended = subprocess.run(
        ["bash", "-euc", script],
        cwd=topology.folder,
        env={"PATH": f"{topology.programs['coordinator'].parent}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    expect(ended.returncode == 0, f"{script}: exit code {ended.returncode}\n{ended.stderr}")
    expect(
        ended.stdout.splitlines() == shown,
        f"README shows {shown!r}, and the coordinator said {ended.stdout!r}",
    )
    return topology.folder / shown[-1].split(" to ")[1]


def workers_are_replaced_in_a_sweep(topology):
    """What a Deployment does when a pod is evicted, and at an upgrade with each in turn: it is told
    to stop, ends within its grace, and another takes its place. No cell is lost."""
    demo = (REPOSITORY / "coordinator/src/demo.toml").read_text()
    longer = demo.replace('name = "demo"', 'name = "third"').replace("runs = 2", "runs = 60")
    sweep = topology.folder / "third.toml"
    sweep.write_text(longer)
    sweep.chmod(0o644)
    words, env, prefix = topology.program("coordinator", "coordinator", ["run", str(sweep)])
    coordinator = topology.processes.start("coordinator", words, env, prefix)

    def said(text):
        topology.processes.check_running()
        return text in topology.processes.log("coordinator")

    wait_until("the first cell of the third sweep is done", lambda: said(" done, "))
    codes = []
    for name in WORKERS:
        pod = topology.processes.running[name]
        pod.terminate()
        codes.append(pod.wait(timeout=GRACE))
        topology.start_worker(name)
        topology.wait_for_worker(name)
        expect(coordinator.poll() is None, "the sweep ended before the workers were replaced")
    # 4: told to stop by a signal (a worker that says nothing of signals ends with 0).
    expect(set(codes) <= {0, 4}, f"workers that were told to stop ended with {codes}")
    ended = coordinator.wait(timeout=120)
    cells = CELLS * 30
    log = topology.processes.log("coordinator")
    expect(ended == 0 and f"third: {cells} of {cells} done" in log, f"exit code {ended}:\n{log}")
    return f"{cells} cells done, exit codes {codes}"


def keda_can_read_the_queue(topology):
    """The figures that KEDA's scaler takes, where overlays/keda tells it to look: the monitoring
    port's account, stream and consumer, and of that the jobs waiting and in hand."""
    manifests = yaml.safe_load_all((REPOSITORY / "k8s/rendered/keda.yaml").read_text())
    [scaled] = [doc for doc in manifests if doc["kind"] == "ScaledJob"]
    asked = scaled["spec"]["triggers"][0]["metadata"]
    port = int(asked["natsServerMonitoringEndpoint"].rpartition(":")[2])
    base = f"http://{topology.network.hosts['nats']}:{topology.network.ports.get(port, port)}"
    _, text = get(f"{base}/jsz?acc={asked['account']}&consumers=true&config=true")
    found = [
        consumer["num_pending"] + consumer["num_ack_pending"]
        for account in json.loads(text)["account_details"]
        if account["name"] == asked["account"]
        for stream in account["stream_detail"]
        if stream["name"] == asked["stream"]
        for consumer in stream["consumer_detail"]
        if consumer["name"] == asked["consumer"]
    ]
    expect(found == [0], f"{asked}: {found} in {text}")
    return f"{asked['consumer']} has {found[0]} jobs waiting or in hand"


def no_other_bucket_opens(topology):
    """The worker's S3 key is for one bucket."""
    arguments = ["run", "--once", "--idle-exit", "2"]
    more = {"BAKEOFF_DEVICE": "cpu", "BAKEOFF_STORE": "s3://elsewhere"}
    words, env, prefix = topology.program("worker-1", "worker-cpu", arguments, **more)
    ended = topology.run(prefix + words, env)
    expect(
        ended.returncode == 2 and "AWS_" in ended.stderr,
        f"exit code {ended.returncode}\n{ended.stderr}",
    )
    return "s3://elsewhere is refused"


def the_cloud_policy_would_allow_it(keys):
    """What the workers stored lies where deploy/s3/aws-worker.json lets them write."""
    policy = json.loads((REPOSITORY / "deploy/s3/aws-worker.json").read_text())
    patterns = [
        resource.removeprefix("arn:aws:s3:::bakeoff-results/")
        for statement in policy["Statement"]
        if "s3:PutObject" in statement["Action"]
        for resource in statement["Resource"]
    ]
    coordinators = r"second/(sweep\.json|report\.(md|html|json)|second_summary\.csv)"
    theirs = [key for key in keys if not re.fullmatch(coordinators, key)]
    for key in theirs:
        expect(
            any(fnmatch.fnmatchcase(key, pattern) for pattern in patterns),
            f"aws-worker.json does not allow {key}",
        )
    expect(len(theirs) >= 2 * CELLS, f"only {len(theirs)} of {len(keys)} objects are the workers'")
    return f"{len(theirs)} objects of the workers"


def run(topology, passed):
    topology.start_servers()
    topology.start_workers()
    passed("everything runs", ", ".join(f"{n} at {a}" for n, a in topology.network.hosts.items()))
    told, keys = the_demo_sweep_passes(topology)
    passed("the demo sweep passes", told)
    passed("the cloud policy would allow it", the_cloud_policy_would_allow_it(keys))
    passed("workers are replaced in a sweep", workers_are_replaced_in_a_sweep(topology))
    passed("keda can read the queue", keda_can_read_the_queue(topology))
    passed("no other bucket opens", no_other_bucket_opens(topology))


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--namespaces", action="store_true")
    parser.add_argument("--nats-server", type=pathlib.Path, required=True)
    parser.add_argument("--weed", type=pathlib.Path, required=True)
    parser.add_argument("bin", type=lambda text: pathlib.Path(text).resolve())
    return parser.parse_args()


def main():
    given = arguments()
    programs = {"nats": given.nats_server, "weed": given.weed}
    programs |= {name: given.bin / name for name in ("coordinator", "worker")}
    for path in programs.values():
        if not path.exists():
            sys.exit(f"topology: there is no {path}: run `cargo build --workspace`")
    began = time.monotonic()

    def passed(step, told):
        print(f"topology {time.monotonic() - began:5.1f} s  {step}: {told}", flush=True)

    network = Namespaces() if given.namespaces else Loopback()
    # Not in /tmp, which is another one in each namespace.
    with tempfile.TemporaryDirectory(prefix="bakeoff-", dir="/var/tmp") as name:
        folder = pathlib.Path(name)
        with network, Processes(folder) as processes:
            try:
                run(Topology(network, folder, programs, processes), passed)
            except (Failed, subprocess.TimeoutExpired) as error:
                for name in processes.running:
                    print(f"--- {name}\n{processes.log(name)[-1500:]}", file=sys.stderr)
                sys.exit(f"topology: {error}")


if __name__ == "__main__":
    main()
