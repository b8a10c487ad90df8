//! Why a cell has no record, and whether trying again could help.

use bakeoff_model::ShapeError;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{AttemptId, CellId, JobId, SweepName};

/// What a worker does with the job after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// Hand the job back with a growing delay.
    Retry,
    /// The cell (or job) can never succeed: write the failure and go on.
    Final,
}

/// Stable names of what went wrong; they appear in files and metric labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The job message does not parse.
    BadJob,
    /// No such model, file, folder or revision.
    ModelNotFound,
    /// `config.json` is missing, malformed or lacks a field.
    BadConfig,
    UnknownArchitecture,
    /// The memory ledger exceeds the cap or the device.
    DoesNotFit,
    /// Corrupt or truncated safetensors, or tensors of another shape than the config says.
    BadWeights,
    Quantised,
    BadTokenizer,
    /// The chat template does not parse, throws, or runs out of fuel.
    BadTemplate,
    /// A setting that this worker cannot honour (an engine or dtype that is not built in, say).
    Unsupported,
    /// The prompt and the tokens asked for exceed the context.
    ContextOverflow,
    InvalidRequest,
    /// NaN or infinity in the logits.
    NonFiniteLogits,
    /// The download broke off, or the hub did not answer.
    Download,
    /// The model's cache or a temporary folder has no space left, or cannot be written.
    Disk,
    /// The object store did not take a result.
    Store,
    OutOfMemory,
    /// Any other error of the device or its driver.
    Device,
    /// No phase moved for the time allowed.
    Stalled,
    /// The worker was told to stop.
    Interrupted,
    /// Five attempts in a row brought no new record.
    AttemptsExhausted,
    Cancelled,
}

impl FailureKind {
    /// The one place where a failure becomes a retry or an end.
    pub fn disposition(self) -> Disposition {
        match self {
            Self::Download
            | Self::Disk
            | Self::Store
            | Self::OutOfMemory
            | Self::Device
            | Self::Stalled
            | Self::Interrupted => Disposition::Retry,
            Self::BadJob
            | Self::ModelNotFound
            | Self::BadConfig
            | Self::UnknownArchitecture
            | Self::DoesNotFit
            | Self::BadWeights
            | Self::Quantised
            | Self::BadTokenizer
            | Self::BadTemplate
            | Self::Unsupported
            | Self::ContextOverflow
            | Self::InvalidRequest
            | Self::NonFiniteLogits
            | Self::AttemptsExhausted
            | Self::Cancelled => Disposition::Final,
        }
    }

    /// The kind of a configuration that cannot be used.
    pub fn of_shape(error: &ShapeError) -> Self {
        match error {
            ShapeError::NotJson(_) | ShapeError::Missing(_) | ShapeError::Bad { .. } => {
                Self::BadConfig
            }
            ShapeError::UnknownArchitecture { .. } => Self::UnknownArchitecture,
            ShapeError::Quantised { .. } => Self::Quantised,
            ShapeError::Unsupported { .. } => Self::Unsupported,
        }
    }

    /// The name used in files and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadJob => "bad_job",
            Self::ModelNotFound => "model_not_found",
            Self::BadConfig => "bad_config",
            Self::UnknownArchitecture => "unknown_architecture",
            Self::DoesNotFit => "does_not_fit",
            Self::BadWeights => "bad_weights",
            Self::Quantised => "quantised",
            Self::BadTokenizer => "bad_tokenizer",
            Self::BadTemplate => "bad_template",
            Self::Unsupported => "unsupported",
            Self::ContextOverflow => "context_overflow",
            Self::InvalidRequest => "invalid_request",
            Self::NonFiniteLogits => "non_finite_logits",
            Self::Download => "download",
            Self::Disk => "disk",
            Self::Store => "store",
            Self::OutOfMemory => "out_of_memory",
            Self::Device => "device",
            Self::Stalled => "stalled",
            Self::Interrupted => "interrupted",
            Self::AttemptsExhausted => "attempts_exhausted",
            Self::Cancelled => "cancelled",
        }
    }
}

/// `failed/<cell>.<generation>.json`: why this generation of the job left the cell without a record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    pub schema_version: u32,
    pub sweep: SweepName,
    pub cell: CellId,
    pub job: JobId,
    pub generation: u32,
    pub kind: FailureKind,
    /// The whole error chain, as a person should read it.
    pub message: String,
    pub attempt: Option<AttemptId>,
    pub attempts: u32,
    pub worker: Option<String>,
    #[schemars(with = "String")]
    pub failed_at: Timestamp,
}
