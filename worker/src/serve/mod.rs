//! The run loop: one job after the other, until a signal, a number of jobs or idleness ends it.
//!
//! Along a job's way:
//! - `job`: from its delivery to its end, in order; `running`: what all of it works on
//! - `claim`: whose job it is; `incarnation`: whether its sweep is still there
//! - `compute`: opening the model and generating, beside the runtime
//! - `cell`: what becomes of a cell, `results`: what is stored of it
//! - `ending`: how the job leaves this worker
//! - `progress`: what it is doing and whether it should stop; `background`: the lease is renewed,
//!   stops and cancellations are noticed
//! - `config`, `error`: a worker's settings, and why it leaves with an error

mod background;
mod cell;
mod claim;
mod compute;
mod config;
mod ending;
mod error;
mod incarnation;
mod job;
mod progress;
mod results;
mod running;

pub use config::WorkerConfig;
pub use error::ServeError;

use std::sync::Arc;
use std::time::Duration;

use bakeoff_transport::queue::{JobQueue, QueueError};
use object_store::ObjectStore;
use tokio::sync::watch;
use tokio::time::Instant;

use self::incarnation::LastPlan;
use self::running::Worker;
use crate::signals::{self, Stop};

/// What a worker did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    /// Deliveries it worked on, to whatever end.
    pub jobs: u64,
    pub reason: Leave,
}

/// Why a worker left without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// It worked on as many jobs as it was to.
    MaxJobs,
    /// No job came for as long as it was to wait.
    Idle,
    /// It was asked to stop.
    Stopped,
}

impl Leave {
    /// The word in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MaxJobs => "max_jobs",
            Self::Idle => "idle",
            Self::Stopped => "stopped",
        }
    }
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
) -> Result<Served, ServeError> {
    let worker = Worker { config: Arc::new(config), queue, store, last_plan: LastPlan::default() };
    let config = worker.config.clone();
    let mut jobs = 0;
    let mut idle_since = Instant::now();
    let mut missing_logged = false;
    loop {
        if *stop.borrow() != Stop::No {
            return Ok(Served { jobs, reason: Leave::Stopped });
        }
        if config.max_jobs.is_some_and(|most| jobs >= most) {
            return Ok(Served { jobs, reason: Leave::MaxJobs });
        }
        let idle_left = config.idle_exit.map(|limit| limit.saturating_sub(idle_since.elapsed()));
        if idle_left.is_some_and(|left| left.is_zero()) {
            return Ok(Served { jobs, reason: Leave::Idle });
        }
        let wait = idle_left.unwrap_or(PULL_WAIT).min(PULL_WAIT);
        let pulled = tokio::select! {
            pulled = worker.queue.pull(&config.classes, wait) => pulled,
            () = signals::asked(&mut stop) => continue,
        };
        match pulled {
            Ok(Some(delivery)) => {
                worker.serve_delivery(delivery.into(), stop.clone()).await?;
                jobs += 1;
                idle_since = Instant::now();
            }
            Ok(None) => {}
            Err(error @ (QueueError::Denied { .. } | QueueError::Unauthorized { .. })) => {
                return Err(error.into());
            }
            Err(error) => {
                let missing = matches!(error, QueueError::Missing { .. });
                if !(missing && missing_logged) {
                    tracing::warn!(%error, "no job can be pulled for now");
                }
                missing_logged = missing;
                tokio::select! {
                    () = tokio::time::sleep(PAUSE_AFTER_ERROR.min(wait)) => {}
                    () = signals::asked(&mut stop) => {}
                }
            }
        }
    }
}
