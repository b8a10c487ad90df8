//! One job: claim, open the model, generate the open cells, store each, acknowledge.

use std::sync::Arc;
use std::time::Duration;

use bakeoff_proto::{Attempt, Cell, Job, JobEvent, JobPhase, SCHEMA_VERSION, newer_schema};
use bakeoff_transport::logging::trace_context;
use bakeoff_transport::queue::{Delivery, JobQueue, Revision};
use jiff::Timestamp;
use object_store::ObjectStore;
use tokio::sync::watch;
use tracing::Instrument;

use super::ending::{End, Trouble, settle};
use super::phase::{Progress, heartbeat, stopping};
use super::{Stop, WorkerConfig, WorkerError, results};
use crate::observe::{JobOutcome, Meters};
use crate::telemetry::Sampler;

pub(super) const QUEUE_TRIES: u32 = 6;
/// How long a job for a newer worker is left to the others.
const NEWER_DELAY: Duration = Duration::from_secs(30);

pub(super) struct Worker {
    pub config: Arc<WorkerConfig>,
    pub queue: Arc<dyn JobQueue>,
    pub store: Arc<dyn ObjectStore>,
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

/// A task that lives no longer than its job.
struct Beside(tokio::task::JoinHandle<()>);

impl Beside {
    /// Gone when this returns, and with it its hold on the job's span: the span is told before the
    /// process ends.
    async fn end(mut self) {
        self.0.abort();
        // It was cancelled or had ended; both are what is wanted.
        let _ = (&mut self.0).await;
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Worker {
    /// Works on a delivered job to whatever end.
    ///
    /// # Errors
    /// Only for a generation that hangs; all else ends in the store and the queue.
    pub async fn serve_delivery(
        &self,
        delivery: Arc<dyn Delivery>,
        stop: watch::Receiver<Stop>,
    ) -> Result<(), WorkerError> {
        self.config.meters.delivered(delivery.delivered());
        // During a rolling upgrade its worker is on the way, so it is neither failed nor removed.
        if let Some(version) = newer_schema(delivery.payload()) {
            let reads = SCHEMA_VERSION;
            tracing::warn!(
                version,
                reads,
                "a job for a newer worker is handed back: update this one"
            );
            settle(delivery.as_ref(), End::HandBack(NEWER_DELAY)).await;
            self.config.meters.job_ended(JobOutcome::HandedBack);
            return Ok(());
        }
        let job: Job = match serde_json::from_slice(delivery.payload()) {
            Ok(job) => job,
            Err(error) => {
                tracing::error!(%error, "a message that is no job is removed from the queue");
                settle(delivery.as_ref(), End::Term("the message is no job of a known version"))
                    .await;
                self.config.meters.job_ended(JobOutcome::Rejected);
                return Ok(());
            }
        };
        let span = tracing::info_span!(
            "job",
            sweep = %job.sweep,
            job = %job.id,
            generation = job.generation,
            attempt = tracing::field::Empty,
        );
        trace_context::continue_trace(&span, delivery.headers());
        self.serve_job(&job, delivery, stop).instrument(span).await
    }

    async fn serve_job(
        &self,
        job: &Job,
        delivery: Arc<dyn Delivery>,
        stop: watch::Receiver<Stop>,
    ) -> Result<(), WorkerError> {
        let config = &self.config;
        let progress = Progress::new(JobPhase::WarmingUp, config.meters.clone());
        let beat =
            heartbeat(delivery.clone(), progress.clone(), config.heartbeat, config.stall_limit);
        let beat = Beside(tokio::spawn(beat.in_current_span()));
        let cancelled = match self.queue.watch_cancel(&job.sweep).await {
            Ok(cancelled) => cancelled,
            Err(error) => {
                tracing::warn!(%error, "a cancellation would not be noticed");
                watch::channel(false).1
            }
        };
        let stops = stopping(progress.clone(), cancelled, stop, config.grace);
        let stops = Beside(tokio::spawn(stops));
        let mut running =
            Running { worker: self, job, progress, attempt: None, open: job.cells.clone() };
        let trouble = running.work().await.err();
        let ended = running.end(delivery.as_ref(), trouble).await;
        beat.end().await;
        stops.end().await;
        ended
    }
}

impl Running<'_> {
    async fn work(&mut self) -> Result<(), Trouble> {
        let closed = results::closed_cells(self.store(), &self.progress, self.job).await?;
        self.open.retain(|cell| !closed.contains(&cell.id));
        if self.open.is_empty() {
            return Ok(());
        }
        self.claim(closed.len() as u32).await?;
        tracing::Span::current().record("attempt", self.attempt_id());
        let mut model = self.open_model().instrument(stage!(self, "load")).await?;
        self.tell(JobPhase::WarmingUp).await;
        let first = self.open[0].clone();
        model = self.warm_up(model, first).instrument(stage!(self, "warm_up")).await?;
        while let Some(cell) = self.open.first().cloned() {
            if let Some(halt) = self.halt_between_cells() {
                return Err(Trouble::Halted(halt));
            }
            self.check_attempt().await?;
            let sampler = Sampler::start(self.worker.config.gpu.clone());
            let started_at = Timestamp::now();
            let span = stage!(self, "generate", cell = cell.id);
            let output;
            (model, output) = self.generate(model, cell.clone()).instrument(span).await?;
            let timeline = sampler.finish();
            let span = stage!(self, "store", cell = cell.id);
            let facts = model.facts();
            let stored = async {
                match output {
                    Ok(output) => {
                        self.finish_cell(&cell, started_at, facts, output, timeline).await
                    }
                    Err(error) => self.fail_cell(&cell, error).await,
                }
            };
            stored.instrument(span).await?;
            self.open.remove(0);
        }
        Ok(())
    }

    pub fn store(&self) -> &dyn ObjectStore {
        self.worker.store.as_ref()
    }

    pub fn meters(&self) -> &Meters {
        &self.worker.config.meters
    }

    /// Empty before the claim.
    pub fn attempt_id(&self) -> &str {
        self.attempt.as_ref().map_or("", |(attempt, _)| &attempt.id.0)
    }

    /// Enters a phase and tells it.
    pub async fn tell(&self, phase: JobPhase) {
        self.progress.moved(phase.clone());
        self.emit(phase).await;
    }

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
            tracing::debug!(%error, "an event was not told");
        }
    }
}
