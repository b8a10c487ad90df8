//! `cargo xtask test`: everything that must hold before a change lands.
//!
//! Needs a Rust toolchain, a C compiler and Python 3 with pip. Whatever else the tests use
//! (nats-server, SeaweedFS, ...) they fetch by themselves, pinned; programs of Debian are installed
//! where they are missing.

use std::env;
use std::time::Instant;

use crate::process::{Result, cargo, install, is_installed, program};
use crate::{dependencies, deployment, kernels, release, unused};

pub fn formatting() -> Result {
    cargo(["fmt", "--all", "--check"]).run()
}

pub fn lints() -> Result {
    unused::check()?;
    cargo(["clippy", "--locked", "--workspace", "--all-targets", "--", "--deny", "warnings"]).run()
}

pub fn run() -> Result {
    let begin = Instant::now();
    let step = |name: &str| println!("\n== {name} ({}s)", begin.elapsed().as_secs());

    let namespaces = with_namespaces()?;
    if !is_installed("bwrap") {
        step("bubblewrap, the sandbox of coordinator check");
        install("bwrap", "bubblewrap")?;
    }
    step("formatting");
    formatting()?;
    step("lints");
    lints()?;
    step("dependencies: licences, bans, sources");
    dependencies::deny(false)?;
    step("workflows");
    release::workflows()?;
    step("CUDA kernels: type check and machine code for sm_90a");
    kernels::check()?;
    step("tests");
    install("openssl", "openssl")?;
    if env::var_os("CHROMIUM").is_none() {
        install("chromium", "chromium").map_err(|error| {
            format!("the pages are tested in Chromium; or name a browser in CHROMIUM: {error}")
        })?;
    }
    cargo(["test", "--locked", "--workspace"]).run()?;
    step("deployment: manifests, images, compose file, runbook");
    deployment::manifests(false)?;
    step("deployment: a sweep through it, as plain processes");
    deployment::topology(None)?;
    step("deployment: a sweep through it, on five hosts");
    if namespaces {
        install("ip", "iproute2")?;
        deployment::namespaces(None)?;
    }
    step("deployment: a sweep through it, in containers of the images");
    if namespaces {
        deployment::containers()?;
    }
    step("done");
    if !namespaces {
        println!(
            "NOT RUN: cargo xtask namespaces and images, the sweeps on five hosts and in \
             containers (BAKEOFF_SKIP_NAMESPACES=1)"
        );
    }
    Ok(())
}

/// Whether to run the sweeps on five hosts and in containers. Asked first, so that nobody waits for
/// every other test to learn that they cannot run.
fn with_namespaces() -> Result<bool> {
    if env::var_os("BAKEOFF_SKIP_NAMESPACES").is_some_and(|value| value == "1") {
        return Ok(false);
    }
    program("unshare").args(["--net", "true"]).output().map_err(|error| {
        format!(
            "the sweeps on five hosts and in containers cannot run here: they need root and the \
             right to make network namespaces.\n\
             Run as root (in a container: with CAP_SYS_ADMIN and CAP_NET_ADMIN), or set \
             BAKEOFF_SKIP_NAMESPACES=1 to leave them out.\n{error}"
        )
    })?;
    Ok(true)
}
