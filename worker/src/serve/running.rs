//! A worker, and a job in its hands: what every step of the job works on.

use std::sync::Arc;

use bakeoff_proto::{Attempt, Cell, Job, JobEvent, JobPhase};
use bakeoff_transport::queue::{JobQueue, Revision};
use jiff::Timestamp;
use object_store::ObjectStore;

use super::config::WorkerConfig;
use super::incarnation::LastPlan;
use super::progress::Progress;
use crate::observe::Meters;

/// How often the queue is asked before the job goes on without an answer.
pub(super) const QUEUE_TRIES: u32 = 6;

/// What a worker has for all of its jobs.
pub(super) struct Worker {
    pub config: Arc<WorkerConfig>,
    pub queue: Arc<dyn JobQueue>,
    pub store: Arc<dyn ObjectStore>,
    pub last_plan: LastPlan,
}

/// A job in work.
pub(super) struct Running<'a> {
    pub worker: &'a Worker,
    pub job: &'a Job,
    pub progress: Arc<Progress>,
    pub attempt: Option<(Attempt, Revision)>,
    /// Cells still to be done, in order.
    pub open: Vec<Cell>,
}

/// The span of one stage of a job, with all that a log line or a trace is searched by.
macro_rules! stage {
    ($running:expr, $name:literal $(, $field:ident = $value:expr)*) => {
        tracing::info_span!(
            $name,
            sweep = %$running.job.sweep,
            job = %$running.job.id,
            attempt = $running.attempt_id()
            $(, $field = %$value)*
        )
    };
}

pub(super) use stage;

impl Running<'_> {
    /// Where results go.
    pub fn store(&self) -> &dyn ObjectStore {
        self.worker.store.as_ref()
    }

    /// What is counted.
    pub fn meters(&self) -> &Meters {
        &self.worker.config.meters
    }

    /// Empty before the claim.
    pub fn attempt_id(&self) -> &str {
        self.attempt.as_ref().map_or("", |(attempt, _)| &attempt.id.0)
    }

    /// Enters a phase and sends it as an event.
    pub async fn enter(&self, phase: JobPhase) {
        self.progress.moved(phase.clone());
        self.emit(phase).await;
    }

    /// Sends an event. Best effort: nothing is decided by one.
    pub async fn emit(&self, phase: JobPhase) {
        let event = JobEvent {
            sweep: self.job.sweep.clone(),
            job: self.job.id.clone(),
            generation: self.job.generation,
            attempt: self.attempt.as_ref().map(|(attempt, _)| attempt.id.clone()),
            worker: self.worker.config.name.clone(),
            at: Timestamp::now(),
            phase,
        };
        if let Err(error) = self.worker.queue.emit(&event).await {
            tracing::debug!(%error, "an event was not sent");
        }
    }
}
