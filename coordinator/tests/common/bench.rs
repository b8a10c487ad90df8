//! A broker, a folder as the store, and both programs beside them.

// Each test binary uses its own part of this.
#![allow(dead_code)]

use std::path::PathBuf;
use std::process::Command;

use bakeoff_transport::queue::nats::NatsQueue;
use bakeoff_test_servers::{NatsServer, Program};
use tempfile::TempDir;

use super::programs::{Ended, coordinator, run, worker};

/// A broker and a folder as the store.
pub struct Bench {
    pub server: NatsServer,
    pub folder: TempDir,
}

impl Bench {
    pub fn new() -> Self {
        Self {
            server: NatsServer::start(),
            folder: tempfile::tempdir().expect("a temporary folder can be made"),
        }
    }

    pub fn results(&self) -> PathBuf {
        self.folder.path().join("results")
    }

    /// A sweep file in the test's folder.
    pub fn sweep(&self, file: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(file);
        std::fs::write(&path, text).expect("the folder is writable");
        path
    }

    /// Either program with broker and store in its environment.
    pub fn at(&self, mut program: Command, args: &[&str]) -> Command {
        program.args(args).current_dir(self.folder.path()).env("NATS_URL", self.server.url());
        program.env("BAKEOFF_STORE", self.results());
        program
    }

    pub fn coordinator(&self, args: &[&str]) -> Command {
        self.at(coordinator(), args)
    }

    pub fn run(&self, args: &[&str]) -> Ended {
        run(&mut self.coordinator(args))
    }

    pub fn worker(&self, name: &str) -> Program {
        let args = ["run", "--name", name, "--heartbeat", "0.25"];
        Program::start(&mut self.at(worker(), &args))
    }

    pub async fn queue(&self) -> NatsQueue {
        NatsQueue::connect(&self.server.args()).await.expect("the broker answers")
    }
}
