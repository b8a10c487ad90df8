//! The queue on NATS JetStream: a work-queue stream for jobs, a limits stream for live events, and
//! two key-value buckets for attempts and control.
//!
//! - `broker`: the connection, and errors by kind; `options`, `tls`, `connection`: how it is made,
//!   why it fails, what happens on it
//! - `handles`: streams, buckets and consumers, opened once
//! - `setup`: how they are laid out
//! - `publish`, `pull`, `delivery`: jobs in and out
//! - `attempts`, `control`, `stats`: what else the queue holds
//! - `watching`: streams that outlive a broker's restart

mod attempts;
mod broker;
mod connection;
mod control;
mod delivery;
mod handles;
mod options;
mod publish;
mod pull;
mod setup;
mod stats;
mod tls;
mod watching;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bakeoff_proto::{Attempt, Job, JobEvent, JobId, SweepId, SweepName, names};
use futures::stream::BoxStream;
use tokio::sync::watch;

use self::handles::Handles;
use super::{Delivery, JobQueue, Published, QueueError, QueueSettings, QueueStats, Revision};
use crate::args::NatsArgs;

/// The queue on a NATS broker. Clones share the connection.
#[derive(Clone)]
pub struct NatsQueue {
    handles: Arc<Handles>,
}

impl NatsQueue {
    /// Connects, trying for `nats_connect_s` seconds; after that, reconnects for ever by itself.
    ///
    /// # Errors
    /// Refused credentials at once, an unreachable broker after the time given.
    pub async fn connect(args: &NatsArgs) -> Result<Self, QueueError> {
        Ok(Self { handles: Arc::new(Handles::connect(args).await?) })
    }

    /// The server's version, for `doctor`.
    pub fn server_version(&self) -> String {
        self.handles.broker.client.server_info().version
    }
}

#[async_trait]
impl JobQueue for NatsQueue {
    async fn prepare(
        &self,
        settings: &QueueSettings,
        classes: &[String],
    ) -> Result<(), QueueError> {
        setup::prepare(&self.handles.broker, settings, classes).await
    }

    async fn publish(&self, job: &Job) -> Result<Published, QueueError> {
        self.handles.publish(job).await
    }

    async fn open_jobs(&self, sweep: &SweepId) -> Result<Vec<JobId>, QueueError> {
        self.handles.open_jobs(sweep).await
    }

    async fn stats(&self, classes: &[String]) -> Result<QueueStats, QueueError> {
        self.handles.stats(classes).await
    }

    async fn event_count(&self) -> Result<u64, QueueError> {
        let stream = self.handles.broker.stream(names::EVENTS_STREAM).await?;
        Ok(stream.cached_info().state.last_sequence)
    }

    async fn events(&self, sweep: &SweepName) -> Result<BoxStream<'static, JobEvent>, QueueError> {
        watching::events(self.handles.broker.clone(), sweep).await
    }

    async fn cancel(&self, sweep: &SweepId) -> Result<(), QueueError> {
        self.handles.cancel(sweep).await
    }

    async fn is_cancelled(&self, sweep: &SweepId) -> Result<bool, QueueError> {
        self.handles.is_cancelled(sweep).await
    }

    async fn clear_cancel(&self, sweep: &SweepId) -> Result<(), QueueError> {
        self.handles.clear_cancel(sweep).await
    }

    async fn pull(
        &self,
        classes: &[String],
        wait: Duration,
    ) -> Result<Option<Box<dyn Delivery>>, QueueError> {
        let pulled = self.handles.pull(classes, wait).await?;
        Ok(pulled.map(|delivery| Box::new(delivery) as Box<dyn Delivery>))
    }

    async fn load_attempt(&self, job: &Job) -> Result<Option<(Attempt, Revision)>, QueueError> {
        self.handles.load_attempt(job).await
    }

    async fn store_attempt(
        &self,
        job: &Job,
        attempt: &Attempt,
        expected: Option<Revision>,
    ) -> Result<Revision, QueueError> {
        self.handles.store_attempt(job, attempt, expected).await
    }

    async fn emit(&self, event: &JobEvent) -> Result<(), QueueError> {
        self.handles.emit(event).await
    }

    fn connected(&self) -> bool {
        self.handles.broker.is_connected()
    }

    async fn watch_cancel(&self, sweep: &SweepId) -> Result<watch::Receiver<bool>, QueueError> {
        let bucket = self.handles.control().await?.clone();
        watching::cancellation(self.handles.broker.clone(), bucket, sweep).await
    }
}
