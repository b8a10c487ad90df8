//! A CUDA toolkit for a machine without one: enough to compile and link.

use std::env;
use std::path::{Path, PathBuf};

use crate::process::{Result, home, program};

/// Where the toolkit lies: as asked for, by `BAKEOFF_CUDA_DIR`, or in the home folder.
pub fn folder(asked: Option<PathBuf>) -> Result<PathBuf> {
    match asked.or_else(|| env::var_os("BAKEOFF_CUDA_DIR").map(PathBuf::from)) {
        Some(folder) => Ok(std::path::absolute(folder)?),
        None => Ok(home()?.join(".cache/bakeoff-cuda")),
    }
}

pub fn lay_out(folder: &Path, flash_attn: bool) -> Result {
    program(".dev/scripts/cuda-toolchain.sh")
        .args(flash_attn.then_some("--flash-attn"))
        .arg(folder)
        .run()
}

/// The variables that builds for CUDA need: none where `CUDA_HOME` names a toolkit, else those of
/// one that is laid out first. `NVCC` stays what it is, so that it may name a compiler that caches.
pub fn variables(flash_attn: bool) -> Result<Vec<(String, String)>> {
    if env::var_os("CUDA_HOME").is_some_and(|home| !home.is_empty()) {
        return Ok(Vec::new());
    }
    let folder = folder(None)?;
    lay_out(&folder, flash_attn)?;
    let (set, _) = program("bash")
        .args([
            "-euc",
            r#"compiler=${NVCC:-}; source "$0/env"; export NVCC=${compiler:-$NVCC}; env -0"#,
        ])
        .arg(folder)
        .output()?;
    Ok(set
        .split_terminator('\0')
        .filter_map(|line| line.split_once('='))
        .map(|(n, v)| (n.into(), v.into()))
        .collect())
}
