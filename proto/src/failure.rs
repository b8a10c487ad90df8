//! Why a cell has no record, and whether trying again could help.

use bakeoff_model::ShapeError;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantArray};

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
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
    IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum FailureKind {
    /// The job message does not parse.
    BadJob,
    /// No such model, file, folder or revision.
    ModelNotFound,
    /// `config.json` is missing, malformed or lacks a field.
    BadConfig,
    /// A decoder that no engine knows.
    UnknownArchitecture,
    /// The memory ledger exceeds the cap or the device.
    DoesNotFit,
    /// Corrupt or truncated safetensors, or tensors of another shape than the config says.
    BadWeights,
    /// A checkpoint in other numbers than BF16, FP16 or FP32.
    Quantised,
    /// `tokenizer.json` is missing or malformed.
    BadTokenizer,
    /// The chat template does not parse, throws, or runs out of fuel.
    BadTemplate,
    /// A setting that this worker cannot honour (an engine or dtype that is not built in, say).
    Unsupported,
    /// The prompt and the tokens asked for exceed the context.
    ContextOverflow,
    /// A setting out of its bounds, or an empty prompt.
    InvalidRequest,
    /// NaN or infinity in the logits.
    NonFiniteLogits,
    /// The download broke off, or the hub did not answer.
    Download,
    /// The model's cache or a temporary folder has no space left, or cannot be written.
    Disk,
    /// The object store did not take a result.
    Store,
    /// The device had less memory than was planned.
    OutOfMemory,
    /// Any other error of the device or its driver.
    Device,
    /// No phase moved for the time allowed.
    Stalled,
    /// The worker was told to stop.
    Interrupted,
    /// Five attempts in a row brought no new record.
    AttemptsExhausted,
    /// The sweep was cancelled.
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
            ShapeError::NotJson(_)
            | ShapeError::NotAnObject { .. }
            | ShapeError::Missing(_)
            | ShapeError::Bad { .. } => Self::BadConfig,
            ShapeError::UnknownArchitecture { .. } => Self::UnknownArchitecture,
            ShapeError::Quantised { .. } => Self::Quantised,
            ShapeError::Unsupported { .. } => Self::Unsupported,
        }
    }
}

bakeoff_model::words!(FailureKind);

/// `failed/<cell>.<generation>.json`: why this generation of the job left the cell without a
/// record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    /// See [`crate::SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The sweep of the cell.
    pub sweep: SweepName,
    /// The cell.
    pub cell: CellId,
    /// Its job.
    pub job: JobId,
    /// The job's generation.
    pub generation: u32,
    /// What went wrong.
    pub kind: FailureKind,
    /// The whole error chain, as a person should read it.
    pub message: String,
    /// The attempt that gave up; `None` if none was claimed.
    pub attempt: Option<AttemptId>,
    /// Attempts so far.
    pub attempts: u32,
    /// Who gave up.
    pub worker: Option<String>,
    /// When, by the worker's clock.
    #[schemars(with = "String")]
    pub failed_at: Timestamp,
}
