//! Why the object store did not do what it was asked, and what to do about it.

use object_store::ObjectStore;

use crate::error::{BoxError, describe};

/// An operation on the object store that failed. Distinguished by kind; each message names the next
/// step and holds the text of its source.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No store was named.
    #[error("no object store: set --store (BAKEOFF_STORE) to {EXPECTED_URL}")]
    NotSet,
    /// The address of the store does not parse, or names a kind of store that is not supported.
    #[error("invalid object store `{url}`: {expected}{}", cause(.source))]
    BadUrl { url: String, expected: String, source: Option<BoxError> },
    #[error(
        "{operation}: no answer from the object store {store}: {}; check that it runs, \
         --s3-endpoint (AWS_ENDPOINT_URL), and with a web identity its token and \
         AWS_ENDPOINT_URL_STS",
        describe(.source.as_ref())
    )]
    Unreachable { store: String, operation: String, source: BoxError },
    #[error(
        "{operation}: the object store {store} refused the credentials: {}; check \
         AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or the web identity), and that they may \
         read, list and write there",
        describe(.source.as_ref())
    )]
    Denied { store: String, operation: String, source: BoxError },
    #[error(
        "no credentials for the object store: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or \
         a web identity); this machine's own role gave none either: {source}"
    )]
    NoCredentials { source: Box<StoreError> },
    #[error(
        "{operation}: the bucket or folder of {store} does not exist or cannot be listed: create \
         it, or correct --store ({})",
        describe(.source.as_ref())
    )]
    Missing { store: String, operation: String, source: BoxError },
    #[error(
        "the folder {path} cannot be used as a store: {}; choose another with --store",
        describe(.source.as_ref())
    )]
    Folder { path: String, source: BoxError },
    #[error("{operation} in {store}: {}", describe(.source.as_ref()))]
    Other { store: String, operation: String, source: BoxError },
}

/// The forms that the address of a store can have.
pub(super) const EXPECTED_URL: &str = "s3://bucket[/prefix], file:///dir or a path";

fn cause(source: &Option<BoxError>) -> String {
    source.as_ref().map(|error| format!(": {}", describe(error.as_ref()))).unwrap_or_default()
}

impl StoreError {
    /// Wraps an error of the object store library, once. `operation` reads like "writing a/b".
    ///
    /// A missing object is no error of an operation that may find none: what is "not found" here is
    /// the bucket or folder itself.
    pub fn at(store: &dyn ObjectStore, operation: &str, source: object_store::Error) -> Self {
        let store = store.to_string();
        let operation = operation.to_owned();
        match source {
            object_store::Error::PermissionDenied { .. }
            | object_store::Error::Unauthenticated { .. } => {
                Self::Denied { store, operation, source: source.into() }
            }
            object_store::Error::NotFound { .. } => {
                Self::Missing { store, operation, source: source.into() }
            }
            object_store::Error::Generic { store: "S3", .. } => {
                Self::Unreachable { store, operation, source: source.into() }
            }
            _ => Self::Other { store, operation, source: source.into() },
        }
    }

    /// Whether a setting or a credential has to be changed: exit code 2 of both programs.
    pub fn is_bad_input(&self) -> bool {
        match self {
            Self::NotSet
            | Self::BadUrl { .. }
            | Self::Unreachable { .. }
            | Self::Denied { .. }
            | Self::NoCredentials { .. }
            | Self::Missing { .. }
            | Self::Folder { .. } => true,
            Self::Other { .. } => false,
        }
    }

    /// Whether the same call may succeed later without anybody changing a setting.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Other { .. })
    }
}
