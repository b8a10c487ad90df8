"""nats-server and SeaweedFS for tests, fetched by pip into ~/.cache/bakeoff: the same versions, digests
and folders that the Rust tests use, which say them (worker/transport/src/test_servers/fetch.rs)."""
import os
import pathlib
import re
import subprocess
import sys
import tempfile

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
PINS = REPOSITORY / "worker/transport/src/test_servers/fetch.rs"


def cache():
    return pathlib.Path(os.environ.get("BAKEOFF_TEST_CACHE") or pathlib.Path.home() / ".cache/bakeoff")


def server(program):
    """The path of `nats-server` or `weed`."""
    pins = re.findall(
        r'package: "([^"]+)",\s+version: "([^"]+)",\s+file: "([^"]+)",\s+digests: &\[([^\]]*)\]',
        PINS.read_text(),
    )
    [(package, version, digests)] = [(p, v, d) for p, v, file, d in pins if file == f"bin/{program}"]
    folder = cache() / f"{package}-{version}"
    if not (folder / "bin" / program).exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as staging:
            hashes = "".join(f" --hash=sha256:{digest}" for digest in re.findall(r'"([0-9a-f]{64})"', digests))
            requirements = pathlib.Path(staging, "requirements.txt")
            requirements.write_text(f"{package}=={version}{hashes}\n")
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            pip += ["--no-deps", "--only-binary=:all:", "--require-hashes", "--target", f"{staging}/tree"]
            subprocess.run([*pip, "--requirement", requirements], check=True)
            # Renamed when whole, so that nobody ever sees half a program.
            os.rename(f"{staging}/tree", folder)
    return folder / "bin" / program
