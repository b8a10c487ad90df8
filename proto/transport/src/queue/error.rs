//! Why the queue did not do what it was asked, and what to do about it.

use crate::error::{BoxError, describe};

/// A queue operation that failed. Distinguished by kind; each message names the next step and holds
/// the text of its source.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// No broker was named.
    #[error("no broker: set --nats or NATS_URL, such as nats://127.0.0.1:4222")]
    NotSet,
    #[error(
        "no answer from the broker at {url}: {operation}: {}; check that it runs and that --nats \
         is right",
        describe(.source.as_ref())
    )]
    Unreachable { url: String, operation: String, source: BoxError },
    #[error(
        "the broker at {url} refused the credentials: {}; check the credentials file, nkey or user",
        describe(.source.as_ref())
    )]
    Unauthorized { url: String, source: BoxError },
    #[error(
        "no secure connection to the broker at {url}: {}; {advice}",
        describe(.source.as_ref())
    )]
    Tls { url: String, advice: &'static str, source: BoxError },
    /// A file of credentials or certificates that cannot be used.
    #[error("{path}: {}; check the option or variable that names it", describe(.source.as_ref()))]
    File { path: String, source: BoxError },
    /// The user's permissions lack something. The broker says so in prose, which is all there is.
    #[error("the broker denied {operation}: {message}; the user's permissions lack it")]
    Denied { operation: String, message: String },
    #[error(
        "{what} is {bytes} bytes, the broker takes at most {limit}: split the sweep with \
         `cells_per_job`, or shorten its prompts"
    )]
    TooLarge { what: String, bytes: usize, limit: usize },
    #[error(
        "{what} does not exist on the broker: submit a sweep first, the coordinator creates it"
    )]
    Missing { what: String },
    /// Nobody confirmed: the job was acked, ended, or handed to another worker.
    #[error("the lease is gone: the job was acked, ended or handed to another worker")]
    LeaseLost,
    /// The entry is no longer at the expected revision.
    #[error("another attempt was claimed meanwhile")]
    Conflict,
    #[error("the broker failed at {operation}: {}", describe(.source.as_ref()))]
    Other { operation: String, source: BoxError },
}

impl QueueError {
    /// Whether a setting, a credential or a sweep has to be changed: exit code 2 of both programs.
    pub fn is_bad_input(&self) -> bool {
        match self {
            Self::NotSet
            | Self::Unreachable { .. }
            | Self::Unauthorized { .. }
            | Self::Tls { .. }
            | Self::File { .. }
            | Self::Denied { .. }
            | Self::TooLarge { .. }
            | Self::Missing { .. } => true,
            Self::LeaseLost | Self::Conflict | Self::Other { .. } => false,
        }
    }
}
