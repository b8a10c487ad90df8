//! The worker: pull → load → generate → store → ack.
use std::process::ExitCode;

fn main() -> ExitCode {
    bakeoff_worker::cli::main()
}
