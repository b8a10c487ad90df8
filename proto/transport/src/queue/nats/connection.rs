//! What happens on the connection: breaks, returns, and what the broker refuses.
//!
//! The broker reports a refusal apart from the request that caused it, which itself only times out.

use async_nats::{Event, ServerError};
use tokio::sync::{broadcast, watch};

/// What the broker did not let this user do. NATS says so in one sentence of its protocol,
/// `Permissions Violation for Publish to "SUBJECT"`, which is read here and nowhere else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Violation {
    pub action: Action,
    pub subject: String,
    /// The broker's sentence.
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Publish,
    Subscribe,
}

impl Violation {
    fn parse(message: &str) -> Option<Self> {
        let rest = message.strip_prefix("Permissions Violation for ")?;
        let (action, rest) = rest.split_once(" to \"")?;
        let action = match action {
            "Publish" => Action::Publish,
            "Subscription" => Action::Subscribe,
            _ => return None,
        };
        let (subject, _) = rest.split_once('"')?;
        Some(Self { action, subject: subject.to_owned(), message: message.to_owned() })
    }
}

/// The connection through breaks. Subscriptions survive one; consumers that live in the broker's
/// memory do not survive its restart.
#[derive(Clone, Copy, Default, PartialEq)]
struct Link {
    broken: bool,
    /// How often it came back.
    returns: u64,
}

/// Passes on what the client library reports of a connection. Clones share it.
#[derive(Clone)]
pub(super) struct Connection {
    violations: broadcast::Sender<Violation>,
    /// Set when this user may not subscribe to its inbox, which is subscribed once for all
    /// requests: none will ever be answered, and the broker reports it only once.
    inbox_denied: watch::Sender<Option<Violation>>,
    /// What the subjects of its inboxes begin with, the dot included.
    inbox: String,
    link: watch::Sender<Link>,
}

impl Connection {
    /// For a user whose inboxes begin with `inbox_prefix`.
    pub fn new(inbox_prefix: &str) -> Self {
        Self {
            violations: broadcast::channel(64).0,
            inbox_denied: watch::Sender::new(None),
            inbox: format!("{inbox_prefix}."),
            link: watch::Sender::default(),
        }
    }

    /// Logs what happens and passes violations and returns on.
    pub fn on_event(&self, event: Event) {
        match event {
            Event::Connected => {
                // Subscriptions are made anew, and perhaps by a user with other permissions.
                self.inbox_denied.send_replace(None);
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
                if let Some(violation) = Violation::parse(&message) {
                    self.on_violation(violation);
                }
            }
            Event::ServerError(error) => tracing::error!(%error, "the broker reports an error"),
            // One for each try to connect; the loss was logged.
            Event::ClientError(error) => tracing::debug!(%error, "no connection to the broker"),
            event => tracing::info!(%event, "broker"),
        }
    }

    fn on_violation(&self, violation: Violation) {
        let of_inbox = violation.subject.starts_with(&self.inbox);
        if violation.action == Action::Subscribe && of_inbox {
            self.inbox_denied.send_replace(Some(violation.clone()));
        }
        // An error only says that no request waits.
        let _ = self.violations.send(violation);
    }

    /// Completes with the broker's sentence when a request cannot succeed: one to a subject that
    /// holds `subject_part` was refused, or no answer can ever be received.
    ///
    /// Listens from the call on, so that a request sent after it cannot be missed.
    pub fn denied<'a>(&self, subject_part: &'a str) -> impl Future<Output = String> + use<'a> {
        let mut violations = self.violations.subscribe();
        let mut inbox_denied = self.inbox_denied.subscribe();
        let request = async move {
            loop {
                match violations.recv().await {
                    Ok(violation) if violation.subject.contains(subject_part) => {
                        return violation.message;
                    }
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
                }
            }
        };
        let answer = async move {
            let denied = inbox_denied.wait_for(Option::is_some).await;
            match denied.ok().and_then(|violation| violation.clone()) {
                Some(violation) => format!(
                    "{}, so no answer can be received: set --nats-inbox (NATS_INBOX_PREFIX) to \
                     the prefix that this user may subscribe to",
                    violation.message
                ),
                None => std::future::pending().await,
            }
        };
        async move {
            tokio::select! {
                message = request => message,
                message = answer => message,
            }
        }
    }

    /// Completes, time after time, when a lost connection has come back.
    pub fn returns(&self) -> Returns {
        Returns { link: self.link.subscribe(), seen: self.link.borrow().returns }
    }
}

/// See [`Connection::returns`].
pub(super) struct Returns {
    link: watch::Receiver<Link>,
    seen: u64,
}

impl Returns {
    /// Completes at the next return.
    pub async fn next(&mut self) {
        let seen = self.seen;
        match self.link.wait_for(|link| link.returns > seen).await.map(|link| link.returns) {
            Ok(returns) => self.seen = returns,
            Err(_) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_is_read_from_the_brokers_sentence() {
        let parsed = |text: &str| Violation::parse(text).map(|v| (v.action, v.subject));
        let publish = r#"Permissions Violation for Publish to "$JS.API.STREAM.INFO.X""#;
        assert_eq!(parsed(publish), Some((Action::Publish, "$JS.API.STREAM.INFO.X".into())));
        let subscribe = r#"Permissions Violation for Subscription to "a.>" using queue "q""#;
        assert_eq!(parsed(subscribe), Some((Action::Subscribe, "a.>".into())));
        assert_eq!(parsed("Maximum Payload Violation"), None);
    }
}
