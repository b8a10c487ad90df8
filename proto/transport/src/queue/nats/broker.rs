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
use async_nats::jetstream::stream::ConsumerErrorKind;
use async_nats::jetstream::{self, ErrorCode, consumer, kv, stream};
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, ServerError};
use bakeoff_proto::names;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use super::tls;
use crate::args::NatsArgs;
use crate::queue::QueueError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// What async-nats takes when told nothing else.
const DEFAULT_INBOX: &str = "_INBOX";

/// A connected broker.
#[derive(Clone)]
pub(super) struct Broker {
    pub client: Client,
    pub context: jetstream::Context,
    url: String,
    refusals: Refusals,
}

/// Permission violations. The broker tells them apart from the request that caused them, which itself
/// only times out.
#[derive(Clone)]
struct Refusals {
    violations: broadcast::Sender<String>,
    /// Set when this user may not listen to its inbox, which is subscribed once for all requests: none
    /// will ever be answered, and the broker says so only once.
    deaf: watch::Sender<Option<String>>,
    /// What the subjects of its inboxes begin with.
    inbox: String,
    link: watch::Sender<Link>,
}

/// The connection through breaks. Subscriptions survive one; consumers that live in the broker's
/// memory do not survive its restart.
#[derive(Clone, Copy, Default, PartialEq)]
struct Link {
    broken: bool,
    /// How often it came back.
    returns: u64,
}

impl Broker {
    pub async fn connect(args: &NatsArgs) -> Result<Self, QueueError> {
        let url = args.redacted_url();
        let servers = args.servers();
        let unreachable = |message: String| QueueError::Unreachable { url: url.clone(), message };
        if servers.is_empty() {
            return Err(unreachable("no URL was given".into()));
        }
        let refusals = Refusals {
            violations: broadcast::channel(64).0,
            deaf: watch::Sender::new(None),
            inbox: args.nats_inbox.clone().unwrap_or_else(|| DEFAULT_INBOX.to_owned()),
            link: watch::Sender::default(),
        };
        let deadline = Instant::now() + Duration::from_secs(args.nats_connect_s);
        let mut pause = Duration::from_millis(100);
        loop {
            let options = options(args, &url, refusals.clone()).await?;
            let error = match options.connect(servers.clone()).await {
                Ok(client) => {
                    let mut context = jetstream::new(client.clone());
                    context.set_timeout(REQUEST_TIMEOUT);
                    return Ok(Self { client, context, url, refusals });
                }
                Err(error) => error,
            };
            match error.kind() {
                ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                    return Err(QueueError::Unauthorized { url, message: chain(&error) });
                }
                ConnectErrorKind::ServerParse => return Err(unreachable(chain(&error))),
                ConnectErrorKind::Tls => {
                    return Err(QueueError::Tls { url, message: chain(&error) });
                }
                // A handshake that failed will fail again.
                _ if let Some(message) = tls::refusal(&error) => {
                    return Err(QueueError::Tls { url, message });
                }
                _ if Instant::now() + pause >= deadline => {
                    return Err(unreachable(chain(&error)));
                }
                _ => tokio::time::sleep(pause).await,
            }
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }

    /// Completes, time after time, when a lost connection has come back.
    pub fn returns(&self) -> Returns {
        Returns { link: self.refusals.link.subscribe(), seen: self.refusals.link.borrow().returns }
    }

    /// Runs a request, unless the broker says meanwhile that it is not allowed. `mark` is a part of
    /// the subject that the request publishes to.
    pub async fn unless_denied<F: Future>(
        &self,
        operation: &str,
        mark: &str,
        request: F,
    ) -> Result<F::Output, QueueError> {
        let mut violations = self.refusals.violations.subscribe();
        let mut deaf = self.refusals.deaf.subscribe();
        let deafened = async {
            match deaf.wait_for(Option::is_some).await.map(|message| message.clone()) {
                Ok(message) => message.unwrap_or_default(),
                Err(_) => std::future::pending().await,
            }
        };
        let denied = async {
            loop {
                match violations.recv().await {
                    Ok(message) if message.contains(mark) => return message,
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
                }
            }
        };
        let message = tokio::select! {
            output = request => return Ok(output),
            message = denied => message,
            message = deafened => message,
        };
        Err(QueueError::Denied { operation: operation.to_owned(), message })
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
            Err(error) => match error.kind() {
                // The answer is in the kind, and not among the causes.
                ConsumerErrorKind::JetStream(answer) if names_nothing(answer.error_code()) => {
                    Ok(None)
                }
                _ => Err(self.failed(&operation, &chain(&error))),
            },
        }
    }
}

/// See [`Broker::returns`].
pub(super) struct Returns {
    link: watch::Receiver<Link>,
    seen: u64,
}

impl Returns {
    pub async fn next(&mut self) {
        let seen = self.seen;
        match self.link.wait_for(|link| link.returns > seen).await.map(|link| link.returns) {
            Ok(returns) => self.seen = returns,
            Err(_) => std::future::pending().await,
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
    refusals: Refusals,
) -> Result<ConnectOptions, QueueError> {
    let unauthorized = |message: String| QueueError::Unauthorized { url: url.to_owned(), message };
    let mut options = ConnectOptions::new()
        .name("bakeoff")
        .connection_timeout(CONNECT_TIMEOUT)
        .request_timeout(Some(REQUEST_TIMEOUT))
        .ping_interval(PING_INTERVAL)
        .custom_inbox_prefix(&refusals.inbox)
        .event_callback(move |event| {
            let refusals = refusals.clone();
            async move { refusals.told(event) }
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
        let seed = seed.trim();
        if !is_nkey_seed(seed) {
            let message =
                format!("{} holds no nkey seed (58 characters that start with SU)", path.display());
            return Err(unauthorized(message));
        }
        options = options.nkey(seed.to_owned());
    }
    if let Some((user, password)) = args.user() {
        options = options.user_and_password(user, password);
    }
    for path in [&args.nats_ca, &args.nats_cert, &args.nats_key].into_iter().flatten() {
        // The library would not say which file it is.
        tokio::fs::File::open(path).await.map_err(|error| QueueError::Tls {
            url: url.to_owned(),
            message: format!("{}: {error}", path.display()),
        })?;
    }
    if let Some(ca) = &args.nats_ca {
        options = options.add_root_certificates(ca.clone()).require_tls(true);
    }
    if let (Some(cert), Some(key)) = (&args.nats_cert, &args.nats_key) {
        options = options.add_client_certificate(cert.clone(), key.clone()).require_tls(true);
    }
    Ok(options)
}

/// A user's seed as nkeys are written; the library tells no reason when it is none.
fn is_nkey_seed(text: &str) -> bool {
    let base32 = |b: u8| matches!(b, b'A'..=b'Z' | b'2'..=b'7');
    text.len() == 58 && text.starts_with("SU") && text.bytes().all(base32)
}

impl Refusals {
    /// Logs what happens on the connection and passes permission violations on.
    fn told(&self, event: Event) {
        match event {
            Event::Connected => {
                // Subscriptions are made anew, and perhaps by a user with other permissions.
                self.deaf.send_replace(None);
                self.link.send_modify(|link| {
                    link.returns += u64::from(link.broken);
                    link.broken = false;
                });
                tracing::info!("connected to the broker");
            }
            Event::Disconnected => {
                self.link.send_modify(|link| link.broken = true);
                tracing::warn!("lost the broker; reconnecting");
            }
            Event::ServerError(ServerError::Other(message)) => {
                tracing::error!(%message, "the broker refused a request");
                if message.contains("Subscription")
                    && message.contains(&format!("\"{}.", self.inbox))
                {
                    let advice = "no answer can be received: set --nats-inbox (NATS_INBOX_PREFIX) to \
                                  the prefix that this user may subscribe to";
                    self.deaf.send_replace(Some(format!("{message}, so {advice}")));
                }
                // An error only says that no request waits.
                let _ = self.violations.send(message);
            }
            Event::ServerError(error) => tracing::error!(%error, "the broker reports an error"),
            // One for each try to connect; the loss was told.
            Event::ClientError(error) => tracing::debug!(%error, "no connection to the broker"),
            event => tracing::info!(%event, "broker"),
        }
    }
}
