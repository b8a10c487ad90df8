//! What developers of Bakeoff run, in one place: `cargo xtask` lists the tasks.
//!
//! - `suite`: everything that must hold before a change lands
//! - `kernels`: what can be checked of the CUDA code without a GPU
//! - `dependencies`: licences, banned crates, sources
//! - `deployment`: the manifests, and a sweep through the deployment as plain processes
//! - `release`: the licences of what is shipped, and the workflows that ship it
//! - `cuda`: a CUDA toolkit for a machine without one
//! - `unused`: dependencies that nothing uses
//! - `pip`: programs that are fetched, pinned
//! - `process`: starting programs, from the root of the repository

mod cuda;
mod dependencies;
mod deployment;
mod kernels;
mod pip;
mod process;
mod release;
mod suite;
mod unused;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use process::{Result, cargo, program};

/// What developers of Bakeoff run.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    task: Option<Task>,
}

#[derive(Subcommand)]
enum Task {
    /// Format all Rust code
    Fmt {
        /// Change nothing, fail where something is not formatted
        #[arg(long)]
        check: bool,
    },
    /// Lint all Rust code, and find dependencies that nothing uses; a warning fails
    Lint,
    /// Run everything that must hold before a change lands, every test included
    Test,
    /// Compile the CUDA kernels and lint what launches them, without a GPU
    Kernels,
    /// Check licences, banned crates and sources of all dependencies, by deny.toml
    Deny {
        /// The RustSec database too, which needs github.com
        #[arg(long)]
        advisories: bool,
    },
    /// Write deploy/CONFIGURATION.md anew after a change of options, variables or metrics
    Reference,
    /// Check the Kubernetes manifests, k8s/rendered and the files of deploy/
    Manifests {
        /// Render them anew first
        #[arg(long)]
        update: bool,
    },
    /// Run a sweep through what deploy/compose.yaml describes, as plain processes
    Topology {
        /// Folder with the programs; the build folder of `cargo build --workspace` by default
        bin: Option<PathBuf>,
    },
    /// Run the same on five hosts, by network namespaces: needs root and iproute2
    Namespaces {
        /// Folder with the programs; the build folder of `cargo build --workspace` by default
        bin: Option<PathBuf>,
    },
    /// Build the images, without a registry, and run the demo sweep through containers of them:
    /// needs root
    Images {
        /// Options of .dev/scripts/deployment/images.py; `--help` lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// List the licences of what is linked into the programs; about.toml says which are accepted
    Licences {
        /// Gets the lists; without it they are made and checked only
        out: Option<PathBuf>,
    },
    /// Check .github/workflows
    Workflows,
    /// Lay out a CUDA toolkit for a machine that has none
    CudaToolchain {
        /// The CUTLASS headers too, which FlashAttention needs
        #[arg(long)]
        flash_attn: bool,
        /// Where; ~/.cache/bakeoff-cuda by default
        dir: Option<PathBuf>,
    },
    /// Measure and check what only an H100 can show: correctness, speed, loading, peers
    GpuProof {
        /// Folder with `worker` and the tests `gpu` and `kernels`, built with cuda and flash-attn
        bin: PathBuf,
        /// Gets a log and the JSON of each step, and summary.json
        out: PathBuf,
        /// No step starts later than this
        #[arg(default_value = "560")]
        seconds: u32,
    },
    /// Run a whole sweep on a GPU machine without network
    GpuSweep {
        /// Folder with `worker` (cuda and flash-attn), `coordinator` and `nats-server`
        bin: PathBuf,
        /// Gets the logs, and results.tar from the object store
        out: PathBuf,
        /// The sweep file
        sweep: PathBuf,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Some(task) => run(task),
        None => Arguments::command().print_help().map_err(Into::into),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result {
    match task {
        Task::Fmt { check: false } => cargo(["fmt", "--all"]).run(),
        Task::Fmt { check: true } => suite::formatting(),
        Task::Lint => suite::lints(),
        Task::Test => suite::run(),
        Task::Kernels => kernels::check(),
        Task::Deny { advisories } => dependencies::deny(advisories),
        Task::Reference => {
            cargo(["test", "--package", "bakeoff-coordinator", "--test", "configuration"])
                .env("BAKEOFF_UPDATE_REFERENCE", "1")
                .run()
        }
        Task::Manifests { update } => deployment::manifests(update),
        Task::Topology { bin } => deployment::topology(bin),
        Task::Namespaces { bin } => deployment::namespaces(bin),
        Task::Images { arguments } => deployment::images(&arguments),
        Task::Licences { out } => release::licences(out),
        Task::Workflows => release::workflows(),
        Task::CudaToolchain { flash_attn, dir } => cuda::lay_out(&cuda::folder(dir)?, flash_attn),
        Task::GpuProof { bin, out, seconds } => {
            program(".dev/scripts/gpu-proof.sh").arg(bin).arg(out).arg(seconds.to_string()).run()
        }
        Task::GpuSweep { bin, out, sweep } => {
            program(".dev/scripts/gpu-sweep.sh").arg(bin).arg(out).arg(sweep).run()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
