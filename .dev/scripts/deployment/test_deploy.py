"""What can be told of deploy/ without an engine to run it: images, compose file, S3 policies,
dashboard, rules and runbook agree with the programs, with each other and with k8s/."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import unittest

import promql_parser
import yaml

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
sys.path[:0] = [str(REPOSITORY / "k8s/test"), str(REPOSITORY / "deploy/test")]

import checks
import dockerfile
from manifests import Manifests

DEPLOY = REPOSITORY / "deploy"
RENDERED = {
    name: Manifests.load(REPOSITORY / f"k8s/rendered/{name}.yaml")
    for name in ("local", "h100", "eks")
}


def here(image):
    """An image of the manifests by the name that it has where it is built."""
    return re.sub(r"^registry\.invalid/", "localhost/", image)


def cargo(path):
    return tomllib.loads((REPOSITORY / path).read_text())


def sources():
    return "\n".join(
        path.read_text()
        for folder in ("worker", "coordinator", "proto")
        for path in (REPOSITORY / folder).rglob("*.rs")
        if "target" not in path.parts
    )


FEATURES = {
    "worker": cargo("worker/Cargo.toml")["features"],
    "coordinator": cargo("coordinator/Cargo.toml")["features"],
}


def image_problems(text):
    return list(
        dockerfile.problems(
            text, FEATURES, {"worker", "coordinator"}, checks.known_variables(), 9090
        )
    )


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
            (
                "--features $FEATURES\nCOPY",
                "--features cuda\nCOPY",
                "other packages or features",
            ),
            ("cuda,flash-attn", "cuda,flash-attention", "no feature flash-attention"),
            ("ARG FEATURES=cuda,flash-attn", "ARG FEATURES=cuda", "listed for other features"),
            ("/src/NOTICE ", "", "holds no licences"),
            ("image.revision", "image.version", "tells the commit"),
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
        cuda = re.search(
            r"Lays out a CUDA (\d+\.\d+) toolkit",
            (REPOSITORY / ".dev/scripts/cuda-toolchain.sh").read_text(),
        )[1]
        used = {c["image"] for m in RENDERED.values() for _, _, c in m.containers()}
        for file in self.files:
            text = file.read_text()
            self.assertIn(f"rust:{rust}.", text, file.name)
            self.assertTrue(
                "nvidia" not in text or text.count(f"nvidia/cuda:{cuda}.") == 2, file.name
            )
            [tag] = re.findall(r"-t (localhost/bakeoff/[\w:.-]+)", text)
            self.assertIn(here(tag), {here(image) for image in used})
            self.assertIn(f":{version}", tag)

    def test_the_user_is_the_one_of_the_pods(self):
        users = {
            pod["securityContext"]["runAsUser"]
            for _, pod, c in RENDERED["h100"].containers()
            if c["name"] in checks.OUR_CONTAINERS
        }
        for file in self.files:
            self.assertEqual(
                {int(dockerfile.parse(file.read_text())[-1].last("USER").split(":")[0])}, users
            )


class ComposeFile(unittest.TestCase):
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]

    def test_services_are_confined(self):
        for name, service in self.services.items():
            with self.subTest(name):
                self.assertTrue(service["read_only"])
                self.assertEqual(service["cap_drop"], ["ALL"])
                self.assertIn("BAKEOFF_UID", service["user"])

    def test_images_are_those_of_the_cluster(self):
        images = {here(c["image"]) for m in RENDERED.values() for _, _, c in m.containers()}
        self.assertEqual({service["image"] for service in self.services.values()}, images)

    def test_only_doors_with_a_lock_are_published_and_only_here(self):
        published = [
            port for service in self.services.values() for port in service.get("ports", [])
        ]
        self.assertEqual(sorted(published), ["127.0.0.1:4222:4222", "127.0.0.1:8333:8333"])

    def test_the_store_is_started_as_in_the_cluster(self):
        [container] = [c for _, _, c in RENDERED["local"].containers() if c["name"] == "store"]
        self.assertEqual(self.services["store"]["command"], container["args"])
        self.assertEqual(self.services["store"]["entrypoint"], container["command"])

    def test_variables_are_known_and_files_are_there(self):
        made = re.findall(
            r"[\w.]+\.(?:crt|key|nk|env|json)",
            (DEPLOY / "make-secrets.sh").read_text().split("set -euo")[0],
        )
        for name, service in self.services.items():
            with self.subTest(name):
                if service["image"].startswith("localhost/bakeoff/"):
                    self.assertLessEqual(set(service["environment"]), checks.known_variables())
                    self.assertTrue((REPOSITORY / service["build"]["dockerfile"]).exists())
                for volume in [v.split(":")[0] for v in service["volumes"]] + service.get(
                    "env_file", []
                ):
                    path = pathlib.PurePath(volume)
                    if path.parts[0] == "secrets":
                        self.assertTrue(path.name in made or path.name.endswith(".s3.env"), volume)
                    elif path.parts[0] != "data":
                        self.assertTrue((DEPLOY / path).exists(), volume)


class StorePolicies(unittest.TestCase):
    def test_users_may_do_what_they_need_in_one_bucket(self):
        for name in "worker", "coordinator":
            for statement in json.loads((DEPLOY / f"s3/aws-{name}.json").read_text())["Statement"]:
                actions, resources = (
                    [value] if isinstance(value, str) else value
                    for value in (statement["Action"], statement["Resource"])
                )
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
        return [rule["expr"] for rule in self.rules] + [
            t["expr"] for p in self.dashboard["panels"] for t in p["targets"]
        ]

    def test_every_metric_is_one_that_workers_have(self):
        known = set(
            re.findall(r"^\| `(bakeoff_\w+)`", (DEPLOY / "CONFIGURATION.md").read_text(), re.M)
        )
        names = {name for text in self.expressions() for name in re.findall(r"\bbakeoff_\w+", text)}
        self.assertGreater(len(names), 8)
        self.assertLessEqual({re.sub(r"_(bucket|sum|count)$", "", name) for name in names}, known)

    def test_other_metrics_are_those_of_known_exporters(self):
        """By their sources: kube-state-metrics, prometheus-nats-exporter 0.20, DCGM exporter, and
        for certificates x509-certificate-exporter, cert-manager or the blackbox exporter."""
        known = {
            "kube_job_failed",
            "kube_pod_container_status_restarts_total",
            "kube_statefulset_replicas",
            "kube_statefulset_status_replicas_ready",
            "jetstream_consumer_num_pending",
            "jetstream_consumer_num_ack_pending",
            "jetstream_server_max_storage",
            "jetstream_server_total_message_bytes",
            "DCGM_FI_DEV_XID_ERRORS",
            "x509_cert_not_after",
            "certmanager_certificate_expiration_timestamp_seconds",
            "probe_ssl_earliest_cert_expiry",
        }
        name = r"\b(?:kube|jetstream|DCGM|x509|certmanager|probe)_\w+"
        used = {found for text in self.expressions() for found in re.findall(name, text)}
        self.assertEqual(used, known)

    def test_the_dashboard_shows_progress_queue_depth_and_phase(self):
        titles = " ".join(panel["title"] for panel in self.dashboard["panels"])
        for word in "Progress", "Queue depth", "phase":
            self.assertIn(word, titles)

    def test_every_expression_is_promql(self):
        for text in self.expressions():
            # Grafana's variables, as it would fill them in.
            text = re.sub(r"\$__(rate_interval|range)", "5m", text)
            promql_parser.parse(text.replace("$namespace", ".*"))
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


def chapter(heading):
    return (REPOSITORY / "README.md").read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]


def console(heading):
    """(command, lines of output) of the console blocks of a chapter of the README."""
    lines = [
        line
        for block in re.findall(r"```console\n(.*?)```", chapter(heading), re.S)
        for line in block.splitlines()
    ]
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
    "Deployment": "deployment.apps",
    "StatefulSet": "statefulset.apps",
    "Job": "job.batch",
    "CronJob": "cronjob.batch",
    "PodDisruptionBudget": "poddisruptionbudget.policy",
    "NetworkPolicy": "networkpolicy.networking.k8s.io",
}


def applied(manifests):
    """What `kubectl apply` says of new objects."""
    for doc in manifests.docs:
        yield f"{RESOURCES.get(doc['kind'], doc['kind'].lower())}/{doc['metadata']['name']} created"


def ours(manifests):
    """Images of the containers that run our programs."""
    return {c["image"] for _, _, c in manifests.containers() if c["name"] in checks.OUR_CONTAINERS}


class Walk(unittest.TestCase):
    """The README's Kubernetes chapter, command by command: what it shows is what the commands give,
    as far as neither an engine nor a cluster is needed to know it."""

    shown = dict(console("Kubernetes"))
    local = RENDERED["local"]

    def command(self, beginning):
        [found] = [command for command in self.shown if command.startswith(beginning)]
        return found

    def output(self, beginning):
        return self.shown[self.command(beginning)]

    def test_every_command_is_tested(self):
        tested = (
            "docker build -f deploy/Dockerfile.coordinator -t localhost",
            "docker build -f deploy/Dockerfile.worker-cpu -t localhost",
            "docker build -f deploy/Dockerfile.coordinator -t $REGISTRY",
            "docker build -f deploy/Dockerfile.worker-cpu -t $REGISTRY",
            "docker build -f deploy/Dockerfile.worker-cuda -t $REGISTRY",
            "for tag in ",
            "sed -i.bak ",
            "kind load docker-image",
            "deploy/make-secrets.sh",
            "k8s/secrets.sh",
            "kubectl apply -f k8s/base/namespace.yaml",
            "kubectl apply -k k8s/overlays/local",
            "kubectl apply -k k8s/overlays/eks",
            "kubectl kustomize k8s/overlays/eks > installed.yaml",
            "kubectl -n bakeoff wait --for=condition=available",
            "kubectl -n bakeoff create job demo",
            "kubectl -n bakeoff wait --for=condition=complete",
            "kubectl -n bakeoff logs job/demo",
            "kubectl -n bakeoff logs --follow job/bakeoff-qwen",
            "kubectl -n bakeoff port-forward service/nats 4222 &",
            "kubectl -n bakeoff port-forward service/store 8333 &",
        )
        # Run as they stand by topology.py, which also compares the coordinator's log.
        tested += (
            "export NATS_URL",
            "export NATS_INBOX_PREFIX",
            "export BAKEOFF_STORE",
            "source <(sed",
            "coordinator run --as second",
            "coordinator export second",
        )
        # Their arguments are those of coordinator/tests: cli.rs and k8s_job.rs.
        tested += tuple(
            f"coordinator {command} deploy/sweeps/qwen-codegen.toml {rest}"
            for command, rest in (
                ("plan", "--gpu h100"),
                ("k8s-job", "--template installed.yaml --prefetch"),
                ("k8s-job", "--template installed.yaml |"),
            )
        )
        nothing_of_ours = (
            "kind create cluster",
            "export REGISTRY=",
            "coordinator export qwen_codegen_outputs-flash ./report --store s3://",
        )
        for command in self.shown:
            beginnings = [command.startswith(beginning) for beginning in tested + nothing_of_ours]
            self.assertEqual(beginnings.count(True), 1, command)
        for beginning in tested:
            self.command(beginning)

    def test_images_are_built_as_their_files_say_and_brought_to_the_cluster(self):
        tags = []
        for image in "coordinator", "worker-cpu":
            command = self.command(f"docker build -f deploy/Dockerfile.{image} -t localhost")
            self.assertIn(f"\n#   {command}\n", (DEPLOY / f"Dockerfile.{image}").read_text())
            tags.append(re.search(r"-t (\S+)", command)[1])
        self.assertEqual(self.command("kind load docker-image").split()[3:], tags)
        self.assertEqual(ours(self.local), set(tags))

    def test_your_registry_is_put_where_the_manifests_take_it_from(self):
        built = []
        for image in "coordinator", "worker-cpu", "worker-cuda":
            command = self.command(f"docker build -f deploy/Dockerfile.{image} -t $REGISTRY")
            local = command.replace("$REGISTRY", "localhost/bakeoff")
            self.assertIn(f"\n#   {local}\n", (DEPLOY / f"Dockerfile.{image}").read_text())
            built.append(re.search(r"-t \$REGISTRY/(\S+)", command)[1])
        pushed = re.search(r"in (.+?); do docker push", self.command("for tag in "))[1].split()
        self.assertEqual(pushed, built)
        registry = self.command("export REGISTRY=").split("=")[1]
        with tempfile.TemporaryDirectory() as place:
            shutil.copytree(REPOSITORY / "k8s", f"{place}/k8s")
            script = f"REGISTRY={registry}; {self.command('sed -i.bak ')}"
            subprocess.run(["bash", "-euc", script], cwd=place, check=True)
            overlay = self.command("kubectl kustomize").split(" >")[0].split()[1:]
            rendered = subprocess.run(
                [os.environ["KUBECTL"], *overlay], cwd=place, check=True, capture_output=True
            ).stdout
        installed = Manifests([doc for doc in yaml.safe_load_all(rendered) if doc])
        self.assertEqual(ours(installed), {f"{registry}/{tag}" for tag in built})

    def test_secrets_as_typed(self):
        with tempfile.TemporaryDirectory() as place:
            for name in "deploy", "k8s":
                os.symlink(REPOSITORY / name, pathlib.Path(place) / name)

            def typed(command):
                return subprocess.run(
                    ["bash", "-euc", command], cwd=place, check=True, capture_output=True, text=True
                )

            make = self.command("deploy/make-secrets.sh")
            self.assertEqual(typed(make).stderr.splitlines(), self.output(make))
            # The certificate is for the name that the pods call.
            [config] = [
                doc["data"] for doc in self.local.kind("ConfigMap") if "NATS_URL" in doc["data"]
            ]
            self.assertIn(re.search(r"//(.+):", config["NATS_URL"])[1], make.split()[2:])
            produce, apply = self.command("k8s/secrets.sh").split(" | ")
            self.assertEqual(apply, "kubectl apply -f -")
            secrets = Manifests([doc for doc in yaml.safe_load_all(typed(produce).stdout) if doc])
        self.assertTrue(shows(self.output("k8s/secrets.sh"), list(applied(secrets))))

    def test_what_kubectl_says(self):
        namespace = Manifests.load(REPOSITORY / "k8s/base/namespace.yaml")
        self.assertTrue(
            shows(self.output("kubectl apply -f k8s/base/namespace.yaml"), list(applied(namespace)))
        )
        for overlay in "local", "eks":
            says = list(applied(RENDERED[overlay]))
            shown = self.output(f"kubectl apply -k k8s/overlays/{overlay}")
            self.assertTrue(shows(shown, says), f"{shown} is not in {says}")

    def test_what_is_waited_for_started_and_forwarded_is_there(self):
        deployments = [doc["metadata"]["name"] for doc in self.local.kind("Deployment")]
        self.assertEqual(
            self.output("kubectl -n bakeoff wait --for=condition=available"),
            [f"deployment.apps/{name} condition met" for name in sorted(deployments)],
        )
        create = self.command("kubectl -n bakeoff create job demo")
        template = self.local.named("CronJob", create.split("--from=cronjob/")[1])
        self.assertEqual(self.output(create), ["job.batch/demo created"])
        wait = self.command("kubectl -n bakeoff wait --for=condition=complete")
        self.assertTrue(wait.endswith(" job/demo"), wait)
        self.assertEqual(self.output(wait), ["job.batch/demo condition met"])
        [container] = template["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
        # Without a sweep `run` takes the demo.
        self.assertEqual(container["args"], ["run"])
        store = self.local.environment(container)["BAKEOFF_STORE"]
        # What topology.py compares with is what the compose file's coordinator says.
        self.assertEqual(ComposeFile.services["coordinator"]["environment"]["BAKEOFF_STORE"], store)
        self.assertIn(f"BAKEOFF_STORE={store} ", self.command("export BAKEOFF_STORE"))
        for sweep, command in (
            ("demo", "kubectl -n bakeoff logs job/demo"),
            ("second", "coordinator run --as second"),
        ):
            for line in self.output(command):
                self.assertTrue(line.count("s3://") == line.count(f"{store}/{sweep}/"), line)

        for service, port, settings in (
            ("nats", 4222, "export NATS_URL"),
            ("store", 8333, "export BAKEOFF_STORE"),
        ):
            self.command(f"kubectl -n bakeoff port-forward service/{service} {port} &")
            [found] = self.local.named("Service", service)["spec"]["ports"]
            self.assertEqual(found["port"], port)
            self.assertIn(f":{port}", self.command(settings))
        [host] = re.findall(r"tls://(\w+):", self.command("export NATS_URL"))
        self.assertIn(host, self.command("deploy/make-secrets.sh").split()[2:])

    def test_the_jobs_are_those_that_the_coordinator_prints(self):
        for kept, rest in (
            ("prefetch", "--template installed.yaml --prefetch"),
            ("sweep", "--template installed.yaml |"),
        ):
            printed = Manifests.load(REPOSITORY / f"k8s/test/jobs/{kept}.yaml")
            shown = self.output(f"coordinator k8s-job deploy/sweeps/qwen-codegen.toml {rest}")
            self.assertEqual(shown, list(applied(printed)))
        [name] = [doc["metadata"]["name"] for doc in printed.kind("Job")]
        self.assertTrue(self.command("kubectl -n bakeoff logs --follow job/").endswith(f"/{name}"))

    def test_a_wrong_line_would_be_seen(self):
        self.assertTrue(shows(["a", "...", "c"], ["a", "b", "c"]))
        for shown in (["a", "c"], ["...", "d"], ["a"], ["c", "...", "a"], ["b", "..."]):
            self.assertFalse(shows(shown, ["a", "b", "c"]), shown)

    def test_what_the_chapter_names_is_there(self):
        text = chapter("Kubernetes")
        for path in re.findall(r"(?<![\w/])(?:deploy|k8s)/[\w./-]*\w", text):
            self.assertTrue((REPOSITORY / path).exists(), path)


if __name__ == "__main__":
    unittest.main()
