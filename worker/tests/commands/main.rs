//! The commands that need no queue, as a user runs them: output, messages and exit codes.
//!
//! - `generate`: what a generation prints; `refusals`: what it says when it cannot
//! - `doctor`: the machine, the broker, the store and the hub
//! - `models`: folders with models, whole and spoiled

mod doctor;
mod generate;
#[path = "../../engine/tests/loopback_hub/mod.rs"]
mod loopback_hub;
mod models;
mod refusals;

use std::path::Path;
use std::process::{Command, Output};

/// The program without anything from this machine's environment, and without a hub.
fn worker(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_worker"));
    command.args(args).env_clear().env("HF_HUB_OFFLINE", "1").env("HF_HOME", "/nowhere");
    command
}

/// What a run of the program came to.
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn ran(command: &mut Command) -> Ran {
    let Output { status, stdout, stderr } = command.output().expect("the worker starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Ran { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}
