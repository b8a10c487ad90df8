//! The command line: one file a command, each with its options and what it does.
//!
//! - [`run`]: serve the queue · [`doctor`]: what works here · [`mod@bench`]: the engine's speed
//! - [`generate`]: one generation · [`fetch`]: models into the cache · `completions`
//! - `device`: the option that several take

pub mod bench;
mod completions;
mod device;
pub mod doctor;
pub mod fetch;
pub mod generate;
pub mod run;

use std::future::Future;

use bakeoff_proto::exit::Exit;
use bakeoff_transport::logging::LogArgs;
use clap::{CommandFactory, Parser, Subcommand};

use crate::error::CommandError;

/// Serves a queue of generations on this machine.
#[derive(Debug, Parser)]
#[command(name = "worker", version = bakeoff_version::BUILD, propagate_version = true)]
pub struct Cli {
    /// How log lines look.
    #[command(flatten)]
    pub logging: LogArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands of `worker`.
#[derive(Debug, Subcommand)]
pub enum Command {
    Run(run::RunArgs),
    Doctor(doctor::DoctorArgs),
    Bench(bench::BenchArgs),
    Generate(Box<generate::GenerateArgs>),
    Fetch(fetch::FetchArgs),
    Completions(completions::CompletionsArgs),
}

impl Command {
    /// Runs the command to its end.
    ///
    /// # Errors
    /// Whatever kept it from its end; [`CommandError::exit`] has the exit code.
    pub fn execute(self) -> Result<Exit, CommandError> {
        match self {
            Self::Run(args) => on_runtime(run::execute(args)),
            Self::Doctor(args) => on_runtime(doctor::execute(args)),
            Self::Bench(args) => bench::execute(args),
            Self::Generate(args) => generate::execute(*args),
            Self::Fetch(args) => fetch::execute(&args),
            Self::Completions(args) => {
                completions::execute(&args, Cli::command());
                Ok(Exit::Success)
            }
        }
    }
}

fn on_runtime(
    command: impl Future<Output = Result<Exit, CommandError>>,
) -> Result<Exit, CommandError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| CommandError::System { what: "cannot start the runtime", source })?;
    let outcome = runtime.block_on(command);
    // A generation that hangs would keep the runtime, and so the process, alive.
    runtime.shutdown_background();
    outcome
}

/// The command line, for completions and the configuration reference.
pub fn command_line() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command_line().debug_assert();
    }

    #[test]
    fn no_secret_shows_in_the_parsed_command_line() {
        let words = ["worker", "run", "--nats", "nats://u:hunter2@b", "--nats-password", "hunter2"];
        let shown = format!("{:?}", Cli::try_parse_from(words).unwrap());
        assert!(shown.contains("nats://b") && !shown.contains("hunter2"), "{shown}");
    }
}
