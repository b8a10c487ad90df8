//! A broker and a folder for both programs.

use std::process::Command;

use bakeoff_transport::test_servers::NatsServer;
use tempfile::TempDir;

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
