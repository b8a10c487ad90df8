//! One job: claim, open the model, generate the open cells, store each, acknowledge.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bakeoff_engine::{EngineError, TokenEvent};
use bakeoff_proto::{
    Attempt, AttemptId, Cell, CellId, Claim, Disposition, FailureKind, Job, JobEvent, JobPhase,
    SCHEMA_VERSION,
};
use bakeoff_transport::queue::{Delivery, JobQueue, QueueError, Revision};
use bakeoff_transport::store::{Created, StoreError};
use jiff::Timestamp;
use object_store::ObjectStore;
use tokio::sync::{oneshot, watch};

use super::phase::{Halt, Progress, heartbeat, stopping};
use super::results::{self, Verdict};
use super::{Stop, WorkerConfig, WorkerError};
use crate::metrics;
use crate::model::{Model, ModelFacts, OpenProgress, Output};
use crate::record::Parts;
use crate::telemetry::{Sampler, Timeline};

const WARM_UP_TOKENS: u32 = 32;
const EVENT_INTERVAL: Duration = Duration::from_millis(300);
const LONGEST_RETRY_DELAY: Duration = Duration::from_secs(300);
const QUEUE_TRIES: u32 = 6;

pub(super) struct Worker {
    pub config: Arc<WorkerConfig>,
    pub queue: Arc<dyn JobQueue>,
    pub store: Arc<dyn ObjectStore>,
}

/// Why a job does not go on.
#[derive(Debug)]
enum Trouble {
    Failed {
        kind: FailureKind,
        message: String,
    },
    Halted(Halt),
    /// Another attempt was claimed: the job is no longer ours.
    Superseded,
    /// The generating thread cannot be had back.
    Hung,
}

impl From<EngineError> for Trouble {
    fn from(error: EngineError) -> Self {
        Self::Failed { kind: error.kind, message: error.message }
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Failed { kind: FailureKind::Store, message: error.to_string() }
    }
}

impl From<QueueError> for Trouble {
    fn from(error: QueueError) -> Self {
        Self::Failed { kind: FailureKind::Interrupted, message: error.to_string() }
    }
}

/// Ends a task when the job is over.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A job in work.
struct Running<'a> {
    worker: &'a Worker,
    job: &'a Job,
    progress: Arc<Progress>,
    attempt: Option<(Attempt, Revision)>,
    open: Vec<Cell>,
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
        let job: Job = match serde_json::from_slice(delivery.payload()) {
            Ok(job) => job,
            Err(error) => {
                tracing::error!(%error, "a message that is no job is removed from the queue");
                settle(delivery.as_ref(), End::Term("the message is no job of a known version"))
                    .await;
                return Ok(());
            }
        };
        let span = tracing::info_span!("job", sweep = %job.sweep, job = %job.id, generation = job.generation);
        tracing::Instrument::instrument(self.serve_job(&job, delivery, stop), span).await
    }

    async fn serve_job(
        &self,
        job: &Job,
        delivery: Arc<dyn Delivery>,
        stop: watch::Receiver<Stop>,
    ) -> Result<(), WorkerError> {
        let config = &self.config;
        let progress = Progress::new(JobPhase::WarmingUp);
        let beat =
            heartbeat(delivery.clone(), progress.clone(), config.heartbeat, config.stall_limit);
        let _beat = AbortOnDrop(tokio::spawn(beat));
        let cancelled = match self.queue.watch_cancel(&job.sweep).await {
            Ok(cancelled) => cancelled,
            Err(error) => {
                tracing::warn!(%error, "a cancellation would not be noticed");
                watch::channel(false).1
            }
        };
        let stops = stopping(progress.clone(), cancelled, stop, config.grace);
        let _stops = AbortOnDrop(tokio::spawn(stops));
        let mut running =
            Running { worker: self, job, progress, attempt: None, open: job.cells.clone() };
        let trouble = running.work().await.err();
        running.end(delivery.as_ref(), trouble).await
    }
}

impl Running<'_> {
    async fn work(&mut self) -> Result<(), Trouble> {
        if self.job.schema_version > SCHEMA_VERSION {
            return Err(Trouble::Failed {
                kind: FailureKind::BadJob,
                message: format!(
                    "the job has schema version {}, this worker knows {SCHEMA_VERSION}: update the worker",
                    self.job.schema_version
                ),
            });
        }
        let closed = results::closed_cells(self.store(), &self.progress, self.job).await?;
        self.open.retain(|cell| !closed.contains(&cell.id));
        if self.open.is_empty() {
            return Ok(());
        }
        self.claim(closed.len() as u32).await?;
        let mut model = self.open_model().await?;
        self.tell(JobPhase::WarmingUp).await;
        let first = self.open[0].clone();
        let warm_up = WARM_UP_TOKENS.min(first.generation.max_new_tokens);
        // A cell that cannot be generated says so in its own turn.
        (model, _) = self.generate(model, first, warm_up).await?;
        while let Some(cell) = self.open.first().cloned() {
            if let Some(halt) = self.halt_between_cells() {
                return Err(Trouble::Halted(halt));
            }
            self.check_attempt().await?;
            let sampler = Sampler::start(self.worker.config.gpu.clone());
            let started_at = Timestamp::now();
            let most = cell.generation.max_new_tokens;
            let output;
            (model, output) = self.generate(model, cell.clone(), most).await?;
            let timeline = sampler.finish();
            match output {
                Ok(output) => {
                    self.finish_cell(&cell, started_at, model.facts(), output, timeline).await?
                }
                Err(error) => self.fail_cell(&cell, error).await?,
            }
            self.open.remove(0);
        }
        Ok(())
    }

    fn store(&self) -> &dyn ObjectStore {
        self.worker.store.as_ref()
    }

    fn halt_between_cells(&self) -> Option<Halt> {
        self.progress.halted().or_else(|| self.progress.draining().then_some(Halt::HandBack))
    }

    /// Claims the next attempt, so that whoever held the job before is fenced off.
    async fn claim(&mut self, done: u32) -> Result<(), Trouble> {
        let id = AttemptId(unique_id());
        for _ in 0..QUEUE_TRIES {
            let previous = self.worker.queue.load_attempt(self.job).await?;
            if let Some((attempt, revision)) = &previous
                && attempt.id == id
            {
                // Our write arrived, its answer did not.
                self.attempt = Some((attempt.clone(), *revision));
                return Ok(());
            }
            let name = self.worker.config.name.clone();
            let claim = Claim::after(previous.as_ref().map(|(a, _)| a), id.clone(), name, done);
            let (attempt, give_up) = match claim {
                Claim::Work(attempt) => (attempt, false),
                Claim::GiveUp(attempt) => (attempt, true),
            };
            let expected = previous.map(|(_, revision)| revision);
            match self.worker.queue.store_attempt(self.job, &attempt, expected).await {
                Ok(revision) => {
                    let fruitless = attempt.fruitless;
                    let number = attempt.number;
                    self.attempt = Some((attempt, revision));
                    if give_up {
                        return Err(Trouble::Failed {
                            kind: FailureKind::AttemptsExhausted,
                            message: format!(
                                "{fruitless} attempts in a row brought no new record; see the workers' logs for what ended them"
                            ),
                        });
                    }
                    self.tell(JobPhase::Claimed {
                        attempt_number: number,
                        open_cells: self.open.len() as u32,
                        total_cells: self.job.cells.len() as u32,
                    })
                    .await;
                    return Ok(());
                }
                Err(QueueError::Conflict) => {}
                Err(error) => tracing::warn!(%error, "the claim is tried again"),
            }
        }
        Err(Trouble::Superseded)
    }

    /// Before a cell: is the job still ours? An unanswered question is no reason to stop.
    async fn check_attempt(&self) -> Result<(), Trouble> {
        let ours = self.attempt.as_ref().map(|(attempt, _)| &attempt.id);
        match self.worker.queue.load_attempt(self.job).await {
            Ok(Some((latest, _))) if Some(&latest.id) != ours => Err(Trouble::Superseded),
            Ok(_) => Ok(()),
            Err(error) => {
                tracing::warn!(%error, "whether the job is still ours could not be asked");
                Ok(())
            }
        }
    }

    async fn open_model(&self) -> Result<Box<dyn Model>, Trouble> {
        let (models, job) = (self.worker.config.models.clone(), self.job.clone());
        let progress = self.progress.clone();
        let opening = move || {
            models.open(&job, &mut |at| {
                progress.moved(match at {
                    OpenProgress::Download { bytes, total_bytes } => {
                        JobPhase::Downloading { bytes, total_bytes }
                    }
                    OpenProgress::Load { bytes, total_bytes } => {
                        JobPhase::Loading { bytes, total_bytes }
                    }
                });
                if progress.halted().is_some() || progress.draining() {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            })
        };
        let opened = self.on_thread(opening).await?;
        match self.halt_between_cells() {
            Some(halt) => Err(Trouble::Halted(halt)),
            None => Ok(opened?),
        }
    }

    /// Generates on a thread of its own. The inner error is the cell's alone.
    async fn generate(
        &self,
        mut model: Box<dyn Model>,
        cell: Cell,
        most: u32,
    ) -> Result<(Box<dyn Model>, Result<Output, EngineError>), Trouble> {
        let progress = self.progress.clone();
        let generation = move || {
            let mut tokens = 0;
            let started = std::time::Instant::now();
            let mut first = None;
            let output = model.generate(&cell, most, &mut |event| {
                progress.moved(match event {
                    TokenEvent::Prefill { tokens, .. } => JobPhase::Prefill {
                        cell: cell.id.clone(),
                        tokens: tokens as u32,
                        total_tokens: tokens as u32,
                    },
                    TokenEvent::Token { .. } => {
                        tokens += 1;
                        let first = *first.get_or_insert_with(|| started.elapsed());
                        let gaps = f64::from(tokens - 1);
                        let decoding_ms = (started.elapsed() - first).as_secs_f64() * 1e3;
                        JobPhase::Decoding {
                            cell: cell.id.clone(),
                            tokens,
                            max_tokens: most,
                            tpot_ms: (tokens > 1).then(|| decoding_ms / gaps),
                        }
                    }
                });
                match progress.halted() {
                    Some(_) => ControlFlow::Break(()),
                    None => ControlFlow::Continue(()),
                }
            });
            (model, output)
        };
        self.progress.touched();
        let (model, output) = self.on_thread(generation).await?;
        if let Some(halt) = self.progress.halted() {
            return Err(Trouble::Halted(halt));
        }
        match output {
            Err(error) if error.kind.disposition() == Disposition::Retry => Err(error.into()),
            output => Ok((model, output)),
        }
    }

    /// Runs blocking work on a thread of its own and tells events meanwhile.
    async fn on_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Trouble> {
        let (sender, mut receiver) = oneshot::channel();
        let span = tracing::Span::current();
        let spawned = std::thread::Builder::new().name("generate".into()).spawn(move || {
            let _entered = span.enter();
            // Nobody listens any more when the job was given up as hung.
            let _ = sender.send(work());
        });
        if let Err(error) = spawned {
            let message = format!("no thread could be started: {error}");
            return Err(Trouble::Failed { kind: FailureKind::Device, message });
        }
        let mut told = None;
        let mut halted_for = Duration::ZERO;
        loop {
            tokio::select! {
                done = &mut receiver => {
                    return done.map_err(|_| Trouble::Failed {
                        kind: FailureKind::Device,
                        message: "the generating thread panicked; see the worker's log".into(),
                    });
                }
                () = tokio::time::sleep(EVENT_INTERVAL) => {
                    if self.progress.halted().is_some() {
                        halted_for += EVENT_INTERVAL;
                        if halted_for >= self.worker.config.halt_limit {
                            return Err(Trouble::Hung);
                        }
                    }
                    let phase = self.progress.phase();
                    if told.as_ref() != Some(&phase) {
                        self.emit(phase.clone()).await;
                        told = Some(phase);
                    }
                }
            }
        }
    }

    async fn finish_cell(
        &self,
        cell: &Cell,
        started_at: Timestamp,
        model: &ModelFacts,
        output: Output,
        timeline: Timeline,
    ) -> Result<(), Trouble> {
        let (attempt, _) = self.attempt.as_ref().expect("cells are generated under a claim");
        let generation = &output.generation;
        let timing =
            metrics::timing(generation.started, &generation.token_times, output.prompt_tokens);
        let (Some(timing), Some(facts)) = (timing, output.facts.clone()) else {
            let error = EngineError::new(
                FailureKind::InvalidRequest,
                "the generation ended without a token and without a reason",
            );
            return self.fail_cell(cell, error).await;
        };
        self.tell(JobPhase::Storing { cell: cell.id.clone() }).await;
        let parts = Parts {
            job: self.job,
            cell,
            attempt,
            gpu_class: self.worker.config.gpu_class(),
            started_at,
            model,
            output: &output,
            facts: &facts,
            timing: &timing,
            telemetry: &timeline.summary(),
            telemetry_note: self.worker.config.gpu.note(),
        };
        let created =
            results::store_cell(self.store(), &self.progress, parts, timeline.csv()).await?;
        if created == Created::Ours {
            tracing::info!(cell = %cell.id, tokens = generation.token_ids.len(), tok_per_s = timing.tok_per_s, "cell done");
            self.tell(JobPhase::CellDone {
                cell: cell.id.clone(),
                tokens: generation.token_ids.len() as u32,
                tok_per_s: timing.tok_per_s,
                tpot_ms: timing.tpot_ms,
                time_s: timing.time_s,
                finish_reason: facts.finish_reason,
            })
            .await;
        }
        Ok(())
    }

    async fn fail_cell(&self, cell: &Cell, error: EngineError) -> Result<(), Trouble> {
        tracing::error!(cell = %cell.id, kind = error.kind.as_str(), %error, "cell failed");
        self.store_failures(error.kind, &error.message, std::slice::from_ref(&cell.id)).await?;
        let (kind, message) = (error.kind, error.message);
        self.tell(JobPhase::CellFailed { cell: cell.id.clone(), kind, message }).await;
        Ok(())
    }

    async fn store_failures(
        &self,
        kind: FailureKind,
        message: &str,
        cells: &[CellId],
    ) -> Result<(), StoreError> {
        let verdict = Verdict {
            job: self.job,
            kind,
            message,
            attempt: self.attempt.as_ref().map(|(attempt, _)| attempt),
            worker: &self.worker.config.name,
        };
        results::store_failures(self.store(), &self.progress, &verdict, cells).await
    }

    /// The end of the job's way through this worker: acknowledged, ended, handed back, or left.
    async fn end(
        mut self,
        delivery: &dyn Delivery,
        trouble: Option<Trouble>,
    ) -> Result<(), WorkerError> {
        match trouble {
            None => {
                settle(delivery, End::Ack).await;
                self.tell(JobPhase::Done).await;
            }
            Some(Trouble::Superseded) => tracing::warn!("another worker holds the job now"),
            Some(Trouble::Halted(Halt::Cancelled)) => {
                self.end_for_good(delivery, FailureKind::Cancelled, "the sweep was cancelled")
                    .await;
            }
            Some(Trouble::Halted(Halt::HandBack)) => {
                self.give_attempt_back().await;
                let message = "the worker was told to stop";
                self.hand_back(delivery, FailureKind::Interrupted, message, Duration::ZERO).await;
            }
            Some(Trouble::Halted(Halt::Stalled)) => {
                let delay = self.retry_delay();
                let limit = self.worker.config.stall_limit;
                let message = format!("nothing moved for {} s", limit.as_secs());
                self.hand_back(delivery, FailureKind::Stalled, &message, delay).await;
            }
            Some(Trouble::Hung) => {
                let delay = self.retry_delay();
                self.hand_back(delivery, FailureKind::Stalled, "the generation hangs", delay).await;
                return Err(WorkerError::Hung(self.worker.config.stall_limit));
            }
            Some(Trouble::Failed { kind, message }) => match kind.disposition() {
                Disposition::Final => self.end_for_good(delivery, kind, &message).await,
                Disposition::Retry => {
                    let delay = self.retry_delay();
                    self.hand_back(delivery, kind, &message, delay).await;
                }
            },
        }
        Ok(())
    }

    /// Failure files first, then the message is removed: never lost, never retried.
    async fn end_for_good(&self, delivery: &dyn Delivery, kind: FailureKind, message: &str) {
        tracing::error!(kind = kind.as_str(), message, "job ends");
        let open: Vec<_> = self.open.iter().map(|cell| cell.id.clone()).collect();
        if let Err(error) = self.store_failures(kind, message, &open).await {
            // Not ended: the next attempt finds the same and writes it down.
            tracing::error!(%error, "the failures could not be stored");
            settle(delivery, End::HandBack(self.worker.config.retry_delay)).await;
            return;
        }
        let reason = format!("{}: {message}", kind.as_str());
        settle(delivery, End::Term(&reason)).await;
        let phase = match kind {
            FailureKind::Cancelled => JobPhase::Cancelled,
            _ => JobPhase::Failed { kind, message: message.to_owned() },
        };
        self.tell(phase).await;
    }

    async fn hand_back(
        &self,
        delivery: &dyn Delivery,
        kind: FailureKind,
        message: &str,
        delay: Duration,
    ) {
        tracing::warn!(kind = kind.as_str(), message, ?delay, "job handed back");
        settle(delivery, End::HandBack(delay)).await;
        let (message, delay_s) = (message.to_owned(), delay.as_secs_f64());
        self.tell(JobPhase::Retrying { kind, message, delay_s }).await;
    }

    /// A worker that leaves in good order has not failed: its attempt does not count as fruitless.
    async fn give_attempt_back(&mut self) {
        let Some((attempt, revision)) = self.attempt.take() else { return };
        let fruitless = attempt.fruitless.saturating_sub(1);
        let attempt = Attempt { fruitless, ..attempt };
        if let Err(error) =
            self.worker.queue.store_attempt(self.job, &attempt, Some(revision)).await
        {
            tracing::warn!(%error, "the interrupted attempt stays counted");
        }
    }

    fn retry_delay(&self) -> Duration {
        let fruitless = self.attempt.as_ref().map_or(1, |(attempt, _)| attempt.fruitless);
        let doubled = self.worker.config.retry_delay * 2u32.pow(fruitless.saturating_sub(1).min(8));
        doubled.min(LONGEST_RETRY_DELAY)
    }

    /// Enters a phase and tells it.
    async fn tell(&self, phase: JobPhase) {
        self.progress.moved(phase.clone());
        self.emit(phase).await;
    }

    async fn emit(&self, phase: JobPhase) {
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

/// How a delivery ends.
#[derive(Clone, Copy)]
enum End<'a> {
    Ack,
    HandBack(Duration),
    Term(&'a str),
}

/// Tells the queue how a job ended, through a short outage. After that the lease lapses, and the next
/// holder finds the records.
async fn settle(delivery: &dyn Delivery, end: End<'_>) {
    let mut pause = Duration::from_millis(200);
    for attempt in 1..=QUEUE_TRIES {
        let answered = match end {
            End::Ack => delivery.ack().await,
            End::HandBack(delay) => delivery.nak(delay).await,
            End::Term(reason) => delivery.term(reason).await,
        };
        match answered {
            Ok(()) => return,
            Err(QueueError::LeaseLost) => {
                tracing::warn!("the lease was gone when the job ended");
                return;
            }
            Err(error) => tracing::warn!(%error, attempt, "the queue did not confirm"),
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}

/// Unlike any other, also across machines: time, process and a counter under the host's name.
fn unique_id() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let text = format!(
        "{}/{}/{}/{}",
        Timestamp::now().as_nanosecond(),
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed),
        crate::cli::host_name()
    );
    let mut id = bakeoff_proto::digest::sha256_hex(text.as_bytes());
    id.truncate(12);
    id
}
