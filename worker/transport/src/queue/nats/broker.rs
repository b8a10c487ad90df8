//! The connection: credentials, what the broker refuses, and errors by kind.

use std::error::Error as StdError;
use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::context::{
    GetStreamErrorKind, KeyValueErrorKind, PublishError, PublishErrorKind,
};
use async_nats::jetstream::{self, ErrorCode, consumer, kv, stream};
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, ServerError};
use bakeoff_proto::names;
use tokio::sync::broadcast;
use tokio::time::Instant;

use crate::args::NatsArgs;
use crate::queue::QueueError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// A connected broker.
#[derive(Clone)]
pub(super) struct Broker {
    pub client: Client,
    pub context: jetstream::Context,
    url: String,
    /// Permission violations. The broker tells them apart from the request that caused them, which
    /// itself only times out.
    violations: broadcast::Sender<String>,
}

impl Broker {
    pub async fn connect(args: &NatsArgs) -> Result<Self, QueueError> {
        let url = args.redacted_url();
        let servers: Vec<String> = args
            .nats
            .as_deref()
            .unwrap_or_default()
            .split(',')
            .map(|server| server.trim().to_owned())
            .filter(|server| !server.is_empty())
            .collect();
        let unreachable = |message: String| QueueError::Unreachable { url: url.clone(), message };
        if servers.is_empty() {
            return Err(unreachable("no URL was given".into()));
        }
        let (violations, _) = broadcast::channel(64);
        let deadline = Instant::now() + Duration::from_secs(args.nats_connect_s);
        let mut pause = Duration::from_millis(100);
        loop {
            let options = options(args, &url, violations.clone()).await?;
            let error = match options.connect(servers.clone()).await {
                Ok(client) => {
                    let mut context = jetstream::new(client.clone());
                    context.set_timeout(REQUEST_TIMEOUT);
                    return Ok(Self { client, context, url, violations });
                }
                Err(error) => error,
            };
            match error.kind() {
                ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                    return Err(QueueError::Unauthorized { url, message: chain(&error) });
                }
                ConnectErrorKind::ServerParse | ConnectErrorKind::Tls => {
                    return Err(unreachable(chain(&error)));
                }
                _ if Instant::now() + pause >= deadline => {
                    return Err(unreachable(chain(&error)));
                }
                _ => tokio::time::sleep(pause).await,
            }
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }

    /// Runs a request, unless the broker says meanwhile that it is not allowed. `mark` is a part of
    /// the subject that the request publishes to.
    pub async fn unless_denied<F: Future>(
        &self,
        operation: &str,
        mark: &str,
        request: F,
    ) -> Result<F::Output, QueueError> {
        let mut violations = self.violations.subscribe();
        let denied = async {
            loop {
                match violations.recv().await {
                    Ok(message) if message.contains(mark) => return message,
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
                }
            }
        };
        tokio::select! {
            output = request => Ok(output),
            message = denied => {
                Err(QueueError::Denied { operation: operation.to_owned(), message })
            }
        }
    }

    pub fn failed(&self, operation: &str, error: &dyn Display) -> QueueError {
        let message = error.to_string();
        if self.client.connection_state() == State::Connected {
            QueueError::Other { operation: operation.to_owned(), message }
        } else {
            let message = format!("{operation}: {message}");
            QueueError::Unreachable { url: self.url.clone(), message }
        }
    }

    pub fn publish_failed(&self, operation: &str, error: &PublishError) -> QueueError {
        match error.kind() {
            PublishErrorKind::StreamNotFound => {
                QueueError::Missing { what: format!("the stream {}", names::JOBS_STREAM) }
            }
            _ => self.failed(operation, &chain(error)),
        }
    }

    pub async fn bucket(&self, name: &'static str) -> Result<kv::Store, QueueError> {
        let operation = format!("opening the bucket {name}");
        let mark = format!("KV_{name}");
        let opened =
            self.unless_denied(&operation, &mark, self.context.get_key_value(name)).await?;
        opened.map_err(|error| match error.kind() {
            KeyValueErrorKind::GetBucket if is_not_found(&error) => {
                QueueError::Missing { what: format!("the bucket {name}") }
            }
            _ => self.failed(&operation, &chain(&error)),
        })
    }

    pub async fn stream(&self, name: &'static str) -> Result<stream::Stream, QueueError> {
        let operation = format!("opening the stream {name}");
        let mark = format!("STREAM.INFO.{name}");
        let opened = self.unless_denied(&operation, &mark, self.context.get_stream(name)).await?;
        opened.map_err(|error| match error.kind() {
            GetStreamErrorKind::JetStream(e) if e.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                QueueError::Missing { what: format!("the stream {name}") }
            }
            _ => self.failed(&operation, &chain(&error)),
        })
    }

    /// A durable consumer of the jobs stream, or `None` if it or the stream does not exist.
    pub async fn consumer(&self, name: &str) -> Result<Option<PullConsumer>, QueueError> {
        let operation = format!("looking up the consumer {name}");
        let look = self
            .context
            .get_consumer_from_stream::<consumer::pull::Config, _, _>(name, names::JOBS_STREAM);
        let mark = format!("CONSUMER.INFO.{}.{name}", names::JOBS_STREAM);
        match self.unless_denied(&operation, &mark, look).await? {
            Ok(consumer) => Ok(Some(consumer)),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(self.failed(&operation, &chain(&error))),
        }
    }
}

/// Whether JetStream answered that a stream or a consumer does not exist.
fn is_not_found(error: &(dyn StdError + 'static)) -> bool {
    matches!(
        jetstream_code(error),
        Some(ErrorCode::STREAM_NOT_FOUND | ErrorCode::CONSUMER_NOT_FOUND)
    )
}

/// The code in JetStream's answer, wherever in the chain of causes it is.
pub(super) fn jetstream_code(error: &(dyn StdError + 'static)) -> Option<ErrorCode> {
    let mut current = Some(error);
    while let Some(cause) = current {
        if let Some(answer) = cause.downcast_ref::<jetstream::Error>() {
            return Some(answer.error_code());
        }
        current = cause.source();
    }
    None
}

/// An error with its causes, each told once.
pub(super) fn chain(error: &(dyn StdError + 'static)) -> String {
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

async fn options(
    args: &NatsArgs,
    url: &str,
    violations: broadcast::Sender<String>,
) -> Result<ConnectOptions, QueueError> {
    let unauthorized = |message: String| QueueError::Unauthorized { url: url.to_owned(), message };
    let mut options = ConnectOptions::new()
        .name("bakeoff")
        .connection_timeout(CONNECT_TIMEOUT)
        .request_timeout(Some(REQUEST_TIMEOUT))
        .ping_interval(PING_INTERVAL)
        .event_callback(move |event| {
            let violations = violations.clone();
            async move { told(event, &violations) }
        });
    if let Some(path) = &args.nats_creds {
        options = options
            .credentials_file(path)
            .await
            .map_err(|error| unauthorized(format!("{}: {error}", path.display())))?;
    }
    if let Some(path) = &args.nats_nkey {
        let seed = tokio::fs::read_to_string(path)
            .await
            .map_err(|error| unauthorized(format!("{}: {error}", path.display())))?;
        options = options.nkey(seed.trim().to_owned());
    }
    if let Some(user) = &args.nats_user {
        let password = args.nats_password.clone().unwrap_or_default();
        options = options.user_and_password(user.clone(), password);
    }
    if let Some(ca) = &args.nats_ca {
        options = options.add_root_certificates(ca.clone()).require_tls(true);
    }
    if let (Some(cert), Some(key)) = (&args.nats_cert, &args.nats_key) {
        options = options.add_client_certificate(cert.clone(), key.clone()).require_tls(true);
    }
    Ok(options)
}

/// Logs what happens on the connection and passes permission violations on.
fn told(event: Event, violations: &broadcast::Sender<String>) {
    match event {
        Event::Connected => tracing::info!("connected to the broker"),
        Event::Disconnected => tracing::warn!("lost the broker; reconnecting"),
        Event::ServerError(ServerError::Other(message)) => {
            tracing::error!(%message, "the broker refused a request");
            // An error only says that no request waits.
            let _ = violations.send(message);
        }
        Event::ServerError(error) => tracing::error!(%error, "the broker reports an error"),
        Event::ClientError(error) => tracing::error!(%error, "the connection to the broker failed"),
        event => tracing::info!(%event, "broker"),
    }
}
