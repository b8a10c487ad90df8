"""Services of deploy/compose.yaml as podman containers: image, user, read-only root,
capabilities, volumes and variables as the file says them, on a network of their own with names."""

import os
import pathlib
import re
import subprocess

import yaml

from compose import Failed

# runc, since crun refuses machines with both versions of control groups.
PODMAN = ["podman", "--runtime", "runc", "--cgroup-manager", "cgroupfs"]
# Podman would raise these limits, which a container that holds this machine may not allow.
LIMITS = ["--ulimit", "nofile=20000:20000", "--ulimit", "nproc=4096:4096"]


def podman(*words, check=True, **options):
    return subprocess.run([*PODMAN, *words], check=check, capture_output=True, text=True, **options)


def interpolate(value, variables):
    """`${NAME:-default}` as Compose does."""
    return re.sub(r"\$\{(\w+):-([^}]*)\}", lambda m: variables.get(m[1], m[2]), value)


class Containers:
    """The services of a compose file whose relative paths lie in `folder`; all are gone at the
    end."""

    def __init__(self, file, folder, images, variables):
        text = interpolate(pathlib.Path(file).read_text(), variables)
        self.services = yaml.safe_load(text)["services"]
        self.folder, self.images = folder, images
        self.network = f"bakeoff-test-{os.getpid()}"
        self.started = []

    def __enter__(self):
        podman("network", "create", self.network)
        return self

    def __exit__(self, *_):
        for name in self.started:
            podman("rm", "--force", "--time", "1", self.name(name), check=False)
        podman("network", "rm", "--force", self.network, check=False)

    def name(self, service):
        return f"{self.network}-{service}"

    def options(self, service):
        spec = self.services[service]
        # Podman adds writable folders to a read-only container, unless told not to.
        words = [
            "--network",
            self.network,
            "--network-alias",
            service,
            *LIMITS,
            "--read-only-tmpfs=false",
        ]
        words += ["--user", spec["user"]]
        words += ["--read-only"] if spec.get("read_only") else []
        words += [f"--cap-drop={name}" for name in spec.get("cap_drop", [])]
        words += [f"--security-opt={option}" for option in spec.get("security_opt", [])]
        words += [f"--tmpfs={path}" for path in spec.get("tmpfs", [])]
        for volume in spec.get("volumes", []):
            source, rest = volume.split(":", 1)
            words.append(f"--volume={(self.folder / source).resolve()}:{rest}")
        words += [f"--env-file={self.folder / file}" for file in spec.get("env_file", [])]
        words += [f"--env={key}={value}" for key, value in spec.get("environment", {}).items()]
        words += [f"--entrypoint={spec['entrypoint'][0]}"] if "entrypoint" in spec else []
        return words

    def start(self, service):
        self.started.append(service)
        words = [
            "run",
            "--detach",
            "--log-driver=k8s-file",
            "--name",
            self.name(service),
            *self.options(service),
        ]
        podman(*words, self.images[service], *self.services[service].get("command", []))

    def run(self, service, *command, volume=None):
        """Runs a service's container to its end: (exit code, standard output, standard error)."""
        words = ["run", "--rm", *self.options(service), *([f"--volume={volume}"] if volume else [])]
        ended = podman(*words, self.images[service], *command, check=False, timeout=180)
        return ended.returncode, ended.stdout, ended.stderr

    def healthy(self, service):
        """Runs the health check of the file inside the container."""
        state = self.inspect(service, "{{.State.Status}} {{.State.ExitCode}}")
        if not state.startswith("running"):
            raise Failed(f"{service} is {state}:\n{self.log(service)}")
        return (
            podman(
                "exec",
                self.name(service),
                *self.services[service]["healthcheck"]["test"][1:],
                check=False,
            ).returncode
            == 0
        )

    def inspect(self, service, template):
        return podman("inspect", "--format", template, self.name(service)).stdout.strip()

    def log(self, service):
        ended = podman("logs", "--tail", "40", self.name(service), check=False)
        return ended.stdout + ended.stderr

    def confinement(self, service):
        """What the kernel says of a running service's first process."""
        process = pathlib.Path("/proc") / self.inspect(service, "{{.State.Pid}}")
        status = dict(
            line.split(":\t", 1)
            for line in (process / "status").read_text().splitlines()
            if ":\t" in line
        )
        [root] = [
            line.split()
            for line in (process / "mounts").read_text().splitlines()
            if line.split()[1] == "/"
        ]
        return {
            "user": status["Uid"].split()[1],
            "capabilities": int(status["CapBnd"], 16) | int(status["CapEff"], 16),
            "no new privileges": status["NoNewPrivs"] == "1",
            "seccomp filter": status["Seccomp"] == "2",
            "read-only root": "ro" in root[3].split(","),
        }

    def stop(self, service, seconds):
        """Stops it as a kubelet does, SIGTERM first; its exit code, 137 if it had to be killed."""
        podman("stop", "--time", str(seconds), self.name(service))
        return int(self.inspect(service, "{{.State.ExitCode}}"))
