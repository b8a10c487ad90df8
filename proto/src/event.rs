//! What a worker tells while it works. For live display only: nothing is decided by an event.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{AttemptId, CellId, FailureKind, FinishReason, JobId, SweepName};

/// One event on `bakeoff.events.<sweep>.<job>`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobEvent {
    /// The sweep of the job.
    pub sweep: SweepName,
    /// The job.
    pub job: JobId,
    /// The job's generation.
    pub generation: u32,
    /// The attempt, once one is claimed.
    pub attempt: Option<AttemptId>,
    /// Who works on it.
    pub worker: String,
    /// When, by the worker's clock.
    pub at: Timestamp,
    /// What happens.
    #[serde(flatten)]
    pub phase: JobPhase,
}

/// Where a job is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum JobPhase {
    /// The worker holds the job.
    Claimed { attempt_number: u32, open_cells: u32, total_cells: u32 },
    /// The model's files come from the hub.
    Downloading { bytes: u64, total_bytes: Option<u64> },
    /// Weights go from storage to the device.
    Loading { bytes: u64, total_bytes: u64 },
    /// A generation that is not counted.
    WarmingUp,
    /// The prompt of a cell goes through the model.
    Prefill { cell: CellId, tokens: u32, total_tokens: u32 },
    /// Sent a few times a second; `tpot_ms` over the tokens so far.
    Decoding { cell: CellId, tokens: u32, max_tokens: u32, tpot_ms: Option<f64> },
    /// Results of a cell go to the store.
    Storing { cell: CellId },
    /// The cell has its record.
    CellDone {
        cell: CellId,
        tokens: u32,
        tok_per_s: f64,
        tpot_ms: Option<f64>,
        time_s: f64,
        finish_reason: FinishReason,
    },
    /// The cell has its failure; the job goes on.
    CellFailed { cell: CellId, kind: FailureKind, message: String },
    /// Handed back; another attempt follows.
    Retrying { kind: FailureKind, message: String, delay_s: f64 },
    /// Every cell of the job has its record or its failure.
    Done,
    /// The job ended for good.
    Failed { kind: FailureKind, message: String },
    /// The sweep was cancelled.
    Cancelled,
}
