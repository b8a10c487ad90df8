//! Why a command failed, each cause with its type, and the exit code that follows from it.

use std::io;
use std::path::PathBuf;
use std::str::Utf8Error;

use bakeoff_engine::EngineError;
use bakeoff_engine::source::hub::HubError;
use bakeoff_proto::exit::Exit;
use bakeoff_proto::{Disposition, FailureKind};
use bakeoff_transport::queue::QueueError;
use bakeoff_transport::store::StoreError;

use crate::observe::ListenError;
use crate::serve::ServeError;

/// The error of any command.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// Options that make no sense; the text names the option, its value and what was expected.
    #[error("{0}")]
    Usage(String),
    #[error("--prompt-file {} cannot be read: {source}; name a readable file", .path.display())]
    PromptFile { path: PathBuf, source: io::Error },
    #[error(
        "--prompt-file {} is not UTF-8: {source}; save it as UTF-8",
        .path.display()
    )]
    PromptEncoding { path: PathBuf, source: Utf8Error },
    #[error("--model {model}: {} cannot be read: {source}", .path.display())]
    ModelFile { model: String, path: PathBuf, source: io::Error },
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("{model} on engine {engine}: {source}")]
    Bench { model: String, engine: &'static str, source: Box<EngineError> },
    #[error(transparent)]
    Hub(#[from] HubError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error("{what}: {source}")]
    System { what: &'static str, source: io::Error },
    #[error("cannot write to stdout: {0}")]
    Output(#[from] io::Error),
}

impl CommandError {
    /// What a command that failed so ends with.
    pub fn exit(&self) -> Exit {
        let bad_input = match self {
            Self::Usage(_)
            | Self::PromptFile { .. }
            | Self::PromptEncoding { .. }
            | Self::ModelFile { .. }
            | Self::Listen(_) => true,
            Self::Queue(error) | Self::Serve(ServeError::Queue(error)) => error.is_bad_input(),
            Self::Store(error) => error.is_bad_input(),
            Self::Engine(error) => is_bad_input(error.kind()),
            Self::Bench { source, .. } => is_bad_input(source.kind()),
            Self::Hub(error) => is_bad_input(error.kind()),
            Self::Serve(ServeError::Hung(_)) | Self::System { .. } | Self::Output(_) => false,
        };
        if bad_input { Exit::BadInput } else { Exit::Failure }
    }
}

/// Input that can never work; the rest is a failure.
fn is_bad_input(kind: FailureKind) -> bool {
    kind.disposition() == Disposition::Final && kind != FailureKind::NonFiniteLogits
}
