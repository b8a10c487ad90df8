//! A durable pull queue of jobs, with leases, attempts, live events and cancellation.
//!
//! Two implementations obey one conformance suite: NATS JetStream, and an in-process queue for the
//! self-contained mode. Semantics common to both:
//! - a job already queued under the same subject is refused, never doubled;
//! - a delivery is a lease: without [`Delivery::progress`] it lapses and the job is delivered
//!   again;
//! - acks do not fence: whoever works claims an attempt first ([`JobQueue::store_attempt`]).

mod error;
pub mod memory;
mod message;
pub mod nats;

pub use error::QueueError;

use std::time::Duration;

use async_trait::async_trait;
use bakeoff_proto::{Attempt, Job, JobEvent, JobId, SweepId, SweepName};
use futures::stream::BoxStream;
use tokio::sync::watch;

/// What became of a published job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    Queued,
    /// The same job is still queued or being worked on; nothing was added.
    AlreadyQueued,
}

/// Version of an attempt entry, for compare-and-set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revision(pub u64);

/// What the queue holds of some GPU classes, for "no worker is pulling" and for progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueStats {
    /// Jobs waiting for a worker.
    pub pending: u64,
    /// Jobs given to a worker and not ended. The broker counts a lapsed lease here too, until the
    /// job is given to the next worker.
    pub in_flight: u64,
    /// Workers waiting for a job right now. One that serves two classes waits at each in turn.
    pub waiting_workers: u64,
    /// How long a silent worker keeps a job; the longest of the classes.
    pub lease: Duration,
}

/// How the queue is laid out; the coordinator's to decide.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueSettings {
    pub ack_wait: Duration,
    pub replicas: usize,
    /// Upper bound on the jobs stream, in bytes; `None` leaves it to the server.
    pub max_bytes: Option<i64>,
    pub duplicate_window: Duration,
    pub events_max_age: Duration,
    pub max_ack_pending: i64,
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self {
            ack_wait: Duration::from_secs(60),
            replicas: 1,
            max_bytes: None,
            duplicate_window: Duration::from_secs(120),
            events_max_age: Duration::from_secs(24 * 3600),
            max_ack_pending: 1024,
        }
    }
}

/// Both sides of the queue.
#[async_trait]
pub trait JobQueue: Send + Sync + 'static {
    // --- the coordinator's side ---

    /// Creates stream, consumers and buckets for these GPU classes, or checks that they fit.
    async fn prepare(&self, settings: &QueueSettings, classes: &[String])
    -> Result<(), QueueError>;

    /// Adds a job and waits until the queue has it on disk.
    async fn publish(&self, job: &Job) -> Result<Published, QueueError>;

    /// Ids of the jobs of a sweep that are queued or being worked on.
    async fn open_jobs(&self, sweep: &SweepId) -> Result<Vec<JobId>, QueueError>;

    /// Figures of these GPU classes; of all, if none is named.
    async fn stats(&self, classes: &[String]) -> Result<QueueStats, QueueError>;

    /// Number of events ever sent, of all sweeps: as long as it grows, some worker is at work.
    async fn event_count(&self) -> Result<u64, QueueError>;

    /// Events of a sweep: the latest of each job first, then as they come.
    async fn events(&self, sweep: &SweepName) -> Result<BoxStream<'static, JobEvent>, QueueError>;

    /// Drops the queued jobs of a sweep and tells the workers to stop those they hold.
    async fn cancel(&self, sweep: &SweepId) -> Result<(), QueueError>;

    /// Whether a cancellation of the sweep stands.
    async fn is_cancelled(&self, sweep: &SweepId) -> Result<bool, QueueError>;

    /// Lifts a cancellation, so that a later submission of the sweep runs.
    async fn clear_cancel(&self, sweep: &SweepId) -> Result<(), QueueError>;

    // --- the worker's side ---

    /// The next job of one of these classes, waiting at most `wait`. On return, its lease has been
    /// renewed once.
    async fn pull(
        &self,
        classes: &[String],
        wait: Duration,
    ) -> Result<Option<Box<dyn Delivery>>, QueueError>;

    /// The latest attempt at a job, with its revision.
    async fn load_attempt(&self, job: &Job) -> Result<Option<(Attempt, Revision)>, QueueError>;

    /// Writes an attempt if the entry still is at `expected` (`None`: absent).
    /// [`QueueError::Conflict`] when it is not.
    async fn store_attempt(
        &self,
        job: &Job,
        attempt: &Attempt,
        expected: Option<Revision>,
    ) -> Result<Revision, QueueError>;

    /// Sends a live event. Best effort: the caller logs an error and goes on.
    async fn emit(&self, event: &JobEvent) -> Result<(), QueueError>;

    /// Whether the queue can be talked to at this moment. One inside this process always can.
    fn connected(&self) -> bool {
        true
    }

    /// Becomes `true` when the sweep is cancelled.
    async fn watch_cancel(&self, sweep: &SweepId) -> Result<watch::Receiver<bool>, QueueError>;
}

/// A leased job.
#[async_trait]
pub trait Delivery: Send + Sync {
    /// The job as it was published, not yet parsed.
    fn payload(&self) -> &[u8];

    /// How often this message was delivered, this time included.
    fn delivered(&self) -> u64;

    /// Trace context and the like.
    fn headers(&self) -> &[(String, String)];

    /// Renews the lease.
    async fn progress(&self) -> Result<(), QueueError>;

    /// Ends the job, confirmed by the broker. [`QueueError::LeaseLost`] when nobody confirms.
    async fn ack(&self) -> Result<(), QueueError>;

    /// Hands the job back, to be delivered again after `delay`.
    async fn nak(&self, delay: Duration) -> Result<(), QueueError>;

    /// Ends the job for good; `reason` appears in the broker's advisory.
    async fn term(&self, reason: &str) -> Result<(), QueueError>;
}
