//! From arguments to the options of a connection: credentials and certificates.

use std::path::Path;
use std::time::Duration;

use async_nats::ConnectOptions;

use super::connection::Connection;
use crate::args::NatsArgs;
use crate::error::BoxError;
use crate::queue::QueueError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the broker may take to answer a request.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// What async-nats takes when nothing else is set.
const DEFAULT_INBOX: &str = "_INBOX";

/// What the subjects of this user's inboxes begin with.
pub(super) fn inbox_prefix(args: &NatsArgs) -> &str {
    args.nats_inbox.as_deref().unwrap_or(DEFAULT_INBOX)
}

/// # Errors
/// A file that cannot be read, or holds no nkey seed.
pub(super) async fn options(
    args: &NatsArgs,
    connection: Connection,
) -> Result<ConnectOptions, QueueError> {
    let mut options = ConnectOptions::new()
        .name("bakeoff")
        .connection_timeout(CONNECT_TIMEOUT)
        .request_timeout(Some(REQUEST_TIMEOUT))
        .ping_interval(PING_INTERVAL)
        .custom_inbox_prefix(inbox_prefix(args))
        .event_callback(move |event| {
            let connection = connection.clone();
            async move { connection.on_event(event) }
        });
    if let Some(path) = &args.nats_creds {
        let credentials =
            tokio::fs::read_to_string(path).await.map_err(|error| file(path, error))?;
        options = options.credentials(&credentials).map_err(|error| file(path, error))?;
    }
    if let Some(path) = &args.nats_nkey {
        let seed = tokio::fs::read_to_string(path).await.map_err(|error| file(path, error))?;
        let seed = seed.trim();
        if !is_nkey_seed(seed) {
            return Err(file(path, "not an nkey seed (58 characters that start with SU)"));
        }
        options = options.nkey(seed.to_owned());
    }
    if let Some((user, password)) = args.user() {
        options = options.user_and_password(user, password);
    }
    for path in [&args.nats_ca, &args.nats_cert, &args.nats_key].into_iter().flatten() {
        // The library would not say which file it is.
        tokio::fs::File::open(path).await.map_err(|error| file(path, error))?;
    }
    if let Some(ca) = &args.nats_ca {
        options = options.add_root_certificates(ca.clone()).require_tls(true);
    }
    if let (Some(cert), Some(key)) = (&args.nats_cert, &args.nats_key) {
        options = options.add_client_certificate(cert.clone(), key.clone()).require_tls(true);
    }
    Ok(options)
}

fn file(path: &Path, source: impl Into<BoxError>) -> QueueError {
    QueueError::File { path: path.display().to_string(), source: source.into() }
}

/// A user's seed as nkeys are written; the library gives no reason when it is not one.
fn is_nkey_seed(text: &str) -> bool {
    let base32 = |b: u8| matches!(b, b'A'..=b'Z' | b'2'..=b'7');
    text.len() == 58 && text.starts_with("SU") && text.bytes().all(base32)
}
