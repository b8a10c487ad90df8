//! Why a worker, or one of its jobs, does not go on.

use std::io;
use std::time::Duration;

use bakeoff_engine::EngineError;
use bakeoff_proto::FailureKind;
use bakeoff_transport::error::describe;
use bakeoff_transport::queue::QueueError;
use bakeoff_transport::store::StoreError;

use super::progress::Halt;

/// Why a worker left with an error.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error(
        "the generation did not move for {0:?} and cannot be interrupted; the worker leaves so \
         that a fresh one can take over"
    )]
    Hung(Duration),
}

/// Why a job does not go on here.
#[derive(Debug, thiserror::Error)]
pub(super) enum JobError {
    /// The model could not be opened, or a generation failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error("no thread could be started: {0}")]
    Thread(#[source] io::Error),
    #[error("the generating thread panicked; see the worker's log")]
    Panicked,
    #[error(
        "{fruitless} attempts in a row brought no new record; see the workers' logs for what ended \
         them"
    )]
    Exhausted { fruitless: u32 },
    /// The generation was stopped.
    #[error("stopped: {0:?}")]
    Halted(Halt),
    /// Another attempt was claimed: the job is no longer ours.
    #[error("another worker holds the job now")]
    Superseded,
    /// The sweep was deleted, or submitted anew, or is in another store.
    #[error(
        "the sweep that the job was published for is not in the store: it was deleted or submitted \
         anew, or this worker's --store is not the coordinator's"
    )]
    Withdrawn,
    /// The generating thread does not answer any more.
    #[error("the generation hangs")]
    Hung,
}

impl JobError {
    /// What failure files and events call it; it decides between a retry and an end.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Engine(error) => error.kind(),
            Self::Store(_) => FailureKind::Store,
            Self::Thread(_) | Self::Panicked => FailureKind::Device,
            Self::Exhausted { .. } => FailureKind::AttemptsExhausted,
            Self::Halted(Halt::Cancelled) => FailureKind::Cancelled,
            Self::Halted(Halt::Stalled) | Self::Hung => FailureKind::Stalled,
            Self::Queue(_) | Self::Halted(Halt::HandBack) | Self::Superseded | Self::Withdrawn => {
                FailureKind::Interrupted
            }
        }
    }

    /// The whole chain, as a person should read it.
    pub fn message(&self) -> String {
        describe(self)
    }
}
