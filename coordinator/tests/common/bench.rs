//! A broker, a store, and both programs beside them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bakeoff_proto::{JobEvent, JobPhase, SweepName};
use bakeoff_transport::queue::JobQueue;
use bakeoff_transport::queue::nats::NatsQueue;
use bakeoff_transport::test_servers::{NatsServer, Program};
use futures::StreamExt;
use futures::stream::BoxStream;
use tempfile::TempDir;

use super::programs::{Ended, LIMIT, coordinator, run, worker};

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

    /// `coordinator ARGS` with broker and store in its environment.
    pub fn coordinator(&self, args: &[&str]) -> Command {
        let mut command = coordinator();
        command.args(args).current_dir(self.folder.path()).env("NATS_URL", self.server.url());
        command.env("BAKEOFF_STORE", self.results());
        command
    }

    pub fn run(&self, args: &[&str]) -> Ended {
        run(&mut self.coordinator(args))
    }

    pub fn worker(&self, name: &str) -> Program {
        let mut command = worker();
        command.args(["run", "--name", name, "--heartbeat", "0.25"]);
        command.env("NATS_URL", self.server.url()).env("BAKEOFF_STORE", self.results());
        Program::start(&mut command)
    }

    pub async fn queue(&self) -> NatsQueue {
        NatsQueue::connect(&self.server.args()).await.expect("the broker answers")
    }
}

/// The events of a sweep, as soon as a coordinator has laid out the queue.
pub async fn events(queue: &NatsQueue, sweep: &str) -> BoxStream<'static, JobEvent> {
    let sweep: SweepName = sweep.parse().expect("a name");
    let opened = async {
        loop {
            match queue.events(&sweep).await {
                Ok(events) => return events,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    tokio::time::timeout(LIMIT, opened).await.expect("the coordinator lays out the queue")
}

/// The next event whose phase is wanted.
pub async fn wait_for(
    events: &mut BoxStream<'static, JobEvent>,
    what: &str,
    wanted: impl Fn(&JobPhase) -> bool,
) -> JobEvent {
    let search = async {
        loop {
            let event = events.next().await.expect("the stream of events goes on");
            if wanted(&event.phase) {
                return event;
            }
        }
    };
    tokio::time::timeout(LIMIT, search).await.unwrap_or_else(|_| panic!("no event tells {what}"))
}

/// The first half of a cell is being generated; the warm-up asks for fewer tokens than `most`.
pub fn decoding(most: u32) -> impl Fn(&JobPhase) -> bool {
    move |phase| {
        matches!(phase, JobPhase::Decoding { tokens, max_tokens, .. }
            if *max_tokens == most && tokens * 2 < most)
    }
}

/// Files below a folder that end so.
pub fn files(folder: &Path, ending: &str) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries
        .filter(|entry| {
            let name = entry.as_ref().expect("the folder can be read").file_name();
            name.to_string_lossy().ends_with(ending)
        })
        .count()
}
