//! From `s3://bucket[/prefix]`, `file:///dir` or a plain path to an object store that answers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::prefix::PrefixStore;
use object_store::{
    BackoffConfig, ClientOptions, ObjectStore, ObjectStoreExt, RetryConfig, path::Path,
};
use url::Url;

use super::error::{EXPECTED_URL, StoreError};
use super::named::Named;
use super::objects;
use crate::args::StoreArgs;
use crate::error::BoxError;

/// Nothing Bakeoff stores takes longer than this to send.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The first question must be answered within this time, credentials included.
const FIRST_ANSWER: Duration = Duration::from_secs(15);
/// A key that nobody writes: reading it shows whether the store answers, without a right to list.
const PROBE_KEY: &str = ".bakeoff-probe";

/// Opens the store and asks it a question, so that a wrong endpoint, secret or bucket shows now.
///
/// # Errors
/// Each with the value at fault and the next step; an unreachable store within seconds.
pub async fn open(args: &StoreArgs) -> Result<Arc<dyn ObjectStore>, StoreError> {
    let Some(url) = args.store.as_deref().map(str::trim).filter(|url| !url.is_empty()) else {
        return Err(StoreError::NotSet);
    };
    if let Some(place) = url.strip_prefix("s3://") {
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        let prefix = prefix.trim_matches('/');
        let store = s3(args, url, bucket, prefix)?;
        return match probe(store.as_ref()).await {
            // A key that is not there does not say whether the bucket is.
            Ok(()) => objects::can_list(store.as_ref(), PROBE_KEY).await.map(|()| store),
            Err(error) if error.is_transient() && !has_credentials(args) => {
                Err(StoreError::NoCredentials { source: error.into() })
            }
            Err(error) => Err(error),
        };
    }
    if url == "memory://" || url == "memory:" {
        return Ok(memory());
    }
    folder(folder_path(url)?)
}

/// A store that lives as long as the process, for tests and rehearsals.
pub fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

fn s3(
    args: &StoreArgs,
    url: &str,
    bucket: &str,
    prefix: &str,
) -> Result<Arc<dyn ObjectStore>, StoreError> {
    let bad = |source: Option<BoxError>| StoreError::BadUrl {
        url: url.to_owned(),
        expected: "expected s3://bucket[/prefix]".into(),
        source,
    };
    if bucket.is_empty() {
        return Err(bad(Some("the bucket is missing".into())));
    }
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
    if let Some(endpoint) = &args.s3_endpoint {
        builder = builder
            .with_endpoint(endpoint.trim_end_matches('/'))
            .with_allow_http(endpoint.starts_with("http://"));
    }
    if let Some(region) = &args.s3_region {
        builder = builder.with_region(region);
    }
    if let Some(credentials) = &args.static_credentials {
        builder = builder
            .with_access_key_id(&credentials.access_key_id)
            .with_secret_access_key(&credentials.secret_access_key);
    }
    let client = ClientOptions::new()
        .with_timeout(REQUEST_TIMEOUT)
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_allow_http(args.s3_endpoint.as_deref().is_some_and(|e| e.starts_with("http://")));
    // Long outages are the caller's to wait out, who knows whether a lease must be kept meanwhile.
    let retry = RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(1),
            base: 2.0,
        },
        max_retries: 2,
        retry_timeout: Duration::from_secs(10),
    };
    let store = builder
        .with_client_options(client)
        .with_retry(retry)
        .build()
        .map_err(|error| bad(Some(error.into())))?;
    let (address, inner): (_, Arc<dyn ObjectStore>) = if prefix.is_empty() {
        (format!("s3://{bucket}"), Arc::new(store))
    } else {
        let path = Path::parse(prefix).map_err(|error| bad(Some(error.into())))?;
        (format!("s3://{bucket}/{prefix}"), Arc::new(PrefixStore::new(store, path)))
    };
    Ok(Arc::new(Named { address, inner }))
}

/// Whether anything names credentials. If nothing does, the library asks the machine's metadata
/// service.
fn has_credentials(args: &StoreArgs) -> bool {
    const NAMES: [&str; 4] = [
        "AWS_ACCESS_KEY_ID",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    ];
    args.static_credentials.is_some() || NAMES.iter().any(|name| std::env::var_os(name).is_some())
}

/// Reads a key that is not there: any other answer than "not there" is an error.
///
/// # Errors
/// Why the store cannot be used at this moment.
pub async fn probe(store: &dyn ObjectStore) -> Result<(), StoreError> {
    let key = Path::from(PROBE_KEY);
    let Ok(answer) = tokio::time::timeout(FIRST_ANSWER, store.get(&key)).await else {
        return Err(StoreError::Unreachable {
            store: store.to_string(),
            operation: "opening".into(),
            source: format!("nothing within {} s", FIRST_ANSWER.as_secs()).into(),
        });
    };
    match answer {
        Ok(_) | Err(object_store::Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(StoreError::at(store, "opening", error)),
    }
}

fn folder_path(url: &str) -> Result<PathBuf, StoreError> {
    let bad = |expected: String, source: Option<BoxError>| StoreError::BadUrl {
        url: url.to_owned(),
        expected,
        source,
    };
    let expected = || "expected file:///absolute/folder".to_owned();
    if url.starts_with("file:") {
        let parsed = Url::parse(url).map_err(|error| bad(expected(), Some(error.into())))?;
        return parsed.to_file_path().map_err(|()| bad(expected(), None));
    }
    if url.starts_with("s3:") {
        return Err(bad("expected s3://bucket[/prefix], with two slashes".to_owned(), None));
    }
    if let Some((scheme, _)) = url.split_once("://") {
        return Err(bad(format!("unknown scheme `{scheme}`: expected {EXPECTED_URL}"), None));
    }
    Ok(PathBuf::from(url))
}

fn folder(path: PathBuf) -> Result<Arc<dyn ObjectStore>, StoreError> {
    let shown = path.display().to_string();
    let fail = |source: BoxError| StoreError::Folder { path: shown.clone(), source };
    std::fs::create_dir_all(&path).map_err(|error| fail(error.into()))?;
    let store = LocalFileSystem::new_with_prefix(&path).map_err(|error| fail(error.into()))?;
    let inner = Arc::new(store.with_automatic_cleanup(false));
    Ok(Arc::new(Named { address: shown, inner }))
}
