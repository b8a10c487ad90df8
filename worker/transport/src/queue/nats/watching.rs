//! Streams that outlive a broker's restart: live events, and the cancellation of a sweep.

use std::time::Duration;

use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use async_nats::jetstream::kv;
use bakeoff_proto::{JobEvent, SweepName, names};
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::{mpsc, watch};

use super::broker::{Broker, chain};
use crate::queue::QueueError;

/// Pause before a broken stream is opened again.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);

pub(super) async fn events(
    broker: Broker,
    sweep: &SweepName,
) -> Result<BoxStream<'static, JobEvent>, QueueError> {
    let filter = names::sweep_events_filter(sweep);
    let mut messages = open_events(&broker, &filter).await?;
    let (sender, receiver) = mpsc::channel(1024);
    tokio::spawn(async move {
        loop {
            let next = tokio::select! {
                next = messages.next() => next,
                () = sender.closed() => return,
            };
            match next {
                Some(Ok(message)) => match serde_json::from_slice::<JobEvent>(&message.payload) {
                    Ok(event) => {
                        if sender.send(event).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => tracing::debug!(%error, "an event that does not parse"),
                },
                Some(Err(error)) => tracing::debug!(%error, "the stream of events stumbled"),
                None => {
                    tokio::time::sleep(REOPEN_PAUSE).await;
                    match open_events(&broker, &filter).await {
                        Ok(reopened) => messages = reopened,
                        Err(error) => tracing::warn!(%error, "events cannot be read for now"),
                    }
                }
            }
        }
    });
    Ok(tokio_stream::wrappers::ReceiverStream::new(receiver).boxed())
}

async fn open_events(broker: &Broker, filter: &str) -> Result<pull::Ordered, QueueError> {
    let operation = "watching events";
    let stream = broker.stream(names::EVENTS_STREAM).await?;
    let config = pull::OrderedConfig {
        filter_subject: filter.to_owned(),
        deliver_policy: DeliverPolicy::LastPerSubject,
        ..pull::OrderedConfig::default()
    };
    let create = stream.create_consumer(config);
    let consumer = broker
        .unless_denied(operation, "CONSUMER.CREATE", create)
        .await?
        .map_err(|error| broker.failed(operation, &chain(&error)))?;
    consumer.messages().await.map_err(|error| broker.failed(operation, &chain(&error)))
}

/// Follows a sweep's key until nobody listens any more.
pub(super) async fn cancellation(
    broker: Broker,
    bucket: kv::Store,
    sweep: &SweepName,
) -> Result<watch::Receiver<bool>, QueueError> {
    let key = names::control_key(sweep);
    let operation = "watching for a cancellation";
    let current = broker
        .unless_denied(operation, names::CONTROL_BUCKET, bucket.get(key.clone()))
        .await?
        .map_err(|error| broker.failed(operation, &chain(&error)))?;
    let (sender, receiver) = watch::channel(current.is_some());
    // The first watch is opened here, so that a missing permission is the caller's to know.
    // With history: what happened since the last look is not missed.
    let mut opened = broker
        .unless_denied(operation, "CONSUMER.CREATE", bucket.watch_with_history(key.clone()))
        .await?;
    tokio::spawn(async move {
        loop {
            match opened {
                Ok(mut entries) => loop {
                    let next = tokio::select! {
                        next = entries.next() => next,
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
                () = tokio::time::sleep(REOPEN_PAUSE) => {}
                () = sender.closed() => return,
            }
            opened = bucket.watch_with_history(&key).await;
        }
    });
    Ok(receiver)
}
