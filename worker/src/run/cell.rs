//! What becomes of a cell: its record, or its failure.

use std::time::Duration;

use bakeoff_engine::EngineError;
use bakeoff_proto::{Cell, CellId, FailureKind, JobPhase};
use bakeoff_transport::store::{Created, StoreError};
use jiff::Timestamp;

use super::ending::Trouble;
use super::job::Running;
use super::results::{self, Verdict};
use crate::metrics::{self, Timing};
use crate::model::{ModelFacts, Output};
use crate::observe::CellOutcome;
use crate::record::Parts;
use crate::telemetry::Timeline;

impl Running<'_> {
    pub(super) async fn finish_cell(
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
        if created == Created::AlreadyThere {
            self.meters().cell_ended(CellOutcome::Discarded);
            return Ok(());
        }
        self.measure(&timing);
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
        Ok(())
    }

    fn measure(&self, timing: &Timing) {
        let ms = |value: f64| Duration::from_secs_f64(value / 1e3);
        let model = self.job.model.display_id();
        self.meters().cell_timed(&model, ms(timing.ttft_ms), timing.tpot_ms.map(ms));
        self.meters().cell_ended(CellOutcome::Done);
    }

    pub(super) async fn fail_cell(&self, cell: &Cell, error: EngineError) -> Result<(), Trouble> {
        let (kind, message) = (error.kind(), error.report());
        tracing::error!(cell = %cell.id, kind = kind.as_str(), error = message, "cell failed");
        self.store_failures(kind, &message, std::slice::from_ref(&cell.id)).await?;
        self.meters().cell_ended(CellOutcome::Failed);
        self.tell(JobPhase::CellFailed { cell: cell.id.clone(), kind, message }).await;
        Ok(())
    }

    pub(super) async fn store_failures(
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
}
