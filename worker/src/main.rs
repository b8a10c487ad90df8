//! `worker`: parse, log, run one command, answer by exit code.

use std::process::ExitCode;

use bakeoff_transport::error::describe;
use bakeoff_transport::logging;
use bakeoff_worker::commands::Cli;
use clap::Parser;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let _logging = logging::start("bakeoff-worker", cli.logging, "info,async_nats=off");
    let exit = cli.command.execute().unwrap_or_else(|error| {
        eprintln!("error: {}", describe(&error));
        error.exit()
    });
    exit.into()
}
