"""Kubernetes objects as rendered, and the questions that the checks ask of them."""
import pathlib
import re

import yaml

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
POD_OWNERS = {"Job", "CronJob", "StatefulSet", "Deployment", "ScaledJob"}


class Manifests:
    def __init__(self, docs):
        self.docs = docs

    @classmethod
    def load(cls, path):
        return cls([doc for doc in yaml.safe_load_all(path.read_text()) if doc])

    def kind(self, *kinds):
        return [doc for doc in self.docs if doc["kind"] in kinds]

    def named(self, kind, name):
        return next((doc for doc in self.kind(kind) if doc["metadata"]["name"] == name), None)

    def templates(self):
        """(owner, pod template) of all that starts pods."""
        for doc in self.kind(*POD_OWNERS):
            yield doc, owner_spec(doc)["template"]

    def workers(self):
        """(owner, spec, container) of the pods that serve the queue."""
        for doc in self.kind("Deployment", "ScaledJob"):
            spec = owner_spec(doc)
            for container in spec["template"]["spec"]["containers"]:
                if container["name"] == "worker":
                    yield doc, spec, container

    def containers(self):
        """(owner, pod spec, container), init containers too."""
        for doc, template in self.templates():
            pod = template["spec"]
            for container in pod.get("initContainers", []) + pod["containers"]:
                yield doc, pod, container

    def environment(self, container):
        """Name to value; None for what comes from a secret."""
        env = {}
        for source in container.get("envFrom", []):
            if "configMapRef" in source:
                found = self.named("ConfigMap", source["configMapRef"]["name"])
                env.update(found["data"] if found else {})
        for entry in container.get("env", []):
            env[entry["name"]] = entry.get("value")
        return env


def owner_spec(doc):
    """The part of an object that holds its pods' template: of a Job in the end, whatever makes it."""
    spec = doc["spec"]
    return {"ScaledJob": lambda: spec["jobTargetRef"], "CronJob": lambda: spec["jobTemplate"]["spec"]}.get(doc["kind"], lambda: spec)()


def where(doc, container=None):
    text = f"{doc['kind']}/{doc['metadata']['name']}"
    return f"{text} container {container['name']}" if container else text


def selects(selector, labels):
    """Whether a label selector holds; of the operators, those that the manifests use."""
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for term in selector.get("matchExpressions", []):
        if term["operator"] != "In":
            raise ValueError(f"selectors with {term['operator']} are not known to the checks")
        if labels.get(term["key"]) not in term["values"]:
            return False
    return True


def constant(path, name):
    """The value of a string constant in the Rust sources."""
    found = re.search(rf'const {name}: &str = "([^"]*)"', (REPOSITORY / path).read_text())
    if not found:
        raise ValueError(f"{path} has no constant {name}")
    return found[1]
