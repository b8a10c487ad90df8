//! `coordinator`: parse, log, execute one command, answer by exit code.

use std::process::ExitCode;

use bakeoff_coordinator::commands::Cli;
use bakeoff_coordinator::{error, logging};
use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    logging::start(cli.log_format);
    match cli.command.execute().await {
        Ok(ending) => ExitCode::from(ending.code()),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(error::code(&error))
        }
    }
}
