"""Builds the images of deploy/ with buildah, and runs deploy/compose.yaml's services from them as
containers with podman: the demo sweep passes between broker, store, coordinator and worker, each
without any right.

    images.py [--programs DIR] [--build-only] --nats-server PATH --weed PATH [IMAGE...]

IMAGE: coordinator, worker-cpu or worker-cuda; the first two by default. No registry is asked:
the bases are made here (bases.py). --programs DIR builds the images' last stages alone around
the programs of that folder, in seconds instead of the minutes that a release build takes. Needs
root."""

import argparse
import csv
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import bases
from compose import Failed, wait_until
from containers import Containers
from servers import REPOSITORY

USER = 10001
CELLS = 12
GRACE_SECONDS = 60
PROGRAM = {"coordinator": "coordinator", "worker-cpu": "worker", "worker-cuda": "worker"}
CONFINED = {
    "user": str(USER),
    "capabilities": 0,
    "no new privileges": True,
    "seccomp filter": True,
    "read-only root": True,
}


def expect(holds, what):
    if not holds:
        raise Failed(what)


def commit():
    words = ["git", "describe", "--always", "--abbrev=12", "--dirty", "--exclude=*"]
    return subprocess.run(
        words, cwd=REPOSITORY, check=True, capture_output=True, text=True
    ).stdout.strip()


def cache():
    folder = (
        pathlib.Path(os.environ.get("BAKEOFF_TEST_CACHE") or pathlib.Path.home() / ".cache/bakeoff")
        / "images"
    )
    for name in "target", "registry":
        (folder / name).mkdir(parents=True, exist_ok=True)
    return folder


def cuda_toolkit():
    folder = pathlib.Path(
        os.environ.get("BAKEOFF_CUDA_DIR") or pathlib.Path.home() / ".cache/bakeoff-cuda"
    )
    subprocess.run([REPOSITORY / ".dev/scripts/cuda-toolchain.sh", folder], check=True)
    return folder


def build(image):
    """Every stage, from the working tree. What cargo made and fetched is kept outside the
    layers. The GPU worker is built without FlashAttention, whose kernels take hours."""
    print(f"images: building {image}", flush=True)
    name, kept = f"localhost/bakeoff-test/{image}", cache()
    words = ["buildah", "build", "--isolation", "chroot", "--layers", "--tag", name]
    words += [
        "--volume",
        f"{kept}/target:/src/target",
        "--volume",
        f"{kept}/registry:/usr/local/cargo/registry",
    ]
    words += [
        "--build-arg",
        f"RUST_IMAGE={bases.rust()}",
        "--build-arg",
        f"BAKEOFF_COMMIT={commit()}",
    ]
    if image == "worker-cuda":
        toolkit = cuda_toolkit()
        words += [
            "--build-arg",
            f"CUDA_IMAGE={bases.cuda(toolkit)}",
            "--build-arg",
            "FEATURES=cuda",
        ]
        words += ["--build-arg", f"RUNTIME_IMAGE={bases.cuda_runtime(toolkit)}"]
    else:
        words += ["--build-arg", f"RUNTIME_IMAGE={bases.runtime()}"]
    with tempfile.TemporaryDirectory() as context:
        tracked = subprocess.run(
            ["git", "ls-files", "-z"], cwd=REPOSITORY, check=True, capture_output=True
        ).stdout
        for path in map(os.fsdecode, filter(None, tracked.split(b"\0"))):
            if (REPOSITORY / path).is_file():
                (pathlib.Path(context) / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(REPOSITORY / path, pathlib.Path(context) / path)
        subprocess.run(
            [*words, "--file", f"deploy/Dockerfile.{image}", "."], cwd=context, check=True
        )
    return name


def assemble(image, programs):
    """The last stage alone, around a program that is there already."""
    name, program = f"localhost/bakeoff-test/{image}", PROGRAM[image]
    text = (REPOSITORY / f"deploy/Dockerfile.{image}").read_text()
    last = text[text.rindex("\nFROM ") :]
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        built, licences = folder / "build", folder / "licences"
        for path in built / "usr/local/bin", built / "etc/ssl/certs", licences / "src":
            path.mkdir(parents=True)
        shutil.copy2(programs / program, built / "usr/local/bin" / program)
        shutil.copy2(bases.CERTIFICATES, built / "etc/ssl/certs")
        for file in "LICENSE", "NOTICE":
            shutil.copy2(REPOSITORY / file, licences / "src")
        (licences / "src/THIRD-PARTY.txt").write_text(
            "Made by the stage `licences`, which this build leaves out.\n"
        )
        (folder / "Dockerfile").write_text(f"ARG RUNTIME_IMAGE\n{last}")
        words = ["buildah", "build", "--isolation", "chroot", "--quiet", "--tag", name]
        words += ["--build-context", f"build={built}", "--build-context", f"licences={licences}"]
        words += [
            "--build-arg",
            f"RUNTIME_IMAGE={bases.runtime()}",
            "--build-arg",
            f"BAKEOFF_COMMIT={commit()}",
        ]
        subprocess.run([*words, str(folder)], check=True, stdout=subprocess.DEVNULL)
    return name


def data(folder):
    """What the compose file's first lines have a user make, and the files that it mounts."""
    for name in "nats", "store", "models":
        (folder / "data" / name).mkdir(parents=True)
    shutil.copy2(REPOSITORY / "deploy/nats.conf", folder)
    make = [REPOSITORY / "deploy/make-secrets.sh", folder / "secrets", "localhost", "nats"]
    subprocess.run(make, check=True, capture_output=True, text=True)
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, USER, USER)


def run(images, folder):
    begin = time.monotonic()
    data(folder)
    variables = {"BAKEOFF_UID": str(USER), "BAKEOFF_GID": str(USER)}
    with Containers(REPOSITORY / "deploy/compose.yaml", folder, images, variables) as containers:
        for service in "nats", "store":
            containers.start(service)
        for service in "nats", "store":
            wait_until(f"{service} is healthy", lambda: containers.healthy(service))
        containers.start("worker-cpu")

        builds = {
            image: containers.run(image, "--version")[1].strip()
            for image in ("coordinator", "worker-cpu")
        }
        code, told, log = containers.run("coordinator", "run")
        expect(
            code == 0,
            f"coordinator run: exit code {code}\n{told}{log}\n{containers.log('worker-cpu')}",
        )
        expect(f"demo: {CELLS} of {CELLS} done" in told, f"the sweep's last words: {told}")

        for service in containers.started:
            found = containers.confinement(service)
            expect(found == CONFINED, f"{service} is confined thus: {found}")

        out = folder / "out"
        out.mkdir()
        os.chown(out, USER, USER)
        code, _, log = containers.run(
            "coordinator", "export", "demo", "/out/demo", volume=f"{out}:/out"
        )
        expect(code == 0, f"coordinator export: exit code {code}\n{log}")
        [table] = out.rglob("demo_summary.csv")
        with open(table) as file:
            rows = list(csv.DictReader(file))
        expect(
            len(rows) == CELLS and all(row["status"] == "done" for row in rows), f"{table}: {rows}"
        )

        code = containers.stop("worker-cpu", GRACE_SECONDS)
        expect(code != 137, f"the worker did not end within {GRACE_SECONDS} s of SIGTERM")
    for image, build in builds.items():
        print(f"images: {image} says {build}")
    print(
        f"images: {', '.join(containers.started)} ran as user {USER}, with a read-only root, "
        "a seccomp filter, no capabilities and no new privileges"
    )
    print(
        f"images: demo: {len(rows)} of {CELLS} done, "
        f"{time.monotonic() - begin:.0f} s from secrets to exit"
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", nargs="*", metavar="IMAGE", default=["coordinator", "worker-cpu"])
    parser.add_argument("--programs", type=pathlib.Path, metavar="DIR")
    parser.add_argument("--build-only", action="store_true")
    parser.add_argument("--nats-server", type=pathlib.Path, required=True, metavar="PATH")
    parser.add_argument("--weed", type=pathlib.Path, required=True, metavar="PATH")
    arguments = parser.parse_args()
    if unknown := [image for image in arguments.images if image not in PROGRAM]:
        parser.error(f"unknown image {unknown[0]}: expected one of {', '.join(PROGRAM)}")
    made = {
        image: assemble(image, arguments.programs) if arguments.programs else build(image)
        for image in arguments.images
    }
    if arguments.build_only:
        return
    if missing := {"coordinator", "worker-cpu"} - made.keys():
        parser.error(f"the sweep needs the image {missing.pop()} too, or --build-only")
    made |= {
        "nats": bases.server("nats-server", arguments.nats_server),
        "store": bases.server("weed", arguments.weed),
    }
    with tempfile.TemporaryDirectory(prefix="bakeoff-images-") as folder:
        run(made, pathlib.Path(folder))


if __name__ == "__main__":
    try:
        main()
    except (Failed, subprocess.CalledProcessError) as error:
        # A podman command's own message is not in the error's.
        sys.exit(f"images: {error}\n{getattr(error, 'stderr', None) or ''}")
