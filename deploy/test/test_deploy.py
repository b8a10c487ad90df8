"""What can be told of deploy/ without an engine to run it: images, compose file, S3 policies, dashboard,
rules and runbook agree with the programs, with each other and with k8s/."""
import json
import pathlib
import re
import sys
import tomllib
import unittest

import promql_parser
import yaml

import dockerfile

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "k8s/test"))

import checks
from manifests import Manifests

DEPLOY = REPOSITORY / "deploy"
RENDERED = {name: Manifests.load(REPOSITORY / f"k8s/rendered/{name}.yaml") for name in ("local", "h100")}


def cargo(path):
    return tomllib.loads((REPOSITORY / path).read_text())


def sources():
    return "\n".join(
        path.read_text() for folder in ("worker", "coordinator", "proto") for path in (REPOSITORY / folder).rglob("*.rs")
        if "target" not in path.parts
    )


FEATURES = {"worker": cargo("worker/Cargo.toml")["features"], "coordinator": cargo("coordinator/Cargo.toml")["features"]}


def image_problems(text):
    return list(dockerfile.problems(text, FEATURES, {"worker", "coordinator"}, checks.known_variables(), 9090))


class Images(unittest.TestCase):
    files = sorted(DEPLOY.glob("Dockerfile.*"))

    def test_each_is_in_order(self):
        self.assertEqual(len(self.files), 3)
        for file in self.files:
            with self.subTest(file.name):
                self.assertEqual(image_problems(file.read_text()), [])

    def test_each_thing_that_could_be_wrong_is_seen(self):
        text = (DEPLOY / "Dockerfile.worker-cuda").read_text()
        for old, new, expected in (
            ("@sha256:95318e", "", "not pinned by tag"),
            ("--locked --version 0.1.77", "--locked", "is not pinned"),
            ("cargo build --locked --release", "cargo build --release", "no locked release build"),
            ("--features cuda,flash-attn\nCOPY", "--features cuda\nCOPY", "other packages or features"),
            ("cuda,flash-attn", "cuda,flash-attention", "no feature flash-attention"),
            ("USER 10001:10001\n", "", "runs as root"),
            ("USER 10001:10001\n", "USER 0:0\n", "runs as root"),
            ("WORKDIR /tmp\n", "RUN apt-get install curl\n", "runs or adds something"),
            ('ENTRYPOINT ["worker"]', 'ENTRYPOINT ["coordinator"]', "starts coordinator"),
            ("ca-certificates.crt", "nothing", "certificate authorities"),
            ("BAKEOFF_DEVICE=cuda:0 ", "BAKEOFF_CARD=0 ", "does not know BAKEOFF_CARD"),
            ("BAKEOFF_DEVICE=cuda:0 ", "", "left to chance"),
            ("EXPOSE 9090\n", "EXPOSE 80\n", "not exposed"),
        ):
            with self.subTest(expected):
                self.assertIn(old, text)
                self.assertIn(expected, "\n".join(image_problems(text.replace(old, new))))

    def test_versions_are_those_of_the_workspace(self):
        rust = cargo("Cargo.toml")["workspace"]["package"]["rust-version"]
        version = cargo("Cargo.toml")["workspace"]["package"]["version"]
        cuda = re.search(r"Lays out a CUDA (\d+\.\d+) toolkit", (DEPLOY / "cuda-toolchain.sh").read_text())[1]
        used = {c["image"] for m in RENDERED.values() for _, _, c in m.containers()}
        for file in self.files:
            text = file.read_text()
            self.assertIn(f"rust:{rust}.", text, file.name)
            self.assertTrue("nvidia" not in text or text.count(f"nvidia/cuda:{cuda}.") == 2, file.name)
            [tag] = re.findall(r"-t (bakeoff/[\w:.-]+)", text)
            self.assertIn(tag, used)
            self.assertIn(f":{version}", tag)

    def test_the_user_is_the_one_of_the_pods(self):
        users = {pod["securityContext"]["runAsUser"] for _, pod, c in RENDERED["h100"].containers() if c["image"].startswith("bakeoff/")}
        for file in self.files:
            self.assertEqual({int(dockerfile.parse(file.read_text())[-1].last("USER").split(":")[0])}, users)


class ComposeFile(unittest.TestCase):
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]

    def test_services_are_confined(self):
        for name, service in self.services.items():
            with self.subTest(name):
                self.assertTrue(service["read_only"])
                self.assertEqual(service["cap_drop"], ["ALL"])
                self.assertIn("BAKEOFF_UID", service["user"])

    def test_images_are_those_of_the_cluster(self):
        images = {c["image"] for m in RENDERED.values() for _, _, c in m.containers()}
        self.assertEqual({service["image"] for service in self.services.values()}, images)

    def test_only_doors_with_a_lock_are_published_and_only_here(self):
        published = [port for service in self.services.values() for port in service.get("ports", [])]
        self.assertEqual(sorted(published), ["127.0.0.1:4222:4222", "127.0.0.1:8333:8333"])

    def test_the_store_is_started_as_in_the_cluster(self):
        [container] = [c for _, _, c in RENDERED["local"].containers() if c["name"] == "store"]
        self.assertEqual(self.services["store"]["command"], container["args"])
        self.assertEqual(self.services["store"]["entrypoint"], container["command"])

    def test_variables_are_known_and_files_are_there(self):
        made = re.findall(r"[\w.]+\.(?:crt|key|nk|env|json)", (DEPLOY / "make-secrets.sh").read_text().split("set -euo")[0])
        for name, service in self.services.items():
            with self.subTest(name):
                if service["image"].startswith("bakeoff/"):
                    self.assertLessEqual(set(service["environment"]), checks.known_variables())
                    self.assertTrue((REPOSITORY / service["build"]["dockerfile"]).exists())
                for volume in [v.split(":")[0] for v in service["volumes"]] + service.get("env_file", []):
                    path = pathlib.PurePath(volume)
                    if path.parts[0] == "secrets":
                        self.assertTrue(path.name in made or path.name.endswith(".s3.env"), volume)
                    elif path.parts[0] != "data":
                        self.assertTrue((DEPLOY / path).exists(), volume)


class StorePolicies(unittest.TestCase):
    def test_users_may_do_what_they_need_in_one_bucket(self):
        for name in "worker", "coordinator":
            for statement in json.loads((DEPLOY / f"s3/aws-{name}.json").read_text())["Statement"]:
                actions, resources = ([value] if isinstance(value, str) else value for value in (statement["Action"], statement["Resource"]))
                self.assertFalse([action for action in actions if "*" in action], statement)
                for resource in resources:
                    self.assertRegex(resource, r"^arn:aws:s3:::bakeoff-results(/.+)?$")
        for identity in json.loads((DEPLOY / "s3/seaweedfs.json").read_text())["identities"]:
            self.assertEqual(identity["credentials"], [{"accessKey": "", "secretKey": ""}])
            for action in identity["actions"]:
                self.assertRegex(action, r"^(Read|Write|List):bakeoff-results$")

    def test_a_worker_deletes_nothing_but_texts(self):
        statements = json.loads((DEPLOY / "s3/aws-worker.json").read_text())["Statement"]
        deletes = [s["Resource"] for s in statements if "s3:DeleteObject" in s["Action"]]
        self.assertEqual(deletes, ["arn:aws:s3:::bakeoff-results/*.md"])


class Observability(unittest.TestCase):
    rules = yaml.safe_load((DEPLOY / "rules/bakeoff.yaml").read_text())["groups"][0]["rules"]
    dashboard = json.loads((DEPLOY / "dashboards/bakeoff.json").read_text())

    def expressions(self):
        return [rule["expr"] for rule in self.rules] + [t["expr"] for p in self.dashboard["panels"] for t in p["targets"]]

    def test_every_metric_is_one_that_workers_have(self):
        known = set(re.findall(r"^\| `(bakeoff_\w+)`", (DEPLOY / "CONFIGURATION.md").read_text(), re.M))
        names = {name for text in self.expressions() for name in re.findall(r"\bbakeoff_\w+", text)}
        self.assertGreater(len(names), 8)
        self.assertLessEqual({re.sub(r"_(bucket|sum|count)$", "", name) for name in names}, known)

    def test_every_expression_is_promql(self):
        for text in self.expressions():
            # Grafana's variables, as it would fill them in.
            promql_parser.parse(text.replace("$__rate_interval", "5m").replace("$namespace", ".*"))
        with self.assertRaises(ValueError):
            promql_parser.parse("sum(rate(bakeoff_jobs_total[5m])")

    def test_panels_have_ids_of_their_own_and_fit(self):
        panels = self.dashboard["panels"]
        self.assertEqual(len({panel["id"] for panel in panels}), len(panels))
        for panel in panels:
            self.assertLessEqual(panel["gridPos"]["x"] + panel["gridPos"]["w"], 24)

    def test_every_alert_has_its_chapter_in_the_runbook(self):
        chapters = re.findall(r"^### (\w+)$", (DEPLOY / "RUNBOOK.md").read_text(), re.M)
        self.assertEqual(chapters, [rule["alert"] for rule in self.rules])


class Runbook(unittest.TestCase):
    text = (DEPLOY / "RUNBOOK.md").read_text()

    def test_every_message_is_one_that_the_programs_say(self):
        table = self.text.split("## Messages")[1].split("## Routine")[0]
        symptoms = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
        quoted = [text for symptom in symptoms for text in re.findall(r"`([^`]+)`", symptom)]
        self.assertGreater(len(quoted), 8)
        rust = sources()
        for text in quoted:
            self.assertTrue(text in rust or text == "bakeoff-prefetch", f"no program says: {text}")

    def test_every_variable_is_known(self):
        named = set(re.findall(r"\b(?:BAKEOFF|NATS|HF)_[A-Z_]+\b", self.text))
        self.assertLessEqual(named, checks.known_variables())


def console(chapter):
    """(command, lines of output) of the console blocks of a chapter of the README."""
    text = (REPOSITORY / "README.md").read_text().split(f"\n## {chapter}\n")[1].split("\n## ")[0]
    lines = [line for block in re.findall(r"```console\n(.*?)```", text, re.S) for line in block.splitlines()]
    for line in lines:
        if line.startswith("$ "):
            command, output = line[2:], []
            yield command, output
        else:
            output.append(line)


def shows(shown, real):
    """Whether the lines shown are the real ones, `...` standing for some left out."""
    at = 0
    gap = False
    for line in shown:
        if line == "...":
            gap = True
            continue
        if line not in real[at:] or not gap and real[at] != line:
            return False
        at, gap = real.index(line, at) + 1, False
    return gap or at == len(real)


RESOURCES = {
    "Deployment": "deployment.apps", "StatefulSet": "statefulset.apps", "Job": "job.batch",
    "PodDisruptionBudget": "poddisruptionbudget.policy", "NetworkPolicy": "networkpolicy.networking.k8s.io",
}


def applied(manifests):
    """What `kubectl apply` says of new objects."""
    for doc in manifests.docs:
        yield f"{RESOURCES.get(doc['kind'], doc['kind'].lower())}/{doc['metadata']['name']} created"


class Walk(unittest.TestCase):
    """The README's Kubernetes chapter: what it shows is what the commands give, as far as no cluster is
    needed to know it. The coordinator's output is compared by topology.py."""

    shown = dict(console("Kubernetes"))

    def output(self, beginning):
        [found] = [output for command, output in self.shown.items() if command.startswith(beginning)]
        return found

    def test_what_kubectl_says(self):
        secrets = Manifests.load(pathlib.Path(checks.os.environ["BAKEOFF_TEST_SECRETS"]))
        self.assertTrue(shows(self.output("k8s/secrets.sh"), list(applied(secrets))))
        namespace = Manifests.load(REPOSITORY / "k8s/base/namespace.yaml")
        self.assertTrue(shows(self.output("kubectl apply -f k8s/base/namespace.yaml"), list(applied(namespace))))
        self.assertTrue(shows(self.output("kubectl apply -k"), list(applied(RENDERED["local"]))))

    def test_a_wrong_line_would_be_seen(self):
        self.assertTrue(shows(["a", "...", "c"], ["a", "b", "c"]))
        for shown in (["a", "c"], ["...", "d"], ["a"], ["c", "...", "a"], ["b", "..."]):
            self.assertFalse(shows(shown, ["a", "b", "c"]), shown)

    def test_what_make_secrets_says(self):
        folder = pathlib.Path(checks.os.environ["BAKEOFF_TEST_SECRETS"]).parent / "secrets"
        files = " ".join(sorted(path.name for path in folder.iterdir()))
        self.assertEqual(self.output("deploy/make-secrets.sh"), [f"make-secrets: secrets holds {files}"])

    def test_files_and_images_exist(self):
        commands = "\n".join(self.shown)
        for path in re.findall(r"(?<![\w/])(?:deploy|k8s)/[\w./-]+", commands):
            self.assertTrue((REPOSITORY / path).exists(), path)
        images = {c["image"] for _, _, c in RENDERED["local"].containers() if c["image"].startswith("bakeoff/")}
        self.assertEqual(set(re.findall(r"bakeoff/[\w-]+:[\w.-]+", commands)), images)


if __name__ == "__main__":
    unittest.main()
