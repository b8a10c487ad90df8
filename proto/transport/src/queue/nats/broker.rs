//! A connected broker: requests that end when they are refused, streams, buckets and consumers by
//! name, and errors by kind.

use std::error::Error as StdError;
use std::future::Future;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::context::{
    GetStreamErrorKind, KeyValueErrorKind, PublishError, PublishErrorKind,
};
use async_nats::jetstream::stream::ConsumerErrorKind;
use async_nats::jetstream::{self, ErrorCode, consumer, kv, stream};
use async_nats::{Client, ConnectErrorKind};
use bakeoff_proto::names;
use tokio::time::Instant;

use super::connection::{Connection, Returns};
use super::options::{REQUEST_TIMEOUT, inbox_prefix, options};
use super::tls;
use crate::args::NatsArgs;
use crate::error::BoxError;
use crate::queue::QueueError;

/// A connected broker. Clones share the connection.
#[derive(Clone)]
pub(super) struct Broker {
    pub client: Client,
    pub context: jetstream::Context,
    url: String,
    connection: Connection,
}

impl Broker {
    /// Connects, trying for `nats_connect_s` seconds.
    ///
    /// # Errors
    /// No URL, refused credentials and failed handshakes at once; an unreachable broker after the
    /// time given.
    pub async fn connect(args: &NatsArgs) -> Result<Self, QueueError> {
        let url = args.redacted_url();
        let servers = args.servers();
        if servers.is_empty() {
            return Err(QueueError::NotSet);
        }
        let connection = Connection::new(inbox_prefix(args));
        let deadline = Instant::now() + Duration::from_secs(args.nats_connect_s);
        let mut pause = Duration::from_millis(100);
        loop {
            let options = options(args, connection.clone()).await?;
            let error = match options.connect(servers.clone()).await {
                Ok(client) => {
                    let mut context = jetstream::new(client.clone());
                    context.set_timeout(REQUEST_TIMEOUT);
                    return Ok(Self { client, context, url, connection });
                }
                Err(error) => error,
            };
            match error.kind() {
                ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                    return Err(QueueError::Unauthorized { url, source: error.into() });
                }
                // A handshake that failed will fail again.
                _ if let Some(refusal) = tls::refusal(&error) => {
                    let advice = tls::advice(&refusal);
                    return Err(QueueError::Tls { url, advice, source: refusal.into() });
                }
                ConnectErrorKind::Tls => {
                    let advice = tls::DEFAULT_ADVICE;
                    return Err(QueueError::Tls { url, advice, source: error.into() });
                }
                kind if kind == ConnectErrorKind::ServerParse
                    || Instant::now() + pause >= deadline =>
                {
                    let operation = "connecting".to_owned();
                    return Err(QueueError::Unreachable { url, operation, source: error.into() });
                }
                _ => tokio::time::sleep(pause).await,
            }
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }

    /// Completes, time after time, when a lost connection has come back.
    pub fn returns(&self) -> Returns {
        self.connection.returns()
    }

    /// Runs a request, unless the broker refuses it meanwhile. `subject_part` is a part of the
    /// subject that the request publishes to.
    pub async fn unless_denied<F: Future>(
        &self,
        operation: &str,
        subject_part: &str,
        request: F,
    ) -> Result<F::Output, QueueError> {
        let denied = self.connection.denied(subject_part);
        let message = tokio::select! {
            output = request => return Ok(output),
            message = denied => message,
        };
        Err(QueueError::Denied { operation: operation.to_owned(), message })
    }

    /// The error of an operation for which the broker, or the way to it, is to blame.
    pub fn failed(&self, operation: &str, source: impl Into<BoxError>) -> QueueError {
        let (operation, source) = (operation.to_owned(), source.into());
        if self.is_connected() {
            QueueError::Other { operation, source }
        } else {
            QueueError::Unreachable { url: self.url.clone(), operation, source }
        }
    }

    /// Whether the connection stands at this moment.
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// The error of a publication, by kind.
    pub fn publish_failed(&self, operation: &str, error: PublishError) -> QueueError {
        match error.kind() {
            PublishErrorKind::StreamNotFound => {
                QueueError::Missing { what: format!("the stream {}", names::JOBS_STREAM) }
            }
            _ => self.failed(operation, error),
        }
    }

    /// A key-value bucket that the coordinator has laid out.
    pub async fn bucket(&self, name: &'static str) -> Result<kv::Store, QueueError> {
        let operation = format!("opening the bucket {name}");
        let subject_part = format!("KV_{name}");
        let opened =
            self.unless_denied(&operation, &subject_part, self.context.get_key_value(name)).await?;
        opened.map_err(|error| match error.kind() {
            KeyValueErrorKind::GetBucket if is_not_found(&error) => {
                QueueError::Missing { what: format!("the bucket {name}") }
            }
            _ => self.failed(&operation, error),
        })
    }

    /// A stream that the coordinator has laid out.
    pub async fn stream(&self, name: &'static str) -> Result<stream::Stream, QueueError> {
        let operation = format!("opening the stream {name}");
        let subject_part = format!("STREAM.INFO.{name}");
        let opened =
            self.unless_denied(&operation, &subject_part, self.context.get_stream(name)).await?;
        opened.map_err(|error| match error.kind() {
            GetStreamErrorKind::JetStream(e) if e.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                QueueError::Missing { what: format!("the stream {name}") }
            }
            _ => self.failed(&operation, error),
        })
    }

    /// A durable consumer of the jobs stream, or `None` if it or the stream does not exist.
    pub async fn consumer(&self, name: &str) -> Result<Option<PullConsumer>, QueueError> {
        let operation = format!("looking up the consumer {name}");
        let look = self
            .context
            .get_consumer_from_stream::<consumer::pull::Config, _, _>(name, names::JOBS_STREAM);
        let subject_part = format!("CONSUMER.INFO.{}.{name}", names::JOBS_STREAM);
        match self.unless_denied(&operation, &subject_part, look).await? {
            Ok(consumer) => Ok(Some(consumer)),
            Err(error) => match error.kind() {
                // The answer is in the kind, and not among the causes.
                ConsumerErrorKind::JetStream(answer) if names_nothing(answer.error_code()) => {
                    Ok(None)
                }
                _ => Err(self.failed(&operation, error)),
            },
        }
    }
}

/// Whether JetStream answered that a stream or a consumer does not exist.
fn is_not_found(error: &(dyn StdError + 'static)) -> bool {
    jetstream_code(error).is_some_and(names_nothing)
}

fn names_nothing(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::STREAM_NOT_FOUND | ErrorCode::CONSUMER_NOT_FOUND)
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
