//! Both programs as processes: started, run to their end, and what they wrote.

// Each test binary uses its own part of this.
#![allow(dead_code)]

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use bakeoff_test_servers::{Program, program_beside};
use serde_json::Value;

/// Every wait ends by its condition; this only bounds a test that fails.
pub const LIMIT: Duration = Duration::from_secs(120);

/// A program of ours with nothing in its environment but what a test puts there.
pub fn coordinator() -> Command {
    clean(env!("CARGO_BIN_EXE_coordinator").into())
}

/// The other crate's program lies beside ours.
pub fn worker() -> Command {
    let own = env!("CARGO_BIN_EXE_coordinator");
    clean(program_beside(own, "worker", "bakeoff-worker"))
}

fn clean(program: PathBuf) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("HF_HUB_OFFLINE", "1").env("NO_COLOR", "1");
    command
}

/// How a program ended and what it wrote.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// # Panics
    /// When it ended otherwise, showing what it wrote.
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.stdout, self.stderr);
        self
    }
}

/// Waits until a program has ended by itself.
pub fn ended(mut program: Program) -> Ended {
    let code = program.wait(LIMIT).code();
    Ended { code, stdout: program.stdout(), stderr: program.stderr() }
}

pub fn run(command: &mut Command) -> Ended {
    ended(Program::start(command))
}
