"""All checks on everything that is rendered, and for each check a change to the manifests that it must catch."""
import copy
import filecmp
import functools
import os
import pathlib
import re
import unittest

import yaml

import checks
from manifests import REPOSITORY, Manifests, owner_spec

# Files whose every object has been rendered: base and overlays as they are committed, components (and some
# together) as k8s/test.sh has just put them on the base.
OVERLAYS = sorted(path.stem for path in (REPOSITORY / "k8s/rendered").glob("*.yaml"))
CASES = pathlib.Path(os.environ["BAKEOFF_TEST_CASES"])
# What `coordinator k8s-job` prints, held to it by coordinator/tests/k8s_job.rs.
JOBS = sorted((REPOSITORY / "k8s/test/jobs").glob("*.yaml"))


@functools.cache
def loaded(path):
    return Manifests.load(path).docs


def rendered(name):
    """The objects of an overlay; of `monitoring`, those that it is applied beside too."""
    beside = [CASES / "nats-exporter+keda.yaml"] if name == "monitoring" else []
    paths = beside + [REPOSITORY / f"k8s/rendered/{name}.yaml"]
    return Manifests([copy.deepcopy(doc) for path in paths for doc in loaded(path)])


def case(name):
    return Manifests(copy.deepcopy(loaded(CASES / f"{name}.yaml")))


def with_job(name):
    """A printed Job beside the installation that it is for."""
    return Manifests(rendered("h100").docs + copy.deepcopy(loaded(REPOSITORY / f"k8s/test/jobs/{name}.yaml")))


class Manifest(unittest.TestCase):
    def passes(self, name, manifests):
        for check in checks.CHECKS:
            with self.subTest(name, check=check.__name__):
                self.assertEqual(list(check(manifests)), [])

    def test_every_overlay_passes_every_check(self):
        self.assertGreaterEqual(len(OVERLAYS), 7)
        for overlay in OVERLAYS:
            self.passes(overlay, rendered(overlay))

    def test_every_component_passes_every_check(self):
        components = {path.name for path in (REPOSITORY / "k8s/components").iterdir()}
        cases = {path.stem for path in CASES.glob("*.yaml")}
        self.assertLessEqual(components, cases)
        for name in sorted(cases):
            self.passes(name, case(name))

    def test_every_printed_job_passes_every_check(self):
        self.assertEqual([path.stem for path in JOBS], ["files", "prefetch", "rerun", "sweep"])
        for path in JOBS:
            self.passes(path.stem, with_job(path.stem))

    def test_a_printed_job_is_the_installations(self):
        """But for its name, labels, image, arguments and the sweep's files it is the template."""
        for path in JOBS:
            [job] = [doc for doc in loaded(path) if doc["kind"] == "Job"]
            job = copy.deepcopy(job)
            [container] = job["spec"]["template"]["spec"]["containers"]
            template = rendered("base").named("CronJob", f"bakeoff-{container['name']}")["spec"]["jobTemplate"]["spec"]
            [original] = template["template"]["spec"]["containers"]
            self.assertEqual(container.pop("args")[0], original.pop("args")[0])
            container["image"] = original["image"]
            drop(container["volumeMounts"], name="sweep")
            drop(job["spec"]["template"]["spec"]["volumes"], name="sweep")
            job["spec"]["template"]["metadata"]["labels"].pop("app.kubernetes.io/instance")
            self.assertEqual(job["spec"], template, path.name)

    def test_every_component_has_its_line_in_the_readme(self):
        text = (REPOSITORY / "k8s/README.md").read_text()
        described = set(re.findall(r"^\| `([\w-]+)` \|", text, re.M))
        self.assertEqual(described, {path.name for path in (REPOSITORY / "k8s/components").iterdir()})

    def test_copied_files_are_copies(self):
        """kustomize reads no file outside of its folder."""
        for original, copied in (
            ("deploy/nats.conf", "k8s/base/nats.conf"),
            ("deploy/dashboards/bakeoff.json", "k8s/overlays/monitoring/bakeoff.json"),
        ):
            same = filecmp.cmp(REPOSITORY / original, REPOSITORY / copied, shallow=False)
            self.assertTrue(same, f"{copied} differs from {original}: k8s/test.sh --update")
        rules = yaml.safe_load((REPOSITORY / "deploy/rules/bakeoff.yaml").read_text())
        self.assertEqual(rendered("monitoring").named("PrometheusRule", "bakeoff")["spec"], rules)

    def test_every_alert_is_tried_and_is_silent_when_all_is_well(self):
        groups = yaml.safe_load((REPOSITORY / "deploy/rules/bakeoff.yaml").read_text())["groups"]
        alerts = {rule["alert"] for group in groups for rule in group["rules"]}
        tests = yaml.safe_load((REPOSITORY / "k8s/test/alerts.yaml").read_text())["tests"]
        tried = [(t["name"], a["alertname"], bool(a["exp_alerts"])) for t in tests for a in t["alert_rule_test"]]
        self.assertEqual({alert for _, alert, fires in tried if fires}, alerts)
        self.assertEqual({alert for name, alert, fires in tried if name == "all is well" and not fires}, alerts)

    def test_the_own_brokers_accounts_are_ours(self):
        values = yaml.safe_load((REPOSITORY / "k8s/components/own-nats/values.yaml").read_text())
        accounts = values["configMap"]["merge"]["data"]["accounts.conf"]
        config = (REPOSITORY / "deploy/nats.conf").read_text()
        self.assertEqual(accounts, config[config.index("accounts {"):])
        keys = {entry["valueFrom"]["secretKeyRef"]["key"] for entry in values["container"]["env"].values()}
        self.assertEqual(keys, checks.made_secrets()["nats-public-keys"])


def worker(manifests):
    return next(manifests.workers())


def pod(manifests, kind, name):
    return owner_spec(manifests.named(kind, name))["template"]["spec"]


def container(manifests, kind, name):
    return pod(manifests, kind, name)["containers"][0]


def job(manifests):
    return manifests.kind("Job")[0]["spec"]["template"]["spec"]


def policy(manifests, name):
    return manifests.named("NetworkPolicy", name)["spec"]


def set_env(manifests, name, value):
    env = worker(manifests)[2]["env"]
    next(entry for entry in env if entry["name"] == name)["value"] = value


def drop(items, **wanted):
    items[:] = [item for item in items if any(item.get(key) != value for key, value in wanted.items())]


def source(name):
    """An overlay, a component on the base, or `job NAME`."""
    if name.startswith("job "):
        return with_job(name.removeprefix("job "))
    return rendered(name) if name in OVERLAYS else case(name)


# Check, source, change, and a part of what the check must say.
MUTATIONS = [
    ("objects_match_their_schemas", "base", lambda m: container(m, "Deployment", "bakeoff-worker").update(imagePulPolicy="Always"), "imagePulPolicy"),
    ("objects_match_their_schemas", "base", lambda m: m.named("PodDisruptionBudget", "nats")["spec"].update(maxUnavailable=[1]), "PodDisruptionBudget/nats"),
    ("objects_match_their_schemas", "keda", lambda m: m.kind("ScaledJob")[0]["spec"].update(maxReplicas=3), "maxReplicas"),
    ("objects_match_their_schemas", "keda", lambda m: m.kind("ScaledJob")[0]["spec"]["triggers"][0]["metadata"].update(lagThreshold=1), "1 is not of type"),
    ("objects_match_their_schemas", "keda", lambda m: m.kind("ScaledJob")[0]["spec"]["jobTargetRef"].update(paralelism=1), "paralelism"),
    ("objects_match_their_schemas", "monitoring", lambda m: m.kind("PrometheusRule")[0]["spec"]["groups"][0]["rules"][0].update({"while": "5m"}), "while"),
    ("objects_match_their_schemas", "monitoring", lambda m: m.kind("PodMonitor")[0]["spec"]["podMetricsEndpoints"][0].update(interval="15 s"), "15 s"),
    ("objects_match_their_schemas", "base", lambda m: m.docs.append({"apiVersion": "example.org/v1", "kind": "Wish", "metadata": {"name": "w"}}), "no schema is known"),
    ("containers_are_confined", "base", lambda m: pod(m, "Deployment", "bakeoff-worker")["securityContext"].update(runAsNonRoot=False), "as root"),
    ("containers_are_confined", "base", lambda m: pod(m, "StatefulSet", "nats")["securityContext"].update(runAsUser=0), "as root"),
    ("containers_are_confined", "base", lambda m: container(m, "Deployment", "bakeoff-worker")["securityContext"].pop("readOnlyRootFilesystem"), "root file system"),
    ("containers_are_confined", "base", lambda m: container(m, "Deployment", "bakeoff-worker")["securityContext"].pop("allowPrivilegeEscalation"), "gain privileges"),
    ("containers_are_confined", "base", lambda m: container(m, "Deployment", "bakeoff-worker")["securityContext"]["capabilities"].update(add=["SYS_ADMIN"]), "keeps capabilities"),
    ("containers_are_confined", "local", lambda m: pod(m, "Deployment", "store")["securityContext"].pop("seccompProfile"), "seccomp"),
    ("containers_are_confined", "base", lambda m: pod(m, "Deployment", "bakeoff-worker").update(hostNetwork=True), "namespace of the host"),
    ("containers_are_confined", "base", lambda m: pod(m, "Deployment", "bakeoff-worker")["volumes"].append({"name": "h", "hostPath": {"path": "/"}}), "path of the host"),
    ("containers_are_confined", "base", lambda m: m.kind("Namespace")[0]["metadata"]["labels"].clear(), "restricted profile"),
    ("resources_are_bounded", "base", lambda m: container(m, "StatefulSet", "nats")["resources"]["limits"].pop("memory"), "limits of memory"),
    ("resources_are_bounded", "base", lambda m: container(m, "Deployment", "bakeoff-worker")["resources"]["requests"].pop("cpu"), "requests of cpu"),
    ("resources_are_bounded", "base", lambda m: pod(m, "Deployment", "bakeoff-worker")["volumes"].append({"name": "v", "emptyDir": {}}), "size limit"),
    ("images_are_pinned", "base", lambda m: container(m, "Deployment", "bakeoff-worker").update(image="localhost/bakeoff/worker:latest"), "no version"),
    ("images_are_pinned", "base", lambda m: container(m, "Deployment", "bakeoff-worker").update(image="registry.invalid/bakeoff/worker"), "no version"),
    ("images_are_pinned", "base", lambda m: container(m, "Deployment", "bakeoff-worker").update(image="bakeoff/worker:0.1.0"), "somebody else may own"),
    ("images_are_pinned", "base", lambda m: container(m, "StatefulSet", "nats").update(image="nats:2.15.0-alpine"), "no digest"),
    ("images_are_pinned", "nats-exporter", lambda m: pod(m, "StatefulSet", "nats")["containers"][0].update(image="registry.invalid:5000/bakeoff/exporter:1.2"), "no digest"),
    ("references_lead_somewhere", "base", lambda m: pod(m, "Deployment", "bakeoff-worker")["volumes"][-1]["secret"].update(secretName="nats-ca"), "no secret nats-ca"),
    ("references_lead_somewhere", "base", lambda m: pod(m, "Deployment", "bakeoff-worker")["volumes"][-1]["secret"]["items"][0].update(key="ca.pem"), "no key ca.pem"),
    ("references_lead_somewhere", "base", lambda m: drop(m.docs, kind="PersistentVolumeClaim"), "no volume claim"),
    ("references_lead_somewhere", "base", lambda m: drop(m.docs, kind="ServiceAccount"), "no service account"),
    ("references_lead_somewhere", "base", lambda m: drop(m.docs, kind="ConfigMap"), "no configMapRef"),
    ("references_lead_somewhere", "job sweep", lambda m: job(m)["volumes"][-1]["configMap"]["items"][0].update(key="sweep"), "no key sweep"),
    ("references_lead_somewhere", "private-ca", lambda m: pod(m, "Deployment", "bakeoff-worker")["volumes"][0]["configMap"].update(name="ca"), "no configMap ca"),
    ("references_lead_somewhere", "base", lambda m: container(m, "StatefulSet", "nats")["env"][0]["valueFrom"]["secretKeyRef"].update(key="boss"), "no key boss"),
    ("references_lead_somewhere", "base", lambda m: drop(pod(m, "Deployment", "bakeoff-worker")["volumes"], name="shm"), "no volume shm"),
    ("services_lead_to_pods", "base", lambda m: m.named("Service", "nats")["spec"]["ports"][0].update(targetPort="tcp"), "port tcp"),
    ("services_lead_to_pods", "base", lambda m: m.named("Service", "nats")["spec"].update(selector={"app": "nats"}), "no pod behind it"),
    ("ports_are_in_policies", "base", lambda m: container(m, "Deployment", "bakeoff-worker")["ports"].append({"name": "debug", "containerPort": 6060}), "reach its port 6060"),
    ("ports_are_in_policies", "base", lambda m: policy(m, "metrics")["ingress"][0]["ports"][0].update(port=8080), "opens port 8080"),
    ("ports_are_in_policies", "base", lambda m: policy(m, "metrics")["ingress"][0].pop("from"), "lets in everybody"),
    ("ports_are_in_policies", "base", lambda m: policy(m, "default-deny").update(policyTypes=["Ingress"]), "denies what the others"),
    ("addresses_can_be_reached", "base", lambda m: policy(m, "bakeoff-to-nats-and-store").update(egress=[]), "no policy allows it (Egress)"),
    ("addresses_can_be_reached", "local", lambda m: policy(m, "store").update(ingress=[]), "no policy allows it (Ingress)"),
    ("addresses_can_be_reached", "base", lambda m: drop(m.docs, kind="Service"), "no such service and port"),
    ("variables_are_known", "base", lambda m: container(m, "Deployment", "bakeoff-worker")["env"].append({"name": "BAKEOFF_GRACE_S", "value": "1"}), "BAKEOFF_GRACE_S"),
    ("variables_are_known", "base", lambda m: container(m, "StatefulSet", "nats")["env"].pop(), "WORKER_NKEY"),
    ("no_pod_talks_to_the_cluster", "base", lambda m: pod(m, "CronJob", "bakeoff-prefetch").pop("automountServiceAccountToken"), "given a token"),
    ("no_pod_talks_to_the_cluster", "base", lambda m: m.named("ServiceAccount", "nats").pop("automountServiceAccountToken"), "hands out a token"),
    ("no_pod_talks_to_the_cluster", "base", lambda m: m.docs.append({"kind": "RoleBinding", "metadata": {"name": "r"}}), "needs a right"),
    ("probes_ask_the_process_alone", "base", lambda m: worker(m)[2]["livenessProbe"]["httpGet"].update(path="/readyz"), "livenessProbe"),
    ("probes_ask_the_process_alone", "h100", lambda m: worker(m)[2].pop("startupProbe"), "startupProbe"),
    ("probes_ask_the_process_alone", "base", lambda m: set_env(m, "BAKEOFF_HEALTH_ADDR", "127.0.0.1:9090"), "BAKEOFF_HEALTH_ADDR"),
    ("workers_have_time_to_drain", "keda", lambda m: set_env(m, "BAKEOFF_GRACE", "600"), "drain of 600 s"),
    ("workers_have_time_to_drain", "spot-karpenter", lambda m: pod(m, "Deployment", "bakeoff-worker").update(terminationGracePeriodSeconds=100), "drain of 90 s"),
    ("workers_stay_or_are_replaced", "base", lambda m: container(m, "Deployment", "bakeoff-worker")["env"].append({"name": "BAKEOFF_IDLE_EXIT", "value": "600"}), "started again"),
    ("workers_stay_or_are_replaced", "base", lambda m: m.named("Deployment", "bakeoff-worker")["spec"]["strategy"]["rollingUpdate"].update(maxSurge=1), "more GPUs"),
    ("workers_stay_or_are_replaced", "keda", lambda m: pod(m, "ScaledJob", "bakeoff-worker").update(restartPolicy="OnFailure"), "started again"),
    ("workers_stay_or_are_replaced", "keda", lambda m: drop(container(m, "ScaledJob", "bakeoff-worker")["env"], name="BAKEOFF_IDLE_EXIT"), "never leave"),
    ("workers_stay_or_are_replaced", "keda", lambda m: m.named("Deployment", "bakeoff-worker")["spec"].update(replicas=5), "one set of workers"),
    ("workers_stay_or_are_replaced", "base", lambda m: m.named("Deployment", "bakeoff-worker")["spec"].update(replicas=0), "one set of workers"),
    ("workers_stay_or_are_replaced", "keda", lambda m: pod(m, "Deployment", "bakeoff-worker").update(priorityClassName="low"), "comes after"),
    ("sweeps_start_when_somebody_starts_them", "base", lambda m: m.named("CronJob", "bakeoff-prefetch")["spec"].update(suspend=False), "by itself"),
    ("sweeps_start_when_somebody_starts_them", "base", lambda m: drop(m.docs, kind="CronJob"), "no template"),
    ("disruptions_cost_little", "base", lambda m: drop(m.docs, kind="PodDisruptionBudget"), "no disruption budget"),
    ("disruptions_cost_little", "keda", lambda m: owner_spec(m.kind("ScaledJob")[0])["podFailurePolicy"]["rules"].pop(0), "counts as failed"),
    ("disruptions_cost_little", "keda", lambda m: owner_spec(m.kind("ScaledJob")[0])["podFailurePolicy"]["rules"].pop(1), "Ignore has exit codes [] of worker, not [4]"),
    ("disruptions_cost_little", "base", lambda m: owner_spec(m.named("CronJob", "bakeoff-coordinator"))["podFailurePolicy"]["rules"].pop(1), "FailJob has exit codes [] of coordinator, not [3]"),
    ("disruptions_cost_little", "job sweep", lambda m: owner_spec(m.kind("Job")[0])["podFailurePolicy"]["rules"][1]["onExitCodes"].update(operator="NotIn"), "FailJob"),
    ("disruptions_cost_little", "h100", lambda m: worker(m)[1]["template"]["metadata"]["annotations"].clear(), "Karpenter"),
    ("disruptions_cost_little", "spot-karpenter", lambda m: worker(m)[1]["template"]["metadata"]["annotations"].update({"karpenter.sh/do-not-disrupt": "true"}), "on a spot node"),
    ("roles_are_not_shadowed_by_keys", "s3-role-irsa", lambda m: container(m, "Deployment", "bakeoff-worker")["envFrom"].append({"secretRef": {"name": "bakeoff-worker-s3"}}), "win over it"),
    ("roles_are_not_shadowed_by_keys", "eks", lambda m: container(m, "CronJob", "bakeoff-coordinator")["envFrom"].append({"secretRef": {"name": "bakeoff-coordinator-s3"}}), "win over it"),
    ("workers_read_a_filled_cache", "base", lambda m: container(m, "CronJob", "bakeoff-prefetch")["env"].pop(0), "HF_HOME"),
    ("workers_read_a_filled_cache", "base", lambda m: container(m, "CronJob", "bakeoff-prefetch").update(image="registry.invalid/bakeoff/worker-cuda:0.1.0"), "not the CPU image"),
    ("workers_read_a_filled_cache", "job prefetch", lambda m: container(m, "Job", m.kind("Job")[0]["metadata"]["name"])["args"].pop(0), "does not fetch"),
    ("workers_read_a_filled_cache", "base", lambda m: set_env(m, "HF_HUB_OFFLINE", "0"), "by surprise"),
    ("workers_read_a_filled_cache", "storage-node", lambda m: set_env(m, "HF_HUB_OFFLINE", "1"), "or never"),
    ("workers_read_a_filled_cache", "base", lambda m: set_env(m, "HF_HOME", "/tmp"), "not the cache"),
    ("workers_read_a_filled_cache", "storage-none", lambda m: m.docs.append(rendered("base").named("PersistentVolumeClaim", "bakeoff-models")), "nobody has"),
    ("scaling_follows_the_queue", "keda", lambda m: m.kind("ScaledJob")[0]["spec"].update(minReplicaCount=1), "scale to zero"),
    ("scaling_follows_the_queue", "keda", lambda m: m.kind("ScaledJob")[0]["spec"]["scalingStrategy"].update(strategy="accurate"), "strategy"),
    ("scaling_follows_the_queue", "keda", lambda m: m.kind("ScaledJob")[0]["spec"].pop("rollout"), "kills busy workers"),
    ("scaling_follows_the_queue", "keda", lambda m: m.kind("ScaledJob")[0]["spec"]["triggers"][0]["metadata"].update(consumer="workers"), "consumer is workers"),
    ("scaling_follows_the_queue", "keda", lambda m: m.kind("ScaledJob")[0]["spec"]["triggers"][0]["metadata"].update(account="$G"), "account is $G"),
    ("scaling_follows_the_queue", "keda", lambda m: drop(m.docs, kind="Service"), "no service is behind"),
    ("scaling_follows_the_queue", "monitoring", lambda m: m.kind("PodMonitor")[0]["spec"]["podMetricsEndpoints"][0].update(port="http"), "has a port http"),
    ("scaling_follows_the_queue", "monitoring", lambda m: m.kind("PodMonitor")[0]["metadata"]["labels"].pop("release"), "no Prometheus"),
]


class EveryCheckCanFail(unittest.TestCase):
    def test_each_mutation_is_caught(self):
        functions = {check.__name__: check for check in checks.CHECKS}
        for number, (check, name, change, expected) in enumerate(MUTATIONS):
            with self.subTest(number=number, check=check, expected=expected):
                manifests, original = source(name), source(name)
                change(manifests)
                self.assertNotEqual(manifests.docs, original.docs)
                self.assertEqual(list(functions[check](original)), [])
                self.assertIn(expected, "\n".join(functions[check](manifests)))

    def test_no_check_is_left_out(self):
        self.assertEqual({check.__name__ for check in checks.CHECKS}, {mutation[0] for mutation in MUTATIONS})


if __name__ == "__main__":
    unittest.main()
