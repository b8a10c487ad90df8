//! One job: claim, open the model, generate the open cells, store each, acknowledge.

use std::sync::Arc;
use std::time::Duration;

use bakeoff_proto::{Job, JobPhase, SCHEMA_VERSION, newer_schema};
use bakeoff_transport::logging::trace_context;
use bakeoff_transport::queue::Delivery;
use jiff::Timestamp;
use tokio::sync::watch;
use tracing::Instrument;

use super::background::{AbortOnDrop, heartbeat, stopping};
use super::ending::{End, settle};
use super::error::{JobError, ServeError};
use super::progress::Progress;
use super::results;
use super::running::{Running, Worker, stage};
use crate::observe::JobOutcome;
use crate::signals::Stop;
use crate::telemetry::Sampler;

/// How long a job for a newer worker is left to the others.
const NEWER_DELAY: Duration = Duration::from_secs(30);

impl Worker {
    /// Works on a delivered job to whatever end.
    ///
    /// # Errors
    /// Only for a generation that hangs; all else ends in the store and the queue.
    pub async fn serve_delivery(
        &self,
        delivery: Arc<dyn Delivery>,
        stop: watch::Receiver<Stop>,
    ) -> Result<(), ServeError> {
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
                tracing::error!(%error, "a message that is not a job is removed from the queue");
                let reason = "the message is not a job of a known version";
                settle(delivery.as_ref(), End::Term(reason)).await;
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
    ) -> Result<(), ServeError> {
        let config = &self.config;
        let progress = Progress::new(JobPhase::WarmingUp, config.meters.clone());
        let beat =
            heartbeat(delivery.clone(), progress.clone(), config.heartbeat, config.stall_limit);
        let beat = AbortOnDrop::spawn(beat.in_current_span());
        let cancelled = match self.queue.watch_cancel(&job.sweep_id()).await {
            Ok(cancelled) => cancelled,
            Err(error) => {
                tracing::warn!(%error, "a cancellation will not be noticed");
                watch::channel(false).1
            }
        };
        let stops = stopping(progress.clone(), cancelled, stop, config.grace);
        let stops = AbortOnDrop::spawn(stops);
        let mut running =
            Running { worker: self, job, progress, attempt: None, open: job.cells.clone() };
        let error = running.work().await.err();
        let ended = running.end(delivery.as_ref(), error).await;
        beat.end().await;
        stops.end().await;
        ended
    }
}

impl Running<'_> {
    async fn work(&mut self) -> Result<(), JobError> {
        self.check_incarnation().await?;
        let closed = results::closed_cells(self.store(), &self.progress, self.job).await?;
        self.open.retain(|cell| !closed.contains(&cell.id));
        if self.open.is_empty() {
            return Ok(());
        }
        self.claim(closed.len() as u32).await?;
        tracing::Span::current().record("attempt", self.attempt_id());
        let mut model = self.open_model().instrument(stage!(self, "load")).await?;
        self.enter(JobPhase::WarmingUp).await;
        let first = self.open[0].clone();
        model = self.warm_up(model, first).instrument(stage!(self, "warm_up")).await?;
        while let Some(cell) = self.open.first().cloned() {
            if let Some(halt) = self.halt_between_cells() {
                return Err(JobError::Halted(halt));
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
}
