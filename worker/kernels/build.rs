//! With the feature `cuda`: compiles `cuda/*.cu` to machine code for sm_90a with nvcc (from `NVCC`,
//! `CUDA_HOME` or the PATH) and links them with the CUDA runtime.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

const HEADERS: &[&str] = &[
    "mma.cuh",
    "wgmma.cuh",
    "copies.cuh",
    "common.cuh",
    "layout.cuh",
    "ring.cuh",
    "grid.cuh",
    "attend.cuh",
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
    for name in ["NVCC", "CUDA_HOME", "CUDA_PATH"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
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
