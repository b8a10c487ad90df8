//! What becomes of a cell: its record, or its failure.

use std::time::Duration;

use bakeoff_engine::EngineError;
use bakeoff_proto::{Cell, CellId, FailureKind, JobPhase, Metrics};
use bakeoff_transport::error::describe;
use bakeoff_transport::store::Created;
use jiff::Timestamp;

use super::error::JobError;
use super::results::{self, Verdict};
use super::running::Running;
use crate::metrics::measure;
use crate::model::{ModelFacts, Output};
use crate::observe::CellOutcome;
use crate::record::CellResult;
use crate::telemetry::Timeline;

impl Running<'_> {
    pub(super) async fn finish_cell(
        &self,
        cell: &Cell,
        started_at: Timestamp,
        model: &ModelFacts,
        output: Output,
        timeline: Timeline,
    ) -> Result<(), JobError> {
        let (attempt, _) = self.attempt.as_ref().expect("cells are generated under a claim");
        let measured = measure(&output.generation, output.prompt_tokens as usize, &model.load);
        let (Some(measured), Some(facts)) = (measured, &output.facts) else {
            let error = EngineError::new(
                FailureKind::InvalidRequest,
                "the generation ended without a token and without a reason",
            );
            return self.fail_cell(cell, error).await;
        };
        self.enter(JobPhase::Storing { cell: cell.id.clone() }).await;
        let result = CellResult {
            job: self.job,
            cell,
            attempt,
            gpu_class: self.worker.config.gpu_class(),
            started_at,
            model,
            output: &output,
            facts,
            measured: &measured,
            telemetry: &timeline.summary(),
            telemetry_note: self.worker.config.gpu.note(),
        };
        let created = self.store_cell(result, timeline.csv()).await?;
        if created == Created::AlreadyThere {
            self.meters().cell_ended(CellOutcome::Discarded);
            return Ok(());
        }
        let metrics = &measured.metrics;
        self.count(metrics);
        let (tokens, tok_per_s) = (metrics.tokens_generated, metrics.tok_per_s);
        tracing::info!(cell = %cell.id, tokens, tok_per_s, "cell done");
        self.enter(JobPhase::CellDone {
            cell: cell.id.clone(),
            tokens,
            tok_per_s,
            tpot_ms: metrics.tpot_ms,
            time_s: metrics.time_s,
            finish_reason: facts.finish_reason,
        })
        .await;
        Ok(())
    }

    /// Stores the files of a cell, unless its sweep is gone: what was written by then is removed.
    async fn store_cell(
        &self,
        result: CellResult<'_>,
        telemetry_csv: String,
    ) -> Result<Created, JobError> {
        let (store, progress) = (self.store(), &*self.progress);
        self.check_incarnation().await?;
        let record = results::store_documents(store, progress, result, telemetry_csv).await?;
        if let Err(error) = self.check_incarnation().await {
            if matches!(error, JobError::Withdrawn) {
                results::discard(store, progress, &record).await?;
            }
            return Err(error);
        }
        let created = results::store_record(store, progress, &record).await?;
        if created == Created::AlreadyThere {
            results::discard(store, progress, &record).await?;
        }
        Ok(created)
    }

    fn count(&self, metrics: &Metrics) {
        let ms = |value: f64| Duration::from_secs_f64(value / 1e3);
        let model = self.job.model.display_id();
        self.meters().cell_timed(&model, ms(metrics.ttft_ms), metrics.tpot_ms.map(ms));
        self.meters().cell_ended(CellOutcome::Done);
    }

    pub(super) async fn fail_cell(&self, cell: &Cell, error: EngineError) -> Result<(), JobError> {
        let (kind, message) = (error.kind(), describe(&error));
        tracing::error!(cell = %cell.id, kind = kind.as_str(), message, "cell failed");
        self.store_failures(kind, &message, std::slice::from_ref(&cell.id)).await?;
        self.meters().cell_ended(CellOutcome::Failed);
        self.enter(JobPhase::CellFailed { cell: cell.id.clone(), kind, message }).await;
        Ok(())
    }

    pub(super) async fn store_failures(
        &self,
        kind: FailureKind,
        message: &str,
        cells: &[CellId],
    ) -> Result<(), JobError> {
        self.check_incarnation().await?;
        let verdict = Verdict {
            job: self.job,
            kind,
            message,
            attempt: self.attempt.as_ref().map(|(attempt, _)| attempt),
            worker: &self.worker.config.name,
        };
        results::store_failures(self.store(), &self.progress, &verdict, cells).await?;
        Ok(())
    }
}
