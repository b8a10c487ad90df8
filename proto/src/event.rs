//! What a worker tells while it works. For live display only: nothing is decided by an event.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{AttemptId, CellId, FailureKind, FinishReason, JobId, SweepName};

/// One event on `bakeoff.events.<sweep>.<job>`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobEvent {
    pub sweep: SweepName,
    pub job: JobId,
    pub generation: u32,
    pub attempt: Option<AttemptId>,
    pub worker: String,
    pub at: Timestamp,
    #[serde(flatten)]
    pub phase: JobPhase,
}

/// Where a job is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum JobPhase {
    Claimed {
        attempt_number: u32,
        open_cells: u32,
        total_cells: u32,
    },
    Downloading {
        bytes: u64,
        total_bytes: Option<u64>,
    },
    Loading {
        bytes: u64,
        total_bytes: u64,
    },
    WarmingUp,
    Prefill {
        cell: CellId,
        tokens: u32,
        total_tokens: u32,
    },
    /// Sent a few times a second; `tpot_ms` over the tokens so far.
    Decoding {
        cell: CellId,
        tokens: u32,
        max_tokens: u32,
        tpot_ms: Option<f64>,
    },
    Storing {
        cell: CellId,
    },
    CellDone {
        cell: CellId,
        tokens: u32,
        tok_per_s: f64,
        tpot_ms: Option<f64>,
        time_s: f64,
        finish_reason: FinishReason,
    },
    CellFailed {
        cell: CellId,
        kind: FailureKind,
        message: String,
    },
    /// Handed back; another attempt follows.
    Retrying {
        kind: FailureKind,
        message: String,
        delay_s: f64,
    },
    Done,
    Failed {
        kind: FailureKind,
        message: String,
    },
    Cancelled,
}
