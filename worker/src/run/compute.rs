//! What blocks: opening a model and generating, on a thread of its own beside the runtime.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use bakeoff_engine::{EngineError, TokenEvent};
use bakeoff_proto::{Cell, Disposition, FailureKind, JobPhase};
use tokio::sync::oneshot;

use super::ending::Trouble;
use super::job::Running;
use super::phase::Halt;
use crate::model::{Model, OpenProgress, Output};

const WARM_UP_TOKENS: u32 = 32;
const EVENT_INTERVAL: Duration = Duration::from_millis(150);

/// A model, and what it was asked for. The inner error is the cell's alone.
type Answer = (Box<dyn Model>, Result<Output, EngineError>);

impl Running<'_> {
    pub(super) async fn open_model(&self) -> Result<Box<dyn Model>, Trouble> {
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
        if let Some(halt) = self.halt_between_cells() {
            return Err(Trouble::Halted(halt));
        }
        let model = opened?;
        self.meters().model_loaded(&self.job.model.display_id(), model.facts().load_s);
        Ok(model)
    }

    pub(super) fn halt_between_cells(&self) -> Option<Halt> {
        self.progress.halted().or_else(|| self.progress.draining().then_some(Halt::HandBack))
    }

    /// A few tokens of the first cell, never counted. A cell that cannot be generated says so in its
    /// own turn.
    pub(super) async fn warm_up(
        &self,
        model: Box<dyn Model>,
        first: Cell,
    ) -> Result<Box<dyn Model>, Trouble> {
        let most = WARM_UP_TOKENS.min(first.generation.max_new_tokens);
        let (model, _) = self.answer(model, first, most, || ()).await?;
        Ok(model)
    }

    /// Generates a cell to its end.
    pub(super) async fn generate(
        &self,
        model: Box<dyn Model>,
        cell: Cell,
    ) -> Result<Answer, Trouble> {
        let most = cell.generation.max_new_tokens;
        let tokens = self.meters().tokens_of(&self.job.model.display_id());
        self.answer(model, cell, most, move || {
            tokens.inc();
        })
        .await
    }

    async fn answer(
        &self,
        mut model: Box<dyn Model>,
        cell: Cell,
        most: u32,
        on_token: impl Fn() + Send + 'static,
    ) -> Result<Answer, Trouble> {
        let progress = self.progress.clone();
        let generation = move || {
            let mut tokens = 0;
            let started = Instant::now();
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
                        on_token();
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
            Err(error) if error.kind().disposition() == Disposition::Retry => Err(error.into()),
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
            let done = span.in_scope(work);
            // Before the answer: the span is told before the process can end.
            drop(span);
            // Nobody listens any more when the job was given up as hung.
            let _ = sender.send(done);
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
}
