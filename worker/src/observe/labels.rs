//! Label values, each a stable name.

use bakeoff_proto::JobPhase;
use prometheus_client::encoding::EncodeLabelSet;

/// How a delivery ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobOutcome {
    Done,
    Failed,
    Cancelled,
    /// A failure that may pass: the job is delivered again after a delay.
    Retried,
    /// The worker is stopping.
    HandedBack,
    /// Another worker holds the job now.
    Superseded,
    /// Its sweep is gone: deleted, or submitted anew.
    Withdrawn,
    /// The message does not parse as a job.
    Rejected,
}

/// How a cell ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CellOutcome {
    Done,
    Failed,
    /// Another attempt had recorded it.
    Discarded,
}

/// What the worker does, as one label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Idle,
    Claimed,
    Downloading,
    Loading,
    WarmingUp,
    Prefill,
    Decoding,
    Storing,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OutcomeLabel {
    pub outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct PhaseLabel {
    pub phase: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ModelLabel {
    pub model: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct GpuLabel {
    pub gpu: u32,
}

impl JobOutcome {
    pub(super) const ALL: [Self; 8] = [
        Self::Done,
        Self::Failed,
        Self::Cancelled,
        Self::Retried,
        Self::HandedBack,
        Self::Superseded,
        Self::Withdrawn,
        Self::Rejected,
    ];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Retried => "retried",
            Self::HandedBack => "handed_back",
            Self::Superseded => "superseded",
            Self::Withdrawn => "withdrawn",
            Self::Rejected => "rejected",
        }
    }
}

impl CellOutcome {
    pub(super) const ALL: [Self; 3] = [Self::Done, Self::Failed, Self::Discarded];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Discarded => "discarded",
        }
    }
}

impl Phase {
    pub(super) const ALL: [Self; 8] = [
        Self::Idle,
        Self::Claimed,
        Self::Downloading,
        Self::Loading,
        Self::WarmingUp,
        Self::Prefill,
        Self::Decoding,
        Self::Storing,
    ];

    /// `None` for events that are not a state to be in.
    pub(super) fn of(phase: &JobPhase) -> Option<Self> {
        Some(match phase {
            JobPhase::Claimed { .. } => Self::Claimed,
            JobPhase::Downloading { .. } => Self::Downloading,
            JobPhase::Loading { .. } => Self::Loading,
            JobPhase::WarmingUp => Self::WarmingUp,
            JobPhase::Prefill { .. } => Self::Prefill,
            JobPhase::Decoding { .. } => Self::Decoding,
            JobPhase::Storing { .. } => Self::Storing,
            JobPhase::CellDone { .. }
            | JobPhase::CellFailed { .. }
            | JobPhase::Retrying { .. }
            | JobPhase::Done
            | JobPhase::Failed { .. }
            | JobPhase::Cancelled => return None,
        })
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Claimed => "claimed",
            Self::Downloading => "downloading",
            Self::Loading => "loading",
            Self::WarmingUp => "warming_up",
            Self::Prefill => "prefill",
            Self::Decoding => "decoding",
            Self::Storing => "storing",
        }
    }
}
