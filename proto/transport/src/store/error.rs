//! Why the object store did not do what it was asked, and what to do about it.

use std::error::Error;

use object_store::ObjectStore;

/// Errors are told apart by kind; each message tells the next step.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("`{url}` is no object store: {expected}")]
    BadUrl { url: String, expected: String },
    #[error(
        "{operation}: no answer from the object store {store}: {message}; check that it runs, --s3-endpoint (AWS_ENDPOINT_URL), and with a web identity its token and AWS_ENDPOINT_URL_STS"
    )]
    Unreachable { store: String, operation: String, message: String },
    #[error(
        "{operation}: the object store {store} refused the credentials: {message}; check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or the web identity), and that they may read, list and write there"
    )]
    Denied { store: String, operation: String, message: String },
    #[error(
        "no credentials for the object store: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or a web identity); this machine's own role gave none either: {message}"
    )]
    NoCredentials { message: String },
    #[error("the bucket of {store} does not exist: create it, or correct --store ({message})")]
    BucketMissing { store: String, message: String },
    #[error("the folder {path} cannot be used as a store: {message}; choose another with --store")]
    Folder { path: String, message: String },
    #[error("{operation} in {store}: {message}")]
    Other { store: String, operation: String, message: String },
}

impl StoreError {
    /// Wraps an error of the object store library, once.
    pub fn at(store: &dyn ObjectStore, operation: &str, error: object_store::Error) -> Self {
        let store = store.to_string();
        let operation = operation.to_owned();
        let message = chain(&error);
        match &error {
            object_store::Error::PermissionDenied { .. }
            | object_store::Error::Unauthenticated { .. } => {
                Self::Denied { store, operation, message }
            }
            // S3 tells a missing bucket from a missing key by the code in the body of its answer.
            object_store::Error::NotFound { .. } if message.contains("NoSuchBucket") => {
                Self::BucketMissing { store, message }
            }
            object_store::Error::Generic { store: "S3", .. } => {
                Self::Unreachable { store, operation, message }
            }
            _ => Self::Other { store, operation, message },
        }
    }

    /// Whether a setting or a credential has to be changed: exit code 2 of both programs.
    pub fn is_bad_input(&self) -> bool {
        !matches!(self, Self::Other { .. })
    }

    /// Whether the same call may succeed later without anybody changing a setting.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Other { .. })
    }
}

/// An error with its causes, each told once.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
