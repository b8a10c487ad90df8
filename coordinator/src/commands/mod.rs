//! The command line, one file a command.

mod cancel;
mod check;
mod collect;
mod compare;
mod delete;
mod export;
mod k8s_job;
mod plan;
mod retry;
mod review;
mod run;
mod shared;
mod status;
mod submit;
mod watch;

use bakeoff_transport::logging::LogArgs;
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::error::Error;
use bakeoff_proto::exit::Exit;

/// Compares models on code generation: runs a sweep over workers, collects, reports.
#[derive(Debug, Parser)]
#[command(name = "coordinator", version = bakeoff_version::BUILD, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    /// How to log.
    #[command(flatten)]
    pub logging: LogArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  coordinator run                               the demo: three tiny models on this machine
  coordinator run sweep.toml                    a sweep on this machine, results in ./bakeoff-results
  coordinator plan sweep.toml --gpu h100        what it needs, before anything runs
  coordinator submit sweep.toml --nats nats://broker:4222 --store s3://results
  coordinator watch my-sweep --nats nats://broker:4222 --store s3://results
  coordinator collect my-sweep --store s3://results

Exit codes: 0 success; 1 failure; 2 usage or bad input; 3 the sweep finished with failed cells.";

/// One command with its arguments.
#[derive(Debug, Subcommand)]
pub enum Command {
    Run(run::RunArgs),
    Plan(plan::PlanArgs),
    Submit(submit::SubmitArgs),
    Watch(watch::WatchArgs),
    Status(status::StatusArgs),
    Cancel(cancel::CancelArgs),
    Retry(retry::RetryArgs),
    Collect(collect::CollectArgs),
    Check(check::CheckArgs),
    Review(review::ReviewArgs),
    Compare(compare::CompareArgs),
    Export(export::ExportArgs),
    Delete(delete::DeleteArgs),
    K8sJob(k8s_job::K8sJobArgs),
    /// Print a completion script for a shell
    #[command(
        after_help = "Example:\n  coordinator completions bash > /etc/bash_completion.d/coordinator"
    )]
    Completions {
        shell: Shell,
    },
}

impl Command {
    /// Runs the command.
    pub async fn execute(self) -> Result<Exit, Error> {
        match self {
            Self::Run(args) => run::execute(args).await,
            Self::Plan(args) => plan::execute(args).await,
            Self::Submit(args) => submit::execute(args).await,
            Self::Watch(args) => watch::execute(args).await,
            Self::Status(args) => status::execute(args).await,
            Self::Cancel(args) => cancel::execute(args).await,
            Self::Retry(args) => retry::execute(args).await,
            Self::Collect(args) => collect::execute(args).await,
            Self::Check(args) => check::execute(args).await,
            Self::Review(args) => review::execute(args).await,
            Self::Compare(args) => compare::execute(args).await,
            Self::Export(args) => export::execute(args).await,
            Self::Delete(args) => delete::execute(args).await,
            Self::K8sJob(args) => k8s_job::execute(args).await,
            Self::Completions { shell } => {
                let name = "coordinator";
                clap_complete::generate(shell, &mut Cli::command(), name, &mut std::io::stdout());
                Ok(Exit::Success)
            }
        }
    }
}
