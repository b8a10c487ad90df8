//! The run loop: one job after the other, until told to stop.
//!
//! Along a job's way:
//! - `job`: from its delivery to its end, in order
//! - `claim`: whose job it is
//! - `compute`: opening the model and generating, beside the runtime
//! - `cell`: what becomes of a cell, `results`: what is stored of it
//! - `ending`: how the job leaves this worker
//! - `phase`: what it is doing, whether it moves, whether it should stop

mod cell;
mod claim;
mod compute;
mod ending;
mod job;
mod phase;
mod results;

use std::sync::Arc;
use std::time::Duration;

use bakeoff_transport::queue::{JobQueue, QueueError};
use object_store::ObjectStore;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::model::Models;
use crate::observe::Meters;
use crate::telemetry::Gpu;

/// How a worker was asked to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Stop {
    #[default]
    No,
    /// Finish the current cell within the grace period, hand the rest back.
    Drain,
    /// Hand back at the next token.
    Now,
}

/// A worker's settings.
#[derive(Clone)]
pub struct WorkerConfig {
    pub name: String,
    /// `any`, and the class of this machine's GPU.
    pub classes: Vec<String>,
    pub models: Arc<dyn Models>,
    pub gpu: Arc<Gpu>,
    pub meters: Arc<Meters>,
    /// How often a lease is renewed; well below the queue's `ack_wait`.
    pub heartbeat: Duration,
    /// A phase that does not move for so long ends the attempt.
    pub stall_limit: Duration,
    /// A halted generation stops at its next token; one that does not within this time hangs.
    pub halt_limit: Duration,
    pub grace: Duration,
    /// First delay before a job that failed is delivered again; doubles with each attempt.
    pub retry_delay: Duration,
    pub max_jobs: Option<u64>,
    /// Leave when no job came for so long.
    pub idle_exit: Option<Duration>,
}

impl WorkerConfig {
    pub fn new(name: String, classes: Vec<String>, models: Arc<dyn Models>, gpu: Arc<Gpu>) -> Self {
        Self {
            name,
            classes,
            models,
            meters: Arc::new(Meters::new(gpu.clone())),
            gpu,
            heartbeat: Duration::from_secs(15),
            stall_limit: Duration::from_secs(120),
            halt_limit: Duration::from_secs(20),
            grace: Duration::from_secs(25),
            retry_delay: Duration::from_secs(5),
            max_jobs: None,
            idle_exit: None,
        }
    }

    fn gpu_class(&self) -> &str {
        self.classes.last().map_or(bakeoff_proto::names::CPU_CLASS, String::as_str)
    }
}

/// Why a worker left with an error.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error(
        "the generation did not move for {0:?} and cannot be interrupted; the worker leaves so that a fresh one can take over"
    )]
    Hung(Duration),
}

/// What a worker did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Served {
    pub jobs: u64,
}

const PULL_WAIT: Duration = Duration::from_secs(20);
const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(2);

/// Serves the queue until `stop`, `max_jobs` or `idle_exit`.
///
/// # Errors
/// A generation that hangs; permissions or credentials that the broker refuses. An unreachable
/// broker is waited for.
pub async fn serve(
    config: WorkerConfig,
    queue: Arc<dyn JobQueue>,
    store: Arc<dyn ObjectStore>,
    mut stop: watch::Receiver<Stop>,
) -> Result<Served, WorkerError> {
    let mut served = Served::default();
    let mut idle_since = Instant::now();
    let worker = job::Worker { config: Arc::new(config), queue, store };
    let config = worker.config.clone();
    let mut told_missing = false;
    while *stop.borrow() == Stop::No {
        let idle_left = config.idle_exit.map(|limit| limit.saturating_sub(idle_since.elapsed()));
        if idle_left.is_some_and(|left| left.is_zero()) {
            tracing::info!("no job came within the time given; leaving");
            break;
        }
        let wait = idle_left.unwrap_or(PULL_WAIT).min(PULL_WAIT);
        let pulled = tokio::select! {
            pulled = worker.queue.pull(&config.classes, wait) => pulled,
            _ = stop.wait_for(|stop| *stop != Stop::No) => break,
        };
        let delivery = match pulled {
            Ok(Some(delivery)) => delivery,
            Ok(None) => continue,
            Err(error @ (QueueError::Denied { .. } | QueueError::Unauthorized { .. })) => {
                return Err(error.into());
            }
            Err(error) => {
                if !(told_missing && matches!(error, QueueError::Missing { .. })) {
                    tracing::warn!(%error, "no job can be pulled for now");
                }
                told_missing = matches!(error, QueueError::Missing { .. });
                tokio::select! {
                    () = tokio::time::sleep(PAUSE_AFTER_ERROR.min(wait)) => {}
                    _ = stop.wait_for(|stop| *stop != Stop::No) => {}
                }
                continue;
            }
        };
        worker.serve_delivery(delivery.into(), stop.clone()).await?;
        served.jobs += 1;
        idle_since = Instant::now();
        if config.max_jobs.is_some_and(|most| served.jobs >= most) {
            break;
        }
    }
    Ok(served)
}
