//! Figures of the queue, and its live events.

use bakeoff_proto::{JobEvent, names};
use futures::TryStreamExt;

use super::handles::Handles;
use crate::queue::{QueueError, QueueStats};

impl Handles {
    /// Figures of these GPU classes; of all, if none is named.
    pub async fn stats(&self, classes: &[String]) -> Result<QueueStats, QueueError> {
        let broker = &self.broker;
        let operation = "reading the consumers' state";
        let jobs = self.jobs().await?;
        let list = jobs.consumers().try_collect::<Vec<_>>();
        let consumers = broker
            .unless_denied(operation, "CONSUMER.LIST", list)
            .await?
            .map_err(|error| broker.failed(operation, error))?;
        let names: Vec<_> = classes.iter().map(|class| names::consumer_name(class)).collect();
        let mut stats = QueueStats::default();
        for consumer in consumers {
            if !names.is_empty() && !names.contains(&consumer.name) {
                continue;
            }
            stats.lease = stats.lease.max(consumer.config.ack_wait);
            stats.pending += consumer.num_pending;
            stats.in_flight += consumer.num_ack_pending as u64;
            stats.waiting_workers += consumer.num_waiting as u64;
        }
        Ok(stats)
    }

    /// Sends a live event, unconfirmed.
    pub async fn emit(&self, event: &JobEvent) -> Result<(), QueueError> {
        let broker = &self.broker;
        let subject = names::event_subject(&event.sweep, &event.job);
        let bytes =
            serde_json::to_vec(event).map_err(|error| broker.failed("sending an event", error))?;
        let sent = broker.client.publish(subject, bytes.into()).await;
        sent.map_err(|error| broker.failed("sending an event", error))
    }
}
