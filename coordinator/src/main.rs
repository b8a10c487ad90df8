//! `coordinator`: parse, log, execute one command, answer by exit code.

use std::process::ExitCode;

use bakeoff_coordinator::commands::Cli;
use bakeoff_coordinator::error;
use bakeoff_transport::logging;
use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    // Without RUST_LOG only warnings show: progress has a display of its own. What the broker's
    // library would log, the queue reports as an error or an event.
    let _logging = logging::start("bakeoff-coordinator", cli.logging, "warn,async_nats=off");
    let exit = cli.command.execute().await.unwrap_or_else(|error| {
        eprintln!("error: {}", error::chain(&error));
        error.exit()
    });
    exit.into()
}
