"""Runs the build stages of a Dockerfile in a plain folder: every RUN that builds, in its order, on what its
COPY lines bring. What an engine does, and no more: toolchain and system packages are this machine's, and
the toolkit in CUDA_HOME stands in for the one of NVIDIA's images."""
import argparse
import fnmatch
import os
import pathlib
import re
import shutil
import string
import subprocess
import sys
import tempfile

import dockerfile
from servers import REPOSITORY

SYSTEM = ("apt-get",)
IMAGE_CUDA = "/usr/local/cuda"
# What of NVIDIA's libraries a worker may need: they are in nvidia/cuda:*-runtime, the driver's come with the machine.
RUNTIME = {"libcudart", "libcublas", "libcublasLt", "libcurand", "libnvrtc"}
DRIVER = {"libcuda"}


def context(target):
    """The files of the build context: those that git knows, but for what .dockerignore leaves out."""
    ignored = [l for l in (REPOSITORY / ".dockerignore").read_text().splitlines() if l and not l.startswith("#")]
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, check=True, capture_output=True, text=True)
    for name in filter(None, listed.stdout.split("\0")):
        if not any(fnmatch.fnmatch(name, f"{p.removeprefix('**/')}/*") or name == p for p in ignored):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, target / name)


def variables(rest, env):
    """Those of an ENV line, but for the paths of the image's Rust toolchain: here it is this machine's."""
    for key, value in (pair.split("=", 1) for pair in rest.split()):
        if IMAGE_CUDA in value:
            value = value.replace(IMAGE_CUDA, os.environ["CUDA_HOME"])
        if "/usr/local/" not in value:
            yield key, string.Template(value).substitute(env)


class Machine:
    def __init__(self, root, profile):
        self.root, self.profile = root, profile
        self.tools = root / "tools"
        self.ran = 0

    def inside(self, stage, path):
        return self.root / stage / path.lstrip("/")

    def build(self, stages, name):
        env = os.environ | {"CARGO_INSTALL_ROOT": str(self.tools), "PATH": f"{self.tools}/bin:{os.environ['PATH']}"}
        cwd = self.inside(name, "/")
        cwd.mkdir(parents=True, exist_ok=True)
        for stage in dockerfile.chain(stages, name):
            for word, rest in stage.steps:
                if word == "WORKDIR":
                    cwd = self.inside(name, rest)
                    cwd.mkdir(parents=True, exist_ok=True)
                elif word == "ARG":
                    key, value = rest.split("=", 1)
                    env.setdefault(key, value)
                elif word == "ENV":
                    env |= variables(rest, env)
                elif word == "COPY":
                    self.copy(rest, cwd)
                elif word == "RUN":
                    self.command(rest, cwd, env)

    def copy(self, rest, cwd):
        if rest == ". .":
            return context(cwd)
        source, path, target = rest.split()
        stage = source.removeprefix("--from=")
        if self.inside(stage, "/").exists():
            shutil.copy2(self.inside(stage, path), cwd / target)

    def command(self, command, cwd, env):
        if command.startswith(SYSTEM):
            print(f"images: left to the base image: {command}", flush=True)
            return
        if "cargo install" in command and (self.tools / "bin/cargo-chef").exists():
            return
        if self.profile != "release":
            command = command.replace("--release", f"--profile {self.profile}")
        print(f"images: {command}", flush=True)
        subprocess.run(["bash", "-euc", command], cwd=cwd, env=env, check=True)
        self.ran += 1

    def result(self, final):
        """Starts the program as the image would: as its user, with its variables."""
        [(stage, path)] = [
            (rest.split()[0].removeprefix("--from="), rest.split()[1])
            for rest in final.all("COPY") if "/src/target/release/" in rest
        ]
        folder = {"dev": "debug"}.get(self.profile, self.profile)
        program = self.inside(stage, path.replace("/release/", f"/{folder}/"))
        user, group = final.last("USER").split(":")
        with tempfile.TemporaryDirectory() as place:
            copied = shutil.copy2(program, place)
            os.chmod(place, 0o755)
            words = [copied, "--version"]
            if os.geteuid() == 0:
                words = ["setpriv", "--reuid", user, "--regid", group, "--clear-groups", *words]
            env = {"PATH": os.environ["PATH"], "LD_LIBRARY_PATH": place, **final.environment()}
            cuda_libraries(program, pathlib.Path(place))
            return subprocess.run(words, cwd="/tmp", env=env, check=True, capture_output=True, text=True).stdout.strip()


def cuda_libraries(program, target):
    """Copies NVIDIA's libraries that a program is linked with, and those they need, to where its user may read
    them; for the driver, a stub without a device. Refuses one that the runtime image does not have."""
    if "CUDA_HOME" not in os.environ:
        return
    toolkit = pathlib.Path(os.environ["CUDA_HOME"]) / "lib64"
    todo = [program]
    while todo:
        read = subprocess.run(["readelf", "--dynamic", todo.pop()], check=True, capture_output=True, text=True).stdout
        for name in re.findall(r"\(NEEDED\).*\[(.+)\]", read):
            stem = name.split(".so")[0]
            if stem in DRIVER:
                shutil.copy2(toolkit / f"stubs/{stem}.so", target / name)
            elif (toolkit / name).exists() and not (target / name).exists():
                if stem not in RUNTIME:
                    sys.exit(f"images: {program.name} needs {name}, which the runtime image does not have")
                print(f"images: {program.name} needs {name}", flush=True)
                shutil.copy2(toolkit / name, target / name)
                todo.append(toolkit / name)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", choices=[path.suffix[1:] for path in sorted((REPOSITORY / "deploy").glob("Dockerfile.*"))])
    parser.add_argument("--folder", type=pathlib.Path, help="kept, so that a second run is quick; a fresh one by default")
    parser.add_argument("--profile", default="release", help="another cargo profile instead of release")
    arguments = parser.parse_args()
    stages = dockerfile.parse((REPOSITORY / f"deploy/Dockerfile.{arguments.image}").read_text())
    with tempfile.TemporaryDirectory(prefix="bakeoff-image-") as fresh:
        machine = Machine((arguments.folder or pathlib.Path(fresh)).resolve(), arguments.profile)
        for name in "plan", "build":
            machine.build(stages, name)
        print(f"images: {arguments.image}: {machine.ran} commands ran; the program says: {machine.result(stages[-1])}")


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"images: {error}")
