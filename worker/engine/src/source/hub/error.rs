//! What can go wrong on the way from a model's id to its files.

use std::io;
use std::path::{Path, PathBuf};

use bakeoff_proto::FailureKind;

use super::disk::free_bytes;

/// A cause of any type.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Each message names the value at fault and the next step; [`HubError::kind`] says whether to
/// retry.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    #[error(
        "unknown model `{0}`: expected a hub id (`owner/name`), `builtin:NAME`, or a folder that \
         exists on this machine"
    )]
    BadId(String),
    #[error(
        "revision `{revision}` of {id} is not a branch, tag or commit: give one, `main` for \
         instance"
    )]
    BadRevision { id: String, revision: String },
    #[error(
        "cannot use the hub's address `{endpoint}`; set HF_ENDPOINT to a URL such as \
         https://huggingface.co"
    )]
    BadEndpoint { endpoint: String, source: BoxError },
    #[error(
        "{endpoint} has no model `{id}` that this machine may read: check the id; a private or \
         gated model needs HF_TOKEN{token_hint}"
    )]
    NoSuchModel { id: String, endpoint: String, token_hint: &'static str },
    #[error(
        "`{id}` is gated: accept its terms at {endpoint}/{id}, then set HF_TOKEN to a token of \
         that account{token_hint}"
    )]
    Gated { id: String, endpoint: String, token_hint: &'static str },
    #[error(
        "`{id}` has no revision `{revision}`: give a branch, tag or commit that {endpoint}/{id} \
         lists"
    )]
    NoSuchRevision { id: String, revision: String, endpoint: String },
    #[error("`{id}` at {commit} has no `{file}`: {next_step}")]
    NoSuchFile { id: String, commit: String, file: String, next_step: &'static str },
    #[error(
        "`{id}` at {commit} has no safetensors weights (it has {found}): use a repository with \
         safetensors; other formats can run code and are not read"
    )]
    NoSafetensors { id: String, commit: String, found: String },
    #[error("{file} of `{id}` is not a valid index of weights; use another revision")]
    BadIndex { id: String, file: String, source: BoxError },
    #[error(
        "HF_HUB_OFFLINE is set and {cache} has no {what} of `{id}` at `{revision}`: unset it, or \
         fill the cache on a machine that reaches the hub"
    )]
    NotCached { id: String, revision: String, what: String, cache: PathBuf },
    #[error(
        "{endpoint} did not answer for `{id}`; check the network and HF_ENDPOINT, or set \
         HF_HUB_OFFLINE=1 to use what the cache holds"
    )]
    Unreachable { id: String, endpoint: String, source: BoxError },
    #[error(
        "the answer of {endpoint} for `{id}` does not describe a model: HF_ENDPOINT must be the \
         base URL of a hub, such as https://huggingface.co"
    )]
    BadAnswer { id: String, endpoint: String, source: BoxError },
    #[error(
        "the download of {file} of `{id}` failed {tries} times in a row at {received} of {size} \
         bytes; the next try resumes there"
    )]
    BrokenOff { id: String, file: String, tries: u32, received: u64, size: u64, source: BoxError },
    #[error(
        "{file} of `{id}` was damaged in two downloads: {what}; the hub, or a proxy before it, \
         sends wrong bytes"
    )]
    Damaged { id: String, file: String, what: String },
    #[error(
        "{folder} has {free_bytes} bytes free and `{id}` still needs {needed_bytes}: free space \
         there, or set HF_HOME to a larger disk"
    )]
    DiskFull { id: String, folder: PathBuf, free_bytes: u64, needed_bytes: u64 },
    #[error(
        "cannot write {path} ({free_bytes} bytes free, {needed_bytes} still needed); make the \
         folder writable, free space, or set HF_HOME to another disk"
    )]
    Unwritable { path: PathBuf, source: io::Error, free_bytes: u64, needed_bytes: u64 },
    #[error("the download of `{0}` was abandoned")]
    Abandoned(String),
}

impl HubError {
    /// What the failure counts as.
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
            Self::Unreachable { .. }
            | Self::BadAnswer { .. }
            | Self::BrokenOff { .. }
            | Self::Damaged { .. } => FailureKind::Download,
            Self::DiskFull { .. } | Self::Unwritable { .. } => FailureKind::Disk,
            Self::Abandoned(_) => FailureKind::Interrupted,
        }
    }

    pub(super) fn unwritable(path: &Path, source: io::Error, needed_bytes: u64) -> Self {
        Self::Unwritable {
            path: path.to_owned(),
            source,
            free_bytes: free_bytes(path).unwrap_or(0),
            needed_bytes,
        }
    }
}
