//! Checks that `cuda/abi.h` is what `src/abi` describes.
//!
//! With the feature `cuda`: compiles `cuda/*.cu` to machine code for sm_90a with nvcc (from `NVCC`,
//! `CUDA_HOME` or the PATH) and links them with the CUDA runtime.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

// The description of what host and device share, compiled into this script too: its offsets are
// those that the compiler gives the crate's structs.
#[allow(dead_code, unused_imports, reason = "the script only describes")]
#[path = "src"]
mod shared {
    pub mod abi;
    pub mod describe;
    pub mod limits;
    pub mod plan;
    pub mod ptr;
}
use shared::{abi, describe, limits, ptr};

/// Stands for `half::bf16`: two bytes.
#[allow(non_camel_case_types, dead_code, reason = "named as the crate's")]
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct bf16(u16);

const HEADERS: &[&str] = &[
    "abi.h",
    "mma.cuh",
    "wgmma.cuh",
    "copies.cuh",
    "common.cuh",
    "ring.cuh",
    "grid.cuh",
    "attend.cuh",
    "attend_tile.cuh",
    "softmax.cuh",
    "prepare_head.cuh",
    "choice.cuh",
];
const SOURCES: &[&str] = &[
    "attend_rows.cu",
    "few_rows.cu",
    "grouped.cu",
    "launch.cu",
    "rows.cu",
    "sample.cu",
    "step.cu",
    "util.cu",
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for name in HEADERS.iter().chain(SOURCES) {
        println!("cargo::rerun-if-changed=cuda/{name}");
    }
    for name in ["NVCC", "CUDA_HOME", "CUDA_PATH", "BAKEOFF_WRITE_ABI"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    println!("cargo::rerun-if-changed=src");
    check_header(Path::new("cuda/abi.h"));
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let nvcc = nvcc();
    let objects: Vec<PathBuf> =
        SOURCES.iter().map(|name| out.join(name).with_extension("o")).collect();
    let workers = thread::available_parallelism().map_or(1, usize::from).min(SOURCES.len());
    thread::scope(|scope| {
        let (nvcc, objects) = (&nvcc, &objects);
        for worker in 0..workers {
            scope.spawn(move || {
                for at in (worker..SOURCES.len()).step_by(workers) {
                    compile(nvcc, &Path::new("cuda").join(SOURCES[at]), &objects[at]);
                }
            });
        }
    });
    let library = out.join("libbakeoff_cuda.a");
    let _ = std::fs::remove_file(&library);
    run(Command::new("ar").arg("crs").arg(&library).args(&objects));
    println!("cargo::rustc-link-search=native={}", out.display());
    println!("cargo::rustc-link-lib=static=bakeoff_cuda");
    if let Some(home) = home() {
        for folder in ["lib64", "lib", "lib64/stubs", "lib/stubs"] {
            let folder = home.join(folder);
            if folder.is_dir() {
                println!("cargo::rustc-link-search=native={}", folder.display());
            }
        }
    }
    println!("cargo::rustc-link-lib=dylib=cudart");
}

/// The committed header is what the structs say, or is made so where `BAKEOFF_WRITE_ABI` is set.
fn check_header(path: &Path) {
    let header = abi::header();
    if std::fs::read_to_string(path).is_ok_and(|committed| committed == header) {
        return;
    }
    if env::var_os("BAKEOFF_WRITE_ABI").is_some() {
        std::fs::write(path, header).expect("cuda/abi.h can be written");
        return;
    }
    panic!(
        "worker/kernels/cuda/abi.h differs from what src/abi and src/limits.rs describe; write it \
         with BAKEOFF_WRITE_ABI=1 cargo check -p bakeoff-kernels, and commit it"
    );
}

fn home() -> Option<PathBuf> {
    env::var_os("CUDA_HOME").or_else(|| env::var_os("CUDA_PATH")).map(PathBuf::from)
}

fn nvcc() -> PathBuf {
    if let Some(path) = env::var_os("NVCC") {
        return path.into();
    }
    home().map(|home| home.join("bin/nvcc")).filter(|path| path.is_file()).unwrap_or("nvcc".into())
}

fn compile(nvcc: &Path, source: &Path, object: &Path) {
    run(Command::new(nvcc)
        .args(["-std=c++17", "-O3", "-gencode=arch=compute_90a,code=sm_90a", "-Xcompiler=-fPIC"])
        // Nothing of the C++ runtime may be needed: the final link is rustc's.
        .args(["-Xcompiler=-fno-exceptions,-fno-threadsafe-statics", "-c", "-o"])
        .arg(object)
        .arg(source));
}

fn run(command: &mut Command) {
    let shown = format!("{command:?}");
    match command.output() {
        Ok(output) if output.status.success() => {
            let said = String::from_utf8_lossy(&output.stderr);
            for line in said.lines().filter(|line| line.contains("warning")) {
                println!("cargo::warning={line}");
            }
        }
        Ok(output) => panic!("{shown} failed:\n{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => panic!(
            "{shown} could not be started ({error}); install a CUDA 13 toolkit, or run \
             `cargo xtask cuda-toolchain` and source the env file it names"
        ),
    }
}
