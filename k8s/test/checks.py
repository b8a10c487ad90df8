"""What must hold of every set of manifests. A check yields a sentence for each thing that is wrong;
test_manifests.py runs all of them on all overlays, and proves each able to find something."""
import copy
import functools
import json
import os
import re
from urllib.parse import urlparse

import jsonschema
import kubernetes_validate

from manifests import REPOSITORY, constant, owner_spec, selects, where

# All that are supported, each with the schemas that kubernetes-validate brings.
KUBERNETES = [f"1.{minor}" for minor in range(29, 38)]
CRDS = {
    "ScaledJob": "scaledjob.keda.sh.json",
    "PodMonitor": "podmonitor.monitoring.coreos.com.json",
    "PrometheusRule": "prometheusrule.monitoring.coreos.com.json",
}
NAMES = "proto/src/names.rs"
# By container: what no further try changes (a sweep that finished with failed cells, a model that does not
# exist), and what is no failure (told to stop by a signal). A coordinator's 2 may also be a broker or store
# that is not up yet.
FINAL_EXIT_CODES = {"coordinator": {3}, "prefetch": {2}, "worker": {2}}
IGNORED_EXIT_CODES = {"coordinator": set(), "prefetch": {4}, "worker": {4}}
OUR_CONTAINERS = set(FINAL_EXIT_CODES)
# Hosts that nobody can own: one that never resolves (RFC 2606), one that is this machine.
NOBODYS_REGISTRIES = ("registry.invalid/bakeoff/", "localhost/bakeoff/")
# Its digest was not to be had where this was written.
BY_TAG = {"natsio/prometheus-nats-exporter"}
# What whoever installs makes by hand, as the component that needs it says.
MADE_BY_HAND = {"bakeoff-ca": {"ca.crt"}}
CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


@functools.cache
def schema_problems(text):
    """What is wrong with one object, as JSON: the same one is in many renderings."""
    doc = json.loads(text)
    problems = []

    def validate(doc, version):
        try:
            kubernetes_validate.validate(doc, version, strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            problems.append(f"{where(doc)}: no schema is known for it in {version}: keep one in k8s/test/crds")
        except kubernetes_validate.ValidationError as error:
            problems.append(f"{where(doc)} in {version}: {error.message}")

    if doc["kind"] in CRDS:
        path = REPOSITORY / "k8s/test/crds" / CRDS[doc["kind"]]
        try:
            jsonschema.validate(doc, json.loads(path.read_text()))
        except jsonschema.ValidationError as error:
            problems.append(f"{where(doc)}: {error.message}")
        if doc["kind"] == "ScaledJob":
            doc = {"apiVersion": "batch/v1", "kind": "Job", "metadata": doc["metadata"], "spec": doc["spec"]["jobTargetRef"]}
        else:
            return problems
    for version in KUBERNETES:
        validate(doc, version)
    return problems


@check
def objects_match_their_schemas(manifests):
    for doc in manifests.docs:
        yield from schema_problems(json.dumps(doc, sort_keys=True))


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
        repository, _, tag = name.partition(":") if "/" not in name.partition(":")[2] else (name, "", "")
        if not re.match(r"v?\d+\.\d+", tag):
            yield f"{where(doc, container)}: {image} has no version"
        if container["name"] in OUR_CONTAINERS:
            # Built from this repository; digests are known to who pushes them.
            if not name.startswith(NOBODYS_REGISTRIES):
                yield f"{where(doc, container)}: {image} is a name that somebody else may own"
        elif repository not in BY_TAG and not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
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
    maps = MADE_BY_HAND | {doc["metadata"]["name"]: set(doc["data"]) for doc in manifests.kind("ConfigMap")}
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
                        keys = [] if reference.get("optional") else [reference["key"]]
                        yield from look(at, kind, known, reference["name"], keys)


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
        if container["name"] in OUR_CONTAINERS:
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
    for doc, spec, container in manifests.workers():
        grace = int(manifests.environment(container).get("BAKEOFF_GRACE", "25"))
        if spec["template"]["spec"].get("terminationGracePeriodSeconds", 30) < grace + 20:
            yield f"{where(doc)}: the pod is killed before the drain of {grace} s and handing back are over"


@check
def workers_stay_or_are_replaced(manifests):
    running = []
    for doc, spec, container in manifests.workers():
        env = manifests.environment(container)
        if doc["kind"] == "Deployment":
            if spec["replicas"]:
                running.append(where(doc))
            if "BAKEOFF_IDLE_EXIT" in env:
                yield f"{where(doc)}: a worker that left because the queue is empty would be started again"
            # A pod of the new image gets its GPU only when one of the old has gone.
            if spec["strategy"]["rollingUpdate"].get("maxSurge") != 0:
                yield f"{where(doc)}: a new image needs more GPUs than there are"
        else:
            running.append(where(doc))
            if spec["template"]["spec"].get("restartPolicy") != "Never":
                yield f"{where(doc)}: a worker that left because the queue is empty would be started again"
            if "BAKEOFF_IDLE_EXIT" not in env:
                yield f"{where(doc)}: its workers never leave, so nothing scales down"
    if len(running) != 1:
        yield f"one set of workers, and there are {running}"
    templates = [copy.deepcopy(spec["template"]) for _, spec, _ in manifests.workers()]
    for template in templates:
        template["spec"].pop("restartPolicy", None)
        for container in template["spec"]["containers"]:
            container["env"] = [entry for entry in container["env"] if entry["name"] != "BAKEOFF_IDLE_EXIT"]
    if any(template != templates[0] for template in templates):
        yield "the ScaledJob's pods are not the Deployment's: `keda` comes after what changes the worker"


@check
def sweeps_start_when_somebody_starts_them(manifests):
    for doc in manifests.kind("CronJob"):
        if doc["spec"].get("suspend") is not True:
            yield f"{where(doc)} starts Jobs by itself"
    if not manifests.named("CronJob", "bakeoff-coordinator"):
        yield "there is no template of a sweep's Job"


@check
def disruptions_cost_little(manifests):
    for doc in manifests.kind("StatefulSet"):
        labels = doc["spec"]["template"]["metadata"]["labels"]
        if not any(selects(budget["spec"]["selector"], labels) for budget in manifests.kind("PodDisruptionBudget")):
            yield f"{where(doc)} has no disruption budget"
    for doc in manifests.kind("Job", "CronJob", "ScaledJob"):
        job = owner_spec(doc)
        [name] = [container["name"] for container in job["template"]["spec"]["containers"]]
        rules = job.get("podFailurePolicy", {}).get("rules", [])
        ignored = [c["type"] for r in rules if r["action"] == "Ignore" for c in r.get("onPodConditions", [])]
        if "DisruptionTarget" not in ignored:
            yield f"{where(doc)}: a pod that the cluster takes away counts as failed"
        for action, expected in (("FailJob", FINAL_EXIT_CODES), ("Ignore", IGNORED_EXIT_CODES)):
            of = [rule["onExitCodes"] for rule in rules if rule["action"] == action and "onExitCodes" in rule]
            codes = {code for on in of for code in on["values"]}
            if codes != expected[name] or any(on["containerName"] != name or on["operator"] != "In" for on in of):
                yield f"{where(doc)}: {action} has exit codes {sorted(codes)} of {name}, not {sorted(expected[name])}"
    for doc, spec, _ in manifests.workers():
        annotations = spec["template"]["metadata"].get("annotations", {})
        if annotations.get("cluster-autoscaler.kubernetes.io/safe-to-evict") != "false":
            yield f"{where(doc)}: the autoscaler may evict a busy worker"
        # On a spot node the annotation would hold up the drain that the two minutes are for.
        spot = any("spot" in (key + value).lower() for key, value in spec["template"]["spec"].get("nodeSelector", {}).items())
        if annotations.get("karpenter.sh/do-not-disrupt") != ("false" if spot else "true"):
            yield f"{where(doc)}: Karpenter may disrupt a busy worker, or waits for one on a spot node"


@check
def roles_are_not_shadowed_by_keys(manifests):
    """Static keys in the environment win over a role."""
    by_agent = manifests.named("NetworkPolicy", "bakeoff-to-pod-identity")
    accounts = {a["metadata"]["name"]: a["metadata"].get("annotations", {}) for a in manifests.kind("ServiceAccount")}
    for doc, pod, container in manifests.containers():
        role = "eks.amazonaws.com/role-arn" in accounts.get(pod["serviceAccountName"], {})
        keys = [source for source in container.get("envFrom", []) if source.get("secretRef", {}).get("name", "").endswith("-s3")]
        if (role or by_agent) and keys:
            yield f"{where(doc, container)} has a role, and keys that win over it"


@check
def workers_read_a_filled_cache(manifests):
    claim = manifests.named("PersistentVolumeClaim", "bakeoff-models")
    for doc, pod, container in manifests.containers():
        if container["name"] == "prefetch":
            at = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
            if manifests.environment(container).get("HF_HOME") != at.get("models"):
                yield f"{where(doc, container)}: HF_HOME is not the volume"
            if not re.search(r"/worker-cpu[:@]", container["image"]):
                yield f"{where(doc, container)}: {container['image']} is not the CPU image, which alone starts without a driver"
            if container.get("args", [""])[0] != "fetch":
                yield f"{where(doc, container)} does not fetch"
    for doc, spec, container in manifests.workers():
        mount = next((m for m in container["volumeMounts"] if m["name"] == "models"), {})
        volume = next((v for v in spec["template"]["spec"]["volumes"] if v["name"] == "models"), {})
        env = manifests.environment(container)
        own_disk = "emptyDir" in volume and bool(volume["emptyDir"].get("sizeLimit", "").endswith("00Gi"))
        if env.get("HF_HOME") != mount.get("mountPath") or bool(mount.get("readOnly")) == own_disk:
            yield f"{where(doc)}: HF_HOME is not the cache, mounted read-only unless it is the pod's own"
        if env.get("HF_HUB_OFFLINE") != ("0" if own_disk else "1"):
            yield f"{where(doc)}: a worker downloads by surprise, or never"
        if ("persistentVolumeClaim" in volume) != bool(claim):
            yield f"{where(doc)}: the cache is a volume that nobody has, or nobody fills"


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
        if not manifests.kind("StatefulSet") and namespace == "nats":
            continue  # components/own-nats, whose service is not ours
        if not service or namespace != service["metadata"]["namespace"] or int(port) not in [p["port"] for p in service["spec"]["ports"]]:
            yield f"{at}: no service is behind {metadata['natsServerMonitoringEndpoint']}"
    for monitor in manifests.kind("PodMonitor"):
        pods = [t for _, t in manifests.templates() if selects(monitor["spec"]["selector"], t["metadata"]["labels"])]
        names = {port["name"] for t in pods for c in t["spec"]["containers"] for port in c.get("ports", [])}
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            if endpoint["port"] not in names:
                yield f"{where(monitor)}: no pod that it selects has a port {endpoint['port']}"
        if "release" not in monitor["metadata"]["labels"]:
            yield f"{where(monitor)}: no Prometheus selects it"
