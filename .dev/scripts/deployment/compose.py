"""The services of deploy/compose.yaml as plain processes: the same files, variables and arguments,
with the container's paths and addresses replaced by those of this machine."""

import os
import re
import subprocess
import time
import urllib.error
import urllib.request

import yaml


class Failed(Exception):
    """What did not hold, as a sentence."""


class Compose:
    def __init__(self, file, folder, programs, hosts, ports):
        """`programs`: entry point to path. `hosts`: service to address. `ports`: port to port."""
        self.services = yaml.safe_load(file.read_text())["services"]
        self.folder, self.programs, self.hosts, self.ports = folder, programs, hosts, ports

    def command(self, service, arguments=None):
        """Arguments and environment of a service's process."""
        spec = self.services[service]
        paths = {}
        for volume in spec.get("volumes", []):
            source, target = volume.split(":")[:2]
            paths[target] = self.folder / source
        words = [
            *self.entry_point(service, spec),
            *(spec.get("command", ["run"]) if arguments is None else arguments),
        ]
        env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
        for file in spec.get("env_file", []):
            env.update(line.split("=", 1) for line in (self.folder / file).read_text().splitlines())
        env.update(spec.get("environment", {}))
        env = {name: self.here(value, paths) for name, value in env.items()}
        return [self.here(word, paths) for word in words], env

    def entry_point(self, service, spec):
        name = spec["entrypoint"][0] if "entrypoint" in spec else service.split("-")[0]
        return [str(self.programs[name])]

    def here(self, text, paths):
        """A value of the compose file as it is on this machine."""
        text = str(text)
        for target, source in paths.items():
            text = re.sub(rf"(?<![\w/.]){re.escape(target)}(?![\w.])", str(source), text)
        for service, address in self.hosts.items():
            text = re.sub(rf"(?<=//){service}(?=:)", address, text)
        for there, here in self.ports.items():
            text = re.sub(rf"(?<=[:=]){there}(?!\d)", str(here), text)
        return text

    def health(self, service):
        """The address that the service's health check asks."""
        url = self.services[service]["healthcheck"]["test"][-1]
        return self.here(url.replace("127.0.0.1", self.hosts[service]), {})


class Processes:
    """Started processes; all are gone at the end."""

    def __init__(self, folder):
        self.folder, self.running = folder, {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.running.values():
            if process.poll() is None:
                process.kill()
            process.wait()

    def start(self, name, words, env, prefix=()):
        with open(self.folder / f"{name}.log", "ab") as log:
            process = subprocess.Popen(
                [*prefix, *words],
                env=env,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.running[name] = process
        return process

    def log(self, name):
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def check_running(self):
        for name, process in self.running.items():
            if process.poll() not in (None, 0):
                raise Failed(f"{name} ended with {process.returncode}:\n{self.log(name)[-2000:]}")


def wait_until(what, condition, limit=60):
    end = time.monotonic() + limit
    while not (result := condition()):
        if time.monotonic() > end:
            raise Failed(f"waited {limit} s in vain: {what}")
        time.sleep(0.05)
    return result


def get(url):
    """(status, text), or None when nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return None
