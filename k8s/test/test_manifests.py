"""All checks on all overlays, and for each check a change to the manifests that it must catch."""
import copy
import filecmp
import unittest

import yaml

import checks
from manifests import REPOSITORY, Manifests

OVERLAYS = ["base", "local", "h100", "keda", "monitoring"]


def rendered(name):
    """The objects of an overlay; of `monitoring`, those of the one that it is applied beside too."""
    names = ["keda", name] if name == "monitoring" else [name]
    return Manifests([d for n in names for d in Manifests.load(REPOSITORY / f"k8s/rendered/{n}.yaml").docs])


class Manifest(unittest.TestCase):
    def test_every_overlay_passes_every_check(self):
        for overlay in OVERLAYS:
            manifests = rendered(overlay)
            for check in checks.CHECKS:
                with self.subTest(overlay=overlay, check=check.__name__):
                    self.assertEqual(list(check(manifests)), [])

    def test_copied_files_are_copies(self):
        """kustomize reads no file outside of its folder."""
        for original, copied in (
            ("deploy/nats.conf", "k8s/base/nats.conf"),
            ("deploy/sweeps/qwen-codegen.toml", "k8s/base/sweep.toml"),
            ("coordinator/src/demo.toml", "k8s/overlays/local/sweep.toml"),
            ("deploy/dashboards/bakeoff.json", "k8s/overlays/monitoring/bakeoff.json"),
        ):
            same = filecmp.cmp(REPOSITORY / original, REPOSITORY / copied, shallow=False)
            self.assertTrue(same, f"{copied} differs from {original}: k8s/test.sh --update")
        rules = yaml.safe_load((REPOSITORY / "deploy/rules/bakeoff.yaml").read_text())
        self.assertEqual(rendered("monitoring").named("PrometheusRule", "bakeoff")["spec"], rules)


def worker(manifests):
    return next(manifests.workers())


def pod(manifests, kind, name):
    spec = manifests.named(kind, name)["spec"]
    return spec.get("jobTargetRef", spec)["template"]["spec"]


def container(manifests, kind, name):
    return pod(manifests, kind, name)["containers"][0]


def policy(manifests, name):
    return manifests.named("NetworkPolicy", name)["spec"]


def set_env(manifests, name, value):
    env = worker(manifests)[2]["env"]
    next(entry for entry in env if entry["name"] == name)["value"] = value


def drop(items, **wanted):
    items[:] = [item for item in items if any(item.get(key) != value for key, value in wanted.items())]


# Check, overlay, change, and a part of what the check must say.
MUTATIONS = [
    ("objects_match_their_schemas", "base", lambda m: container(m, "Job", "bakeoff-worker").update(imagePulPolicy="Always"), "imagePulPolicy"),
    ("objects_match_their_schemas", "base", lambda m: m.named("PodDisruptionBudget", "nats")["spec"].update(maxUnavailable=[1]), "PodDisruptionBudget/nats"),
    ("objects_match_their_schemas", "keda", lambda m: m.kind("ScaledJob")[0]["spec"].update(maxReplicas=3), "maxReplicas"),
    ("objects_match_their_schemas", "keda", lambda m: m.kind("ScaledJob")[0]["spec"]["triggers"][0]["metadata"].update(lagThreshold=1), "1 is not of type"),
    ("objects_match_their_schemas", "keda", lambda m: m.kind("ScaledJob")[0]["spec"]["jobTargetRef"].update(paralelism=1), "paralelism"),
    ("objects_match_their_schemas", "monitoring", lambda m: m.kind("PrometheusRule")[0]["spec"]["groups"][0]["rules"][0].update({"while": "5m"}), "while"),
    ("objects_match_their_schemas", "monitoring", lambda m: m.kind("PodMonitor")[0]["spec"]["podMetricsEndpoints"][0].update(interval="15 s"), "15 s"),
    ("objects_match_their_schemas", "base", lambda m: m.docs.append({"apiVersion": "example.org/v1", "kind": "Wish", "metadata": {"name": "w"}}), "no schema is known"),
    ("containers_are_confined", "base", lambda m: pod(m, "Job", "bakeoff-worker")["securityContext"].update(runAsNonRoot=False), "as root"),
    ("containers_are_confined", "base", lambda m: pod(m, "StatefulSet", "nats")["securityContext"].update(runAsUser=0), "as root"),
    ("containers_are_confined", "base", lambda m: container(m, "Job", "bakeoff-worker")["securityContext"].pop("readOnlyRootFilesystem"), "root file system"),
    ("containers_are_confined", "base", lambda m: container(m, "Job", "bakeoff-worker")["securityContext"].pop("allowPrivilegeEscalation"), "gain privileges"),
    ("containers_are_confined", "base", lambda m: container(m, "Job", "bakeoff-worker")["securityContext"]["capabilities"].update(add=["SYS_ADMIN"]), "keeps capabilities"),
    ("containers_are_confined", "local", lambda m: pod(m, "Deployment", "store")["securityContext"].pop("seccompProfile"), "seccomp"),
    ("containers_are_confined", "base", lambda m: pod(m, "Job", "bakeoff-worker").update(hostNetwork=True), "namespace of the host"),
    ("containers_are_confined", "base", lambda m: pod(m, "Job", "bakeoff-worker")["volumes"].append({"name": "h", "hostPath": {"path": "/"}}), "path of the host"),
    ("containers_are_confined", "base", lambda m: m.kind("Namespace")[0]["metadata"]["labels"].clear(), "restricted profile"),
    ("resources_are_bounded", "base", lambda m: container(m, "StatefulSet", "nats")["resources"]["limits"].pop("memory"), "limits of memory"),
    ("resources_are_bounded", "base", lambda m: container(m, "Job", "bakeoff-worker")["resources"]["requests"].pop("cpu"), "requests of cpu"),
    ("resources_are_bounded", "base", lambda m: pod(m, "Job", "bakeoff-worker")["volumes"].append({"name": "v", "emptyDir": {}}), "size limit"),
    ("images_are_pinned", "base", lambda m: container(m, "Job", "bakeoff-worker").update(image="bakeoff/worker:latest"), "no version"),
    ("images_are_pinned", "base", lambda m: container(m, "Job", "bakeoff-worker").update(image="registry:5000/bakeoff/worker"), "no version"),
    ("images_are_pinned", "base", lambda m: container(m, "StatefulSet", "nats").update(image="nats:2.15.0-alpine"), "no digest"),
    ("references_lead_somewhere", "base", lambda m: pod(m, "Job", "bakeoff-worker")["volumes"][-1]["secret"].update(secretName="nats-ca"), "no secret nats-ca"),
    ("references_lead_somewhere", "base", lambda m: pod(m, "Job", "bakeoff-worker")["volumes"][-1]["secret"]["items"][0].update(key="ca.pem"), "no key ca.pem"),
    ("references_lead_somewhere", "base", lambda m: drop(m.docs, kind="PersistentVolumeClaim"), "no volume claim"),
    ("references_lead_somewhere", "base", lambda m: drop(m.docs, kind="ServiceAccount"), "no service account"),
    ("references_lead_somewhere", "base", lambda m: drop(m.docs, kind="ConfigMap"), "no configMapRef"),
    ("references_lead_somewhere", "base", lambda m: container(m, "StatefulSet", "nats")["env"][0]["valueFrom"]["secretKeyRef"].update(key="boss"), "no key boss"),
    ("references_lead_somewhere", "base", lambda m: drop(pod(m, "Job", "bakeoff-worker")["volumes"], name="shm"), "no volume shm"),
    ("services_lead_to_pods", "base", lambda m: m.named("Service", "nats")["spec"]["ports"][0].update(targetPort="tcp"), "port tcp"),
    ("services_lead_to_pods", "base", lambda m: m.named("Service", "nats")["spec"].update(selector={"app": "nats"}), "no pod behind it"),
    ("ports_are_in_policies", "base", lambda m: container(m, "Job", "bakeoff-worker")["ports"].append({"name": "debug", "containerPort": 6060}), "reach its port 6060"),
    ("ports_are_in_policies", "base", lambda m: policy(m, "metrics")["ingress"][0]["ports"][0].update(port=8080), "opens port 8080"),
    ("ports_are_in_policies", "base", lambda m: policy(m, "metrics")["ingress"][0].pop("from"), "lets in everybody"),
    ("ports_are_in_policies", "base", lambda m: policy(m, "default-deny").update(policyTypes=["Ingress"]), "denies what the others"),
    ("addresses_can_be_reached", "base", lambda m: policy(m, "bakeoff-to-nats-and-store").update(egress=[]), "no policy allows it (Egress)"),
    ("addresses_can_be_reached", "local", lambda m: policy(m, "store").update(ingress=[]), "no policy allows it (Ingress)"),
    ("addresses_can_be_reached", "base", lambda m: drop(m.docs, kind="Service"), "no such service and port"),
    ("variables_are_known", "base", lambda m: container(m, "Job", "bakeoff-worker")["env"].append({"name": "BAKEOFF_GRACE_S", "value": "1"}), "BAKEOFF_GRACE_S"),
    ("variables_are_known", "base", lambda m: container(m, "StatefulSet", "nats")["env"].pop(), "WORKER_NKEY"),
    ("no_pod_talks_to_the_cluster", "base", lambda m: pod(m, "Job", "bakeoff-prefetch").pop("automountServiceAccountToken"), "given a token"),
    ("no_pod_talks_to_the_cluster", "base", lambda m: m.named("ServiceAccount", "nats").pop("automountServiceAccountToken"), "hands out a token"),
    ("no_pod_talks_to_the_cluster", "base", lambda m: m.docs.append({"kind": "RoleBinding", "metadata": {"name": "r"}}), "needs a right"),
    ("probes_ask_the_process_alone", "base", lambda m: worker(m)[2]["livenessProbe"]["httpGet"].update(path="/readyz"), "livenessProbe"),
    ("probes_ask_the_process_alone", "h100", lambda m: worker(m)[2].pop("startupProbe"), "startupProbe"),
    ("probes_ask_the_process_alone", "base", lambda m: set_env(m, "BAKEOFF_HEALTH_ADDR", "127.0.0.1:9090"), "BAKEOFF_HEALTH_ADDR"),
    ("workers_have_time_to_drain", "keda", lambda m: set_env(m, "BAKEOFF_GRACE", "600"), "drain of 600 s"),
    ("workers_have_time_to_drain", "base", lambda m: pod(m, "Job", "bakeoff-worker").update(restartPolicy="OnFailure"), "started again"),
    ("disruptions_cost_little", "base", lambda m: drop(m.docs, kind="PodDisruptionBudget"), "no disruption budget"),
    ("disruptions_cost_little", "keda", lambda m: worker(m)[1]["podFailurePolicy"]["rules"].pop(0), "counts as failed"),
    ("disruptions_cost_little", "base", lambda m: m.named("Job", "bakeoff-coordinator")["spec"]["podFailurePolicy"]["rules"].pop(1), "exit codes [] end it, not [3]"),
    ("disruptions_cost_little", "h100", lambda m: worker(m)[1]["template"]["metadata"]["annotations"].clear(), "Karpenter"),
    ("gpu_workers_read_a_filled_cache", "base", lambda m: container(m, "Job", "bakeoff-prefetch")["args"].pop(), "differ in"),
    ("gpu_workers_read_a_filled_cache", "base", lambda m: container(m, "Job", "bakeoff-prefetch")["env"].pop(0), "HF_HOME"),
    ("gpu_workers_read_a_filled_cache", "base", lambda m: set_env(m, "HF_HUB_OFFLINE", "0"), "by surprise"),
    ("gpu_workers_read_a_filled_cache", "base", lambda m: set_env(m, "HF_HOME", "/tmp"), "not the cache"),
    ("scaling_follows_the_queue", "keda", lambda m: m.kind("ScaledJob")[0]["spec"].update(minReplicaCount=1), "scale to zero"),
    ("scaling_follows_the_queue", "keda", lambda m: m.kind("ScaledJob")[0]["spec"]["scalingStrategy"].update(strategy="accurate"), "strategy"),
    ("scaling_follows_the_queue", "keda", lambda m: m.kind("ScaledJob")[0]["spec"].pop("rollout"), "kills busy workers"),
    ("scaling_follows_the_queue", "keda", lambda m: m.kind("ScaledJob")[0]["spec"]["triggers"][0]["metadata"].update(consumer="workers"), "consumer is workers"),
    ("scaling_follows_the_queue", "keda", lambda m: m.kind("ScaledJob")[0]["spec"]["triggers"][0]["metadata"].update(account="$G"), "account is $G"),
    ("scaling_follows_the_queue", "keda", lambda m: drop(m.docs, kind="Service"), "no service is behind"),
    ("scaling_follows_the_queue", "keda", lambda m: drop(worker(m)[2]["env"], name="BAKEOFF_IDLE_EXIT"), "never leave"),
    ("scaling_follows_the_queue", "monitoring", lambda m: m.kind("PodMonitor")[0]["spec"]["podMetricsEndpoints"][0].update(port="http"), "no port http"),
]


class EveryCheckCanFail(unittest.TestCase):
    def test_each_mutation_is_caught(self):
        functions = {check.__name__: check for check in checks.CHECKS}
        originals = {overlay: rendered(overlay) for overlay in OVERLAYS}
        for number, (check, overlay, change, expected) in enumerate(MUTATIONS):
            with self.subTest(number=number, check=check, expected=expected):
                manifests = Manifests(copy.deepcopy(originals[overlay].docs))
                change(manifests)
                self.assertNotEqual(manifests.docs, originals[overlay].docs)
                self.assertIn(expected, "\n".join(functions[check](manifests)))

    def test_no_check_is_left_out(self):
        self.assertEqual({check.__name__ for check in checks.CHECKS}, {mutation[0] for mutation in MUTATIONS})


if __name__ == "__main__":
    unittest.main()
