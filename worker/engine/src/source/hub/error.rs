//! What can go wrong on the way from a model's id to its files.

use std::io;
use std::path::{Path, PathBuf};

use bakeoff_proto::FailureKind;

use crate::EngineError;

/// Each message names the value at fault and the next step; [`HubError::kind`] says whether to retry.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    #[error(
        "`{0}` is not a hub id: write `owner/name`, `builtin:NAME`, or a folder that exists on this machine"
    )]
    BadId(String),
    #[error(
        "revision `{revision}` of {id} is not a branch, tag or commit: give one, `main` for instance"
    )]
    BadRevision { id: String, revision: String },
    #[error(
        "the hub's address `{endpoint}` cannot be used ({reason}): set HF_ENDPOINT to a URL such as https://huggingface.co"
    )]
    BadEndpoint { endpoint: String, reason: String },
    #[error(
        "{endpoint} has no model `{id}` that this machine may see: check the id; a private or gated model needs HF_TOKEN{token_hint}"
    )]
    NoSuchModel { id: String, endpoint: String, token_hint: &'static str },
    #[error(
        "`{id}` is gated: accept its terms at {endpoint}/{id}, then set HF_TOKEN to a token of that account{token_hint}"
    )]
    Gated { id: String, endpoint: String, token_hint: &'static str },
    #[error(
        "`{id}` has no revision `{revision}`: give a branch, tag or commit that {endpoint}/{id} lists"
    )]
    NoSuchRevision { id: String, revision: String, endpoint: String },
    #[error("`{id}` at {commit} has no `{file}`: {next_step}")]
    NoSuchFile { id: String, commit: String, file: String, next_step: &'static str },
    #[error(
        "`{id}` at {commit} holds no safetensors weights (it has {found}): choose a repository with safetensors; other formats can run code and are not read"
    )]
    NoSafetensors { id: String, commit: String, found: String },
    #[error(
        "{file} of `{id}` is not a valid index of weights ({reason}): ask for another revision"
    )]
    BadIndex { id: String, file: String, reason: String },
    #[error(
        "HF_HUB_OFFLINE is set and {cache} lacks {what} of `{id}` at `{revision}`: unset it, or fill the cache on a machine that reaches the hub"
    )]
    NotCached { id: String, revision: String, what: String, cache: PathBuf },
    #[error(
        "{endpoint} did not answer for `{id}`: {reason}. Check the network and HF_ENDPOINT; HF_HUB_OFFLINE=1 uses what the cache holds"
    )]
    Unreachable { id: String, endpoint: String, reason: String },
    #[error(
        "the download of {file} of `{id}` broke off {tries} times in a row at {received} of {size} bytes: {reason}. What came is kept and resumed"
    )]
    BrokenOff { id: String, file: String, tries: u32, received: u64, size: u64, reason: String },
    #[error(
        "{file} of `{id}` came damaged twice: {what}. The hub or a proxy in between delivers wrong bytes"
    )]
    Damaged { id: String, file: String, what: String },
    #[error(
        "{folder} has {free_bytes} bytes free and `{id}` still needs {needed_bytes}: free space there, or set HF_HOME to a larger disk"
    )]
    DiskFull { id: String, folder: PathBuf, free_bytes: u64, needed_bytes: u64 },
    #[error(
        "cannot write {path} ({reason}; {free_bytes} bytes free, {needed_bytes} still needed): make the folder writable, free space, or set HF_HOME elsewhere"
    )]
    Unwritable { path: PathBuf, reason: io::Error, free_bytes: u64, needed_bytes: u64 },
    #[error("the download of `{0}` was abandoned")]
    Abandoned(String),
}

impl HubError {
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::BadId(_)
            | Self::BadRevision { .. }
            | Self::NoSuchModel { .. }
            | Self::Gated { .. }
            | Self::NoSuchRevision { .. }
            | Self::NoSuchFile { .. }
            | Self::NotCached { .. } => FailureKind::ModelNotFound,
            Self::NoSafetensors { .. } | Self::BadIndex { .. } => FailureKind::BadWeights,
            Self::BadEndpoint { .. } => FailureKind::InvalidRequest,
            Self::Unreachable { .. } | Self::BrokenOff { .. } | Self::Damaged { .. } => {
                FailureKind::Download
            }
            Self::DiskFull { .. } | Self::Unwritable { .. } => FailureKind::Disk,
            Self::Abandoned(_) => FailureKind::Interrupted,
        }
    }

    pub(super) fn unwritable(path: &Path, reason: io::Error, needed_bytes: u64) -> Self {
        Self::Unwritable {
            path: path.to_owned(),
            reason,
            free_bytes: super::cache::free_bytes(path).unwrap_or(0),
            needed_bytes,
        }
    }
}

impl From<HubError> for EngineError {
    fn from(error: HubError) -> Self {
        Self::new(error.kind(), error.to_string())
    }
}
