//! The connection with the streams, buckets and consumers that were opened on it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::{kv, stream};
use bakeoff_proto::names;
use tokio::sync::OnceCell;

use super::broker::Broker;
use crate::args::NatsArgs;
use crate::queue::QueueError;

/// Everything on the broker, each looked up at its first use.
pub(super) struct Handles {
    pub broker: Broker,
    attempts: OnceCell<kv::Store>,
    control: OnceCell<kv::Store>,
    jobs: OnceCell<stream::Stream>,
    consumers: Mutex<HashMap<String, PullConsumer>>,
}

impl Handles {
    /// Connects; nothing is looked up yet.
    pub async fn connect(args: &NatsArgs) -> Result<Self, QueueError> {
        Ok(Self {
            broker: Broker::connect(args).await?,
            attempts: OnceCell::new(),
            control: OnceCell::new(),
            jobs: OnceCell::new(),
            consumers: Mutex::new(HashMap::new()),
        })
    }

    /// The bucket of attempts.
    pub async fn attempts(&self) -> Result<&kv::Store, QueueError> {
        let open = || self.broker.bucket(names::ATTEMPTS_BUCKET);
        self.attempts.get_or_try_init(open).await
    }

    /// The bucket of cancellations.
    pub async fn control(&self) -> Result<&kv::Store, QueueError> {
        let open = || self.broker.bucket(names::CONTROL_BUCKET);
        self.control.get_or_try_init(open).await
    }

    /// The stream of jobs.
    pub async fn jobs(&self) -> Result<&stream::Stream, QueueError> {
        let open = || self.broker.stream(names::JOBS_STREAM);
        self.jobs.get_or_try_init(open).await
    }

    /// The consumer of a class, or `None` if the coordinator has not made it (yet).
    pub async fn consumer(&self, class: &str) -> Result<Option<PullConsumer>, QueueError> {
        let name = names::consumer_name(class);
        let known = || self.consumers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(consumer) = known().get(&name) {
            return Ok(Some(consumer.clone()));
        }
        let found = self.broker.consumer(&name).await?;
        if let Some(consumer) = &found {
            known().insert(name, consumer.clone());
        }
        Ok(found)
    }

    /// Looks the consumer of a class up again at its next use.
    pub fn forget_consumer(&self, class: &str) {
        let mut known = self.consumers.lock().unwrap_or_else(PoisonError::into_inner);
        known.remove(&names::consumer_name(class));
    }
}
