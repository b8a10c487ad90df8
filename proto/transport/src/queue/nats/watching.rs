//! Streams that outlive a broker's restart: live events, and the cancellation of a sweep.

use std::time::Duration;

use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use async_nats::jetstream::kv;
use bakeoff_proto::{JobEvent, SweepId, SweepName, names};
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::{mpsc, watch};

use super::broker::Broker;
use crate::queue::QueueError;

/// Pause before a broken stream is opened again.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);

pub(super) async fn events(
    broker: Broker,
    sweep: &SweepName,
) -> Result<BoxStream<'static, JobEvent>, QueueError> {
    let filter = names::sweep_events_filter(sweep);
    let mut returns = broker.returns();
    let mut messages = open_events(&broker, &filter, None).await?;
    let (sender, receiver) = mpsc::channel(1024);
    tokio::spawn(async move {
        let mut last = None;
        loop {
            let next = tokio::select! {
                next = messages.next() => next,
                // The consumer may be gone; the library would notice after a while.
                () = returns.next() => None,
                () = sender.closed() => return,
            };
            match next {
                Some(Ok(message)) => {
                    last = message.info().map(|info| info.stream_sequence).ok().or(last);
                    match serde_json::from_slice::<JobEvent>(&message.payload) {
                        Ok(event) => {
                            if sender.send(event).await.is_err() {
                                return;
                            }
                        }
                        Err(error) => tracing::debug!(%error, "an event that does not parse"),
                    }
                }
                Some(Err(error)) => tracing::debug!(%error, "the stream of events stumbled"),
                None => {
                    tokio::select! {
                        reopened = reopen_events(&broker, &filter, last) => messages = reopened,
                        () = sender.closed() => return,
                    }
                }
            }
        }
    });
    Ok(tokio_stream::wrappers::ReceiverStream::new(receiver).boxed())
}

async fn reopen_events(broker: &Broker, filter: &str, last: Option<u64>) -> pull::Ordered {
    loop {
        match open_events(broker, filter, last).await {
            Ok(reopened) => return reopened,
            Err(error) => tracing::warn!(%error, "events cannot be read for now"),
        }
        tokio::time::sleep(REOPEN_PAUSE).await;
    }
}

/// The events after `last`; without one, or when the broker has lost them, the latest of each job
/// first.
async fn open_events(
    broker: &Broker,
    filter: &str,
    last: Option<u64>,
) -> Result<pull::Ordered, QueueError> {
    let operation = "watching events";
    let stream = broker.stream(names::EVENTS_STREAM).await?;
    let known = last.filter(|last| *last <= stream.cached_info().state.last_sequence);
    let config = pull::OrderedConfig {
        filter_subject: filter.to_owned(),
        deliver_policy: match known {
            Some(last) => DeliverPolicy::ByStartSequence { start_sequence: last + 1 },
            None => DeliverPolicy::LastPerSubject,
        },
        ..pull::OrderedConfig::default()
    };
    let create = stream.create_consumer(config);
    let consumer = broker
        .unless_denied(operation, "CONSUMER.CREATE", create)
        .await?
        .map_err(|error| broker.failed(operation, error))?;
    consumer.messages().await.map_err(|error| broker.failed(operation, error))
}

/// Follows a sweep's key until nobody listens any more.
pub(super) async fn cancellation(
    broker: Broker,
    bucket: kv::Store,
    sweep: &SweepId,
) -> Result<watch::Receiver<bool>, QueueError> {
    let key = names::control_key(sweep);
    let operation = "watching for a cancellation";
    let current = broker
        .unless_denied(operation, names::CONTROL_BUCKET, bucket.get(key.clone()))
        .await?
        .map_err(|error| broker.failed(operation, error))?;
    let (sender, receiver) = watch::channel(current.is_some());
    let mut returns = broker.returns();
    // The first watch is opened here, so that a missing permission is the caller's to know.
    // With history: what happened since the last look is not missed.
    let mut opened = broker
        .unless_denied(operation, "CONSUMER.CREATE", bucket.watch_with_history(key.clone()))
        .await?;
    tokio::spawn(async move {
        loop {
            let mut pause = REOPEN_PAUSE;
            match opened {
                Ok(mut entries) => loop {
                    let next = tokio::select! {
                        next = entries.next() => next,
                        // A cancellation must not wait until the library misses its consumer.
                        () = returns.next() => {
                            pause = Duration::ZERO;
                            None
                        }
                        () = sender.closed() => return,
                    };
                    match next {
                        Some(Ok(entry)) => {
                            let cancelled = entry.operation == kv::Operation::Put;
                            sender.send_if_modified(|now| {
                                std::mem::replace(now, cancelled) != cancelled
                            });
                        }
                        Some(Err(error)) => tracing::debug!(%error, "a watch stumbled"),
                        None => break,
                    }
                },
                Err(error) => tracing::warn!(%error, "cancellations cannot be watched for now"),
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = sender.closed() => return,
            }
            opened = bucket.watch_with_history(&key).await;
        }
    });
    Ok(receiver)
}
