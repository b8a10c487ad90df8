"""What must hold of every set of manifests. A check yields a sentence for each thing that is wrong;
test_manifests.py runs all of them on all overlays, and proves each able to find something."""
import functools
import json
import os
import re
import tomllib
from urllib.parse import urlparse

import jsonschema
import kubernetes_validate

from manifests import REPOSITORY, constant, selects, where

KUBERNETES = "1.32"
CRDS = {
    "ScaledJob": "scaledjob.keda.sh.json",
    "PodMonitor": "podmonitor.monitoring.coreos.com.json",
    "PrometheusRule": "prometheusrule.monitoring.coreos.com.json",
}
NAMES = "proto/src/names.rs"
# What no further try changes: a sweep that finished with failed cells, a model that does not exist.
# A coordinator's or worker's 2 may also be a broker or store that is not up yet.
FINAL_EXIT_CODES = {"bakeoff-coordinator": {3}, "bakeoff-prefetch": {2}, "bakeoff-worker": set()}
CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


@check
def objects_match_their_schemas(manifests):
    for doc in manifests.docs:
        try:
            if doc["kind"] in CRDS:
                path = REPOSITORY / "k8s/test/crds" / CRDS[doc["kind"]]
                jsonschema.validate(doc, json.loads(path.read_text()))
                if doc["kind"] == "ScaledJob":
                    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": doc["metadata"]}
                    kubernetes_validate.validate({**job, "spec": doc["spec"]["jobTargetRef"]}, KUBERNETES, strict=True)
            else:
                kubernetes_validate.validate(doc, KUBERNETES, strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            yield f"{where(doc)}: no schema is known for it: keep one in k8s/test/crds"
        except (kubernetes_validate.ValidationError, jsonschema.ValidationError) as error:
            yield f"{where(doc)}: {error.message}"


@check
def containers_are_confined(manifests):
    for doc, pod, container in manifests.containers():
        at = where(doc, container)
        context = {**pod.get("securityContext", {}), **container.get("securityContext", {})}
        if context.get("runAsNonRoot") is not True or not context.get("runAsUser"):
            yield f"{at} may run as root"
        if context.get("readOnlyRootFilesystem") is not True:
            yield f"{at} may write to its root file system"
        if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
            yield f"{at} may gain privileges"
        if context.get("capabilities", {}).get("drop") != ["ALL"] or context["capabilities"].get("add"):
            yield f"{at} keeps capabilities"
        if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{at} has no seccomp profile"
        if any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
            yield f"{at} shares a namespace of the host"
        if any("hostPath" in volume for volume in pod.get("volumes", [])):
            yield f"{at} mounts a path of the host"
    for namespace in manifests.kind("Namespace"):
        if namespace["metadata"].get("labels", {}).get("pod-security.kubernetes.io/enforce") != "restricted":
            yield f"{where(namespace)} does not enforce the restricted profile"


@check
def resources_are_bounded(manifests):
    for doc, pod, container in manifests.containers():
        resources = container.get("resources", {})
        for kind in "requests", "limits":
            for resource in "cpu", "memory", "ephemeral-storage":
                if resource not in resources.get(kind, {}):
                    yield f"{where(doc, container)} has no {kind} of {resource}"
        for volume in pod.get("volumes", []):
            if "emptyDir" in volume and "sizeLimit" not in (volume["emptyDir"] or {}):
                yield f"{where(doc)}: the volume {volume['name']} has no size limit"


@check
def images_are_pinned(manifests):
    for doc, _, container in manifests.containers():
        image = container["image"]
        name, _, digest = image.partition("@")
        tag = name.rsplit("/", 1)[-1].partition(":")[2]
        if not re.match(r"v?\d+\.\d+", tag):
            yield f"{where(doc, container)}: {image} has no version"
        # Our own images are built from this repository; their digests are known to who pushes them.
        if not name.startswith("bakeoff/") and not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
            yield f"{where(doc, container)}: {image} has no digest"


@functools.cache
def made_secrets():
    """Secrets of k8s/secrets.sh with their keys, as k8s/test.sh printed them; and the optional one."""
    with open(os.environ["BAKEOFF_TEST_SECRETS"]) as file:
        import yaml

        made = {doc["metadata"]["name"]: set(doc["data"]) for doc in yaml.safe_load_all(file) if doc}
    return made | {"huggingface-token": {"token"}}


@check
def references_lead_somewhere(manifests):
    maps = {doc["metadata"]["name"]: set(doc["data"]) for doc in manifests.kind("ConfigMap")}
    claims = {doc["metadata"]["name"] for doc in manifests.kind("PersistentVolumeClaim")}
    accounts = {doc["metadata"]["name"] for doc in manifests.kind("ServiceAccount")}

    def look(at, kind, known, name, keys):
        if name not in known:
            yield f"{at}: there is no {kind} {name}"
        else:
            yield from (f"{at}: {kind} {name} has no key {key}" for key in set(keys) - known[name])

    for doc, template in manifests.templates():
        pod, at = template["spec"], where(doc)
        if pod.get("serviceAccountName") not in accounts:
            yield f"{at}: there is no service account {pod.get('serviceAccountName')}"
        own_claims = {claim["metadata"]["name"] for claim in doc["spec"].get("volumeClaimTemplates", [])}
        volumes = {volume["name"] for volume in pod.get("volumes", [])} | own_claims
        for volume in pod.get("volumes", []):
            for kind, known, name_key in (("secret", made_secrets(), "secretName"), ("configMap", maps, "name")):
                if kind in volume:
                    keys = [item["key"] for item in volume[kind].get("items", [])]
                    yield from look(at, kind, known, volume[kind][name_key], keys)
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            if claim and claim not in claims:
                yield f"{at}: there is no volume claim {claim}"
        for container in pod["containers"]:
            for mount in container.get("volumeMounts", []):
                if mount["name"] not in volumes:
                    yield f"{at}: there is no volume {mount['name']}"
            for source in container.get("envFrom", []):
                for kind, known in (("secretRef", made_secrets()), ("configMapRef", maps)):
                    if kind in source:
                        yield from look(at, kind, known, source[kind]["name"], [])
            for entry in container.get("env", []):
                for kind, known in (("secretKeyRef", made_secrets()), ("configMapKeyRef", maps)):
                    if kind in entry.get("valueFrom", {}):
                        reference = entry["valueFrom"][kind]
                        yield from look(at, kind, known, reference["name"], [reference["key"]])


@check
def services_lead_to_pods(manifests):
    pods = [(template["metadata"]["labels"], template["spec"]) for _, template in manifests.templates()]
    for service in manifests.kind("Service"):
        selected = [pod for labels, pod in pods if selects({"matchLabels": service["spec"]["selector"]}, labels)]
        ports = {port["name"] for pod in selected for c in pod["containers"] for port in c.get("ports", [])}
        for port in service["spec"]["ports"]:
            if port["targetPort"] not in ports:
                yield f"{where(service)}: no pod behind it has a port {port['targetPort']}"


def policies(manifests, direction, labels):
    """The rules of a direction that hold for pods with these labels."""
    for policy in manifests.kind("NetworkPolicy"):
        if direction in policy["spec"]["policyTypes"] and selects(policy["spec"]["podSelector"], labels):
            yield from policy["spec"].get(direction.lower(), [])


@check
def ports_are_in_policies(manifests):
    deny = [
        policy for policy in manifests.kind("NetworkPolicy")
        if policy["spec"]["podSelector"] == {} and sorted(policy["spec"]["policyTypes"]) == ["Egress", "Ingress"]
        and not policy["spec"].get("ingress") and not policy["spec"].get("egress")
    ]
    if not deny:
        yield "no network policy denies what the others do not allow"
    for doc, template in manifests.templates():
        labels = template["metadata"]["labels"]
        allowed = {port["port"] for rule in policies(manifests, "Ingress", labels) for port in rule.get("ports", [])}
        own = {port["containerPort"] for c in template["spec"]["containers"] for port in c.get("ports", [])}
        for port in own - allowed:
            yield f"{where(doc)}: no policy lets anybody reach its port {port}"
        for port in allowed - own:
            yield f"{where(doc)}: a policy opens port {port}, which no container has"
        for rule in policies(manifests, "Ingress", labels):
            if not rule.get("from") or not rule.get("ports"):
                yield f"{where(doc)}: a policy lets in everybody, or to every port"


@check
def addresses_can_be_reached(manifests):
    """Each service named in an address exists, and policies on both sides let the traffic through."""
    pods = [(doc, template["metadata"]["labels"]) for doc, template in manifests.templates()]
    for doc, template in manifests.templates():
        labels = template["metadata"]["labels"]
        for container in template["spec"]["containers"]:
            for name, value in manifests.environment(container).items():
                url = urlparse(value or "")
                if url.scheme not in ("http", "https", "tls", "nats") or "." in (url.hostname or "."):
                    continue
                at = f"{where(doc, container)}: {name}={value}"
                service = manifests.named("Service", url.hostname)
                if not service or url.port not in [port["port"] for port in service["spec"]["ports"]]:
                    yield f"{at}: there is no such service and port"
                    continue
                for _, target in pods:
                    if not selects({"matchLabels": service["spec"]["selector"]}, target):
                        continue
                    ways = ((labels, "Egress", "to", target), (target, "Ingress", "from", labels))
                    for here, direction, peers, there in ways:
                        if not any(
                            url.port in [port["port"] for port in rule.get("ports", [])]
                            and any(selects(peer.get("podSelector", {"matchLabels": {"": ""}}), there) for peer in rule.get(peers, []))
                            for rule in policies(manifests, direction, here)
                        ):
                            yield f"{at}: no policy allows it ({direction})"


@functools.cache
def known_variables():
    """What the two programs read, by their configuration reference, which is made from the code."""
    reference = (REPOSITORY / "deploy/CONFIGURATION.md").read_text()
    return set(re.findall(r"^\|.*?`([A-Z][A-Z0-9_]*)`", reference, re.M))


@check
def variables_are_known(manifests):
    for doc, _, container in manifests.containers():
        if container["image"].startswith("bakeoff/"):
            names = set(manifests.environment(container))
            for source in container.get("envFrom", []):
                names |= made_secrets().get(source.get("secretRef", {}).get("name"), set())
        elif container["name"] == "nats":
            names = set(manifests.environment(container))
            config = (REPOSITORY / "deploy/nats.conf").read_text()
            for name in names ^ set(re.findall(r"(?<!\")\$([A-Z_]+NKEY)", config)):
                yield f"{where(doc, container)}: {name} is not both set here and used in nats.conf"
            continue
        else:
            names = set(container.get("env", []))
        for name in sorted(names - known_variables()):
            yield f"{where(doc, container)}: the program does not know {name}"


@check
def no_pod_talks_to_the_cluster(manifests):
    for doc, template in manifests.templates():
        if template["spec"].get("automountServiceAccountToken") is not False:
            yield f"{where(doc)} is given a token"
    for account in manifests.kind("ServiceAccount"):
        if account.get("automountServiceAccountToken") is not False:
            yield f"{where(account)} hands out a token"
    for doc in manifests.kind("Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"):
        yield f"{where(doc)}: nothing here needs a right in the cluster"


@check
def probes_ask_the_process_alone(manifests):
    """A worker that loads 65 GB, or waits for its broker, is neither dead nor to be restarted."""
    for doc, _, container in manifests.workers():
        for probe, path in (("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
            asked = container.get(probe, {}).get("httpGet", {})
            if (asked.get("path"), asked.get("port")) != (path, "health"):
                yield f"{where(doc, container)}: its {probe} is not {path} on the port health"
        address = manifests.environment(container).get("BAKEOFF_HEALTH_ADDR", "")
        ports = [port["containerPort"] for port in container.get("ports", []) if port["name"] == "health"]
        if address != f"0.0.0.0:{ports[0] if ports else ''}":
            yield f"{where(doc, container)}: BAKEOFF_HEALTH_ADDR={address} is not its port health"


@check
def workers_have_time_to_drain(manifests):
    for doc, job, container in manifests.workers():
        grace = int(manifests.environment(container).get("BAKEOFF_GRACE", "25"))
        if job["template"]["spec"].get("terminationGracePeriodSeconds", 30) < grace + 20:
            yield f"{where(doc)}: the pod is killed before the drain of {grace} s and handing back are over"
        if job["template"]["spec"].get("restartPolicy") != "Never":
            yield f"{where(doc)}: a worker that left because the queue is empty would be started again"


@check
def disruptions_cost_little(manifests):
    for doc in manifests.kind("StatefulSet"):
        labels = doc["spec"]["template"]["metadata"]["labels"]
        if not any(selects(budget["spec"]["selector"], labels) for budget in manifests.kind("PodDisruptionBudget")):
            yield f"{where(doc)} has no disruption budget"
    for doc in manifests.kind("Job", "ScaledJob"):
        job = doc["spec"].get("jobTargetRef", doc["spec"])
        rules = job.get("podFailurePolicy", {}).get("rules", [])
        ignored = [c["type"] for r in rules if r["action"] == "Ignore" for c in r.get("onPodConditions", [])]
        if "DisruptionTarget" not in ignored:
            yield f"{where(doc)}: a pod that the cluster takes away counts as failed"
        final = {code for r in rules if r["action"] == "FailJob" for code in r.get("onExitCodes", {}).get("values", [])}
        if final != FINAL_EXIT_CODES[doc["metadata"]["name"]]:
            yield f"{where(doc)}: exit codes {sorted(final)} end it, not {sorted(FINAL_EXIT_CODES[doc['metadata']['name']])}"
    for doc, job, _ in manifests.workers():
        annotations = job["template"]["metadata"].get("annotations", {})
        if annotations.get("cluster-autoscaler.kubernetes.io/safe-to-evict") != "false":
            yield f"{where(doc)}: the autoscaler may evict a busy worker"
        if annotations.get("karpenter.sh/do-not-disrupt") != "true":
            yield f"{where(doc)}: Karpenter may disrupt a busy worker"


@check
def gpu_workers_read_a_filled_cache(manifests):
    sweep = next(doc for doc in manifests.kind("ConfigMap") if doc["metadata"]["name"].startswith("bakeoff-sweep"))
    models = tomllib.loads(sweep["data"]["sweep.toml"])["models"]
    wanted = {f"{model['id']}@{model['revision']}" for model in models if not model["id"].startswith("builtin:")}
    fetched = set()
    for doc, pod, container in manifests.containers():
        if container.get("args", [""])[0] == "fetch":
            fetched |= set(container["args"][1:])
            at = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
            if manifests.environment(container).get("HF_HOME") != at.get("models"):
                yield f"{where(doc, container)}: HF_HOME is not the volume"
    for missing in wanted ^ fetched:
        yield f"the sweep and the prefetch Job differ in {missing}"
    for doc, _, container in manifests.workers():
        mount = next((m for m in container["volumeMounts"] if m["name"] == "models"), {})
        env = manifests.environment(container)
        if env.get("HF_HOME") != mount.get("mountPath") or not mount.get("readOnly"):
            yield f"{where(doc)}: HF_HOME is not the cache, mounted read-only"
        if env.get("HF_HUB_OFFLINE") != "1":
            yield f"{where(doc)}: a worker may download by surprise"


@check
def scaling_follows_the_queue(manifests):
    for doc in manifests.kind("ScaledJob"):
        at = where(doc)
        if doc["spec"].get("minReplicaCount") != 0:
            yield f"{at} does not scale to zero"
        # The scaler's figure holds running jobs too; `accurate` would count them twice.
        if doc["spec"].get("scalingStrategy", {}).get("strategy") != "default":
            yield f"{at}: the scaling strategy is not `default`"
        if doc["spec"].get("rollout", {}).get("strategy") != "gradual":
            yield f"{at}: a new template kills busy workers"
        [trigger] = doc["spec"]["triggers"]
        metadata = trigger["metadata"]
        account = re.search(r"accounts \{\s+(\w+) \{", (REPOSITORY / "deploy/nats.conf").read_text())[1]
        consumer = f"workers-{constant(NAMES, 'ANY_CLASS')}"
        for key, value in (("stream", constant(NAMES, "JOBS_STREAM")), ("consumer", consumer), ("account", account), ("lagThreshold", "1")):
            if metadata.get(key) != value:
                yield f"{at}: {key} is {metadata.get(key)}, not {value}"
        name, namespace, _, _, port = re.fullmatch(r"([\w-]+)\.([\w-]+)\.(svc)\.(cluster\.local):(\d+)", metadata["natsServerMonitoringEndpoint"]).groups()
        service = manifests.named("Service", name)
        if not service or namespace != service["metadata"]["namespace"] or int(port) not in [p["port"] for p in service["spec"]["ports"]]:
            yield f"{at}: no service is behind {metadata['natsServerMonitoringEndpoint']}"
        _, job, container = next(manifests.workers())
        if "BAKEOFF_IDLE_EXIT" not in manifests.environment(container):
            yield f"{at}: its workers never leave, so nothing scales down"
    for monitor in manifests.kind("PodMonitor"):
        names = [port["name"] for _, _, container in manifests.workers() for port in container.get("ports", [])]
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            if endpoint["port"] not in names:
                yield f"{where(monitor)}: workers have no port {endpoint['port']}"
