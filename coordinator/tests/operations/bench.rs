//! Both programs, run to their end.

use std::path::{Path, PathBuf};
use std::process::Command;

use bakeoff_transport::test_servers::NatsServer;
use tempfile::TempDir;

/// A program of ours with nothing in its environment but what a test puts there.
pub fn coordinator() -> Command {
    clean(env!("CARGO_BIN_EXE_coordinator").into())
}

/// The other crate's program lies beside ours.
pub fn worker() -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_coordinator")).with_file_name("worker");
    assert!(
        program.exists(),
        "{} is missing: build it with `cargo build -p bakeoff-worker`; `cargo test --workspace` does so by itself",
        program.display()
    );
    clean(program)
}

fn clean(program: PathBuf) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("HF_HUB_OFFLINE", "1");
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
    /// # Panics
    /// When it ended otherwise, showing what it wrote.
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.stdout, self.stderr);
        self
    }
}

pub fn run(command: &mut Command) -> Ended {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes| String::from_utf8(bytes).expect("programs write UTF-8");
    Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// A broker, and a folder as the store.
pub struct Bench {
    pub broker: NatsServer,
    pub folder: TempDir,
}

impl Bench {
    pub fn new(sweep: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        std::fs::write(folder.path().join("sweep.toml"), sweep).expect("the folder is writable");
        Self { broker: NatsServer::start(), folder }
    }

    /// Either program with broker and store in its environment.
    pub fn at(&self, mut program: Command, args: &[&str]) -> Command {
        program.args(args).current_dir(self.folder.path()).env("NATS_URL", self.broker.url());
        program.env("BAKEOFF_STORE", self.folder.path().join("results"));
        program
    }
}
