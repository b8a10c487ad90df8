//! Why a command failed, each cause with its type: the exit code follows from it
//! ([`crate::exit::Exit::of`]).

use std::io;
use std::path::PathBuf;
use std::str::Utf8Error;

use bakeoff_engine::EngineError;
use bakeoff_engine::source::hub::HubError;
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
    Bench { model: String, engine: &'static str, source: EngineError },
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
