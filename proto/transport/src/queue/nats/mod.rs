//! The queue on NATS JetStream: a work-queue stream for jobs, a limits stream for live events, and
//! two key-value buckets for attempts and control.

mod broker;
mod delivery;
mod setup;
mod tls;
mod watching;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::kv::{CreateErrorKind, Operation, UpdateErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{ErrorCode, kv, stream};
use async_trait::async_trait;
use bakeoff_proto::{Attempt, Job, JobEvent, JobId, SweepName, names};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use tokio::sync::{OnceCell, watch};
use tokio::time::Instant;

use self::broker::Broker;
use self::delivery::NatsDelivery;
use super::{Delivery, JobQueue, Published, QueueError, QueueSettings, QueueStats, Revision};
use crate::args::NatsArgs;
use crate::logging::trace_context;

/// One pull request waits so long at the broker. Classes are asked in turn, never at once: of two
/// requests open at the same time both may be answered, and a job would lie with a worker that is
/// busy with another.
const PULL_SLICE: Duration = Duration::from_secs(1);
/// The broker answers an expired pull request itself; this is for the case that it is gone.
const PULL_GRACE: Duration = Duration::from_secs(2);

/// The queue on a NATS broker. Clones share the connection.
#[derive(Clone)]
pub struct NatsQueue {
    inner: Arc<Inner>,
}

struct Inner {
    broker: Broker,
    attempts: OnceCell<kv::Store>,
    control: OnceCell<kv::Store>,
    jobs: OnceCell<stream::Stream>,
    consumers: Mutex<HashMap<String, PullConsumer>>,
}

impl NatsQueue {
    /// Connects, trying for `nats_connect_s` seconds; after that, reconnects for ever by itself.
    ///
    /// # Errors
    /// Refused credentials at once, an unreachable broker after the time given.
    pub async fn connect(args: &NatsArgs) -> Result<Self, QueueError> {
        let inner = Inner {
            broker: Broker::connect(args).await?,
            attempts: OnceCell::new(),
            control: OnceCell::new(),
            jobs: OnceCell::new(),
            consumers: Mutex::new(HashMap::new()),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The server's version, for `doctor`.
    pub fn server_version(&self) -> String {
        self.inner.broker.client.server_info().version
    }

    async fn attempts(&self) -> Result<&kv::Store, QueueError> {
        let open = || self.inner.broker.bucket(names::ATTEMPTS_BUCKET);
        self.inner.attempts.get_or_try_init(open).await
    }

    async fn control(&self) -> Result<&kv::Store, QueueError> {
        let open = || self.inner.broker.bucket(names::CONTROL_BUCKET);
        self.inner.control.get_or_try_init(open).await
    }

    async fn jobs(&self) -> Result<&stream::Stream, QueueError> {
        let open = || self.inner.broker.stream(names::JOBS_STREAM);
        self.inner.jobs.get_or_try_init(open).await
    }

    /// The consumer of a class, or `None` if the coordinator has not made it (yet).
    async fn consumer(&self, class: &str) -> Result<Option<PullConsumer>, QueueError> {
        let name = names::consumer_name(class);
        let known = || self.inner.consumers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(consumer) = known().get(&name) {
            return Ok(Some(consumer.clone()));
        }
        let found = self.inner.broker.consumer(&name).await?;
        if let Some(consumer) = &found {
            known().insert(name, consumer.clone());
        }
        Ok(found)
    }

    fn forget_consumer(&self, class: &str) {
        let mut known = self.inner.consumers.lock().unwrap_or_else(PoisonError::into_inner);
        known.remove(&names::consumer_name(class));
    }

    /// One pull request of one class.
    async fn pull_class(
        &self,
        consumer: &PullConsumer,
        class: &str,
        expires: Duration,
    ) -> Result<Option<NatsDelivery>, QueueError> {
        let broker = &self.inner.broker;
        let operation = format!("pulling jobs of class {class}");
        let request = async {
            // No heartbeat: in async-nats 0.51 a batch with one loses wake-ups, returns nothing
            // and burns a delivery.
            let mut batch = consumer.batch().max_messages(1).expires(expires).messages().await?;
            batch.next().await.transpose()
        };
        let bounded = tokio::time::timeout(expires + PULL_GRACE, request);
        match broker.unless_denied(&operation, "CONSUMER.MSG.NEXT", bounded).await? {
            Ok(Ok(message)) => Ok(message.map(|m| NatsDelivery::new(broker.clone(), m))),
            Ok(Err(error)) => {
                // The consumer may have been deleted or moved: look it up again next time.
                self.forget_consumer(class);
                Err(broker.failed(&operation, &error))
            }
            Err(_) => {
                self.forget_consumer(class);
                Err(broker.failed(&operation, &"no answer to the pull request"))
            }
        }
    }
}

#[async_trait]
impl JobQueue for NatsQueue {
    async fn prepare(
        &self,
        settings: &QueueSettings,
        classes: &[String],
    ) -> Result<(), QueueError> {
        setup::prepare(&self.inner.broker, settings, classes).await
    }

    async fn publish(&self, job: &Job) -> Result<Published, QueueError> {
        let broker = &self.inner.broker;
        let payload = super::encode(job)?;
        let limit = broker.client.max_payload();
        if payload.len() > limit {
            return Err(super::too_large(job, payload.len(), limit));
        }
        let subject = names::job_subject(job);
        let operation = format!("publishing job {}", job.id);
        let mut id = names::message_id(job);
        loop {
            let mut message =
                PublishMessage::build().message_id(&id).payload(payload.clone().into());
            for (name, value) in trace_context::headers() {
                message = message.header(name.as_str(), value.as_str());
            }
            let send = async { broker.context.send_publish(subject.clone(), message).await?.await };
            match broker.unless_denied(&operation, &subject, send).await? {
                Ok(ack) if !ack.duplicate => return Ok(Published::Queued),
                Ok(ack) => {
                    if self.is_queued(&subject, &operation).await? {
                        return Ok(Published::AlreadyQueued);
                    }
                    // The first message has left the queue within the duplicate window. Two
                    // coordinators that come here at once make the same new id.
                    id = format!("{id}/{}", ack.sequence);
                }
                Err(error) => match broker::jetstream_code(&error) {
                    // "maximum messages per subject exceeded": the job still lies there.
                    Some(ErrorCode::STREAM_STORE_FAILED)
                        if self.is_queued(&subject, &operation).await? =>
                    {
                        return Ok(Published::AlreadyQueued);
                    }
                    _ => return Err(broker.publish_failed(&operation, &error)),
                },
            }
        }
    }

    async fn open_jobs(&self, sweep: &SweepName) -> Result<Vec<JobId>, QueueError> {
        let operation = "listing queued jobs";
        let broker = &self.inner.broker;
        let jobs = self.jobs().await?;
        let list = async {
            let subjects = jobs.info_with_subjects(names::sweep_jobs_filter(sweep)).await;
            match subjects {
                Ok(subjects) => subjects.try_collect::<Vec<(String, usize)>>().await,
                Err(error) => Err(error),
            }
        };
        let found = broker
            .unless_denied(operation, "STREAM.INFO", list)
            .await?
            .map_err(|error| broker.failed(operation, &error))?;
        let id = |subject: &str| subject.rsplit('.').next().and_then(JobId::parse);
        Ok(found.iter().filter_map(|(subject, _)| id(subject)).collect())
    }

    async fn stats(&self, classes: &[String]) -> Result<QueueStats, QueueError> {
        let broker = &self.inner.broker;
        let operation = "reading the consumers' state";
        let jobs = self.jobs().await?;
        let list = jobs.consumers().try_collect::<Vec<_>>();
        let consumers = broker
            .unless_denied(operation, "CONSUMER.LIST", list)
            .await?
            .map_err(|error| broker.failed(operation, &error))?;
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

    async fn events_told(&self) -> Result<u64, QueueError> {
        let stream = self.inner.broker.stream(names::EVENTS_STREAM).await?;
        Ok(stream.cached_info().state.last_sequence)
    }

    async fn events(&self, sweep: &SweepName) -> Result<BoxStream<'static, JobEvent>, QueueError> {
        watching::events(self.inner.broker.clone(), sweep).await
    }

    async fn cancel(&self, sweep: &SweepName) -> Result<(), QueueError> {
        let broker = &self.inner.broker;
        let operation = format!("cancelling {sweep}");
        let put = self.control().await?.put(names::control_key(sweep), "cancel".into());
        broker
            .unless_denied(&operation, names::CONTROL_BUCKET, put)
            .await?
            .map_err(|error| broker.failed(&operation, &error))?;
        let purge = self.jobs().await?.purge().filter(names::sweep_jobs_filter(sweep));
        broker
            .unless_denied(&operation, "STREAM.PURGE", purge.into_future())
            .await?
            .map_err(|error| broker.failed(&operation, &error))?;
        Ok(())
    }

    async fn is_cancelled(&self, sweep: &SweepName) -> Result<bool, QueueError> {
        let broker = &self.inner.broker;
        let operation = format!("asking whether {sweep} is cancelled");
        let get = self.control().await?.get(names::control_key(sweep));
        let found = broker
            .unless_denied(&operation, names::CONTROL_BUCKET, get)
            .await?
            .map_err(|error| broker.failed(&operation, &error))?;
        Ok(found.is_some())
    }

    async fn clear_cancel(&self, sweep: &SweepName) -> Result<(), QueueError> {
        let broker = &self.inner.broker;
        let operation = format!("lifting the cancellation of {sweep}");
        let delete = self.control().await?.delete(names::control_key(sweep));
        broker
            .unless_denied(&operation, names::CONTROL_BUCKET, delete)
            .await?
            .map_err(|error| broker.failed(&operation, &error))
    }

    async fn pull(
        &self,
        classes: &[String],
        wait: Duration,
    ) -> Result<Option<Box<dyn Delivery>>, QueueError> {
        let deadline = Instant::now() + wait;
        loop {
            let mut known = 0;
            for class in classes {
                let Some(consumer) = self.consumer(class).await? else { continue };
                known += 1;
                let left = deadline.saturating_duration_since(Instant::now());
                // A request of no length would be refused.
                let expires = left.min(PULL_SLICE).max(Duration::from_millis(50));
                if let Some(delivery) = self.pull_class(&consumer, class, expires).await? {
                    // After a restart the broker counts the lease from the publish time, so a job
                    // that waited long would be delivered again at once: this renews it.
                    if let Err(error) = delivery.progress().await {
                        tracing::warn!(%error, "a job just received could not be renewed");
                    }
                    return Ok(Some(Box::new(delivery)));
                }
            }
            if known == 0 {
                return Err(QueueError::Missing {
                    what: format!(
                        "a consumer for {} in the stream {}",
                        classes.join(" or "),
                        names::JOBS_STREAM
                    ),
                });
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
        }
    }

    async fn load_attempt(&self, job: &Job) -> Result<Option<(Attempt, Revision)>, QueueError> {
        let broker = &self.inner.broker;
        let key = names::attempt_key(&job.sweep, &job.id, job.generation);
        let operation = format!("reading the attempt at job {}", job.id);
        let read = self.attempts().await?.entry(key);
        let entry = broker
            .unless_denied(&operation, names::ATTEMPTS_BUCKET, read)
            .await?
            .map_err(|error| broker.failed(&operation, &error))?;
        let Some(entry) = entry.filter(|entry| entry.operation == Operation::Put) else {
            return Ok(None);
        };
        let attempt = serde_json::from_slice(&entry.value)
            .map_err(|error| broker.failed(&operation, &error))?;
        Ok(Some((attempt, Revision(entry.revision))))
    }

    async fn store_attempt(
        &self,
        job: &Job,
        attempt: &Attempt,
        expected: Option<Revision>,
    ) -> Result<Revision, QueueError> {
        let broker = &self.inner.broker;
        let key = names::attempt_key(&job.sweep, &job.id, job.generation);
        let operation = format!("claiming job {}", job.id);
        let bytes: bytes::Bytes =
            serde_json::to_vec(attempt).map_err(|error| broker.failed(&operation, &error))?.into();
        let bucket = self.attempts().await?;
        let stored = match expected {
            None => {
                let create = bucket.create(key, bytes);
                broker.unless_denied(&operation, names::ATTEMPTS_BUCKET, create).await?.map_err(
                    |error| match error.kind() {
                        CreateErrorKind::AlreadyExists => QueueError::Conflict,
                        _ => broker.failed(&operation, &error),
                    },
                )
            }
            Some(Revision(revision)) => {
                let update = bucket.update(key, bytes, revision);
                broker.unless_denied(&operation, names::ATTEMPTS_BUCKET, update).await?.map_err(
                    |error| match error.kind() {
                        UpdateErrorKind::WrongLastRevision => QueueError::Conflict,
                        _ => broker.failed(&operation, &error),
                    },
                )
            }
        };
        stored.map(Revision)
    }

    async fn emit(&self, event: &JobEvent) -> Result<(), QueueError> {
        let broker = &self.inner.broker;
        let subject = names::event_subject(&event.sweep, &event.job);
        let bytes =
            serde_json::to_vec(event).map_err(|error| broker.failed("telling an event", &error))?;
        let sent = broker.client.publish(subject, bytes.into()).await;
        sent.map_err(|error| broker.failed("telling an event", &error))
    }

    fn connected(&self) -> bool {
        self.inner.broker.client.connection_state() == State::Connected
    }

    async fn watch_cancel(&self, sweep: &SweepName) -> Result<watch::Receiver<bool>, QueueError> {
        let bucket = self.control().await?.clone();
        watching::cancellation(self.inner.broker.clone(), bucket, sweep).await
    }
}

impl NatsQueue {
    async fn is_queued(&self, subject: &str, operation: &str) -> Result<bool, QueueError> {
        let broker = &self.inner.broker;
        let jobs = self.jobs().await?;
        let list = async {
            match jobs.info_with_subjects(subject).await {
                Ok(subjects) => subjects.try_collect::<Vec<(String, usize)>>().await,
                Err(error) => Err(error),
            }
        };
        let found = broker
            .unless_denied(operation, "STREAM.INFO", list)
            .await?
            .map_err(|error| broker.failed(operation, &error))?;
        Ok(!found.is_empty())
    }
}
