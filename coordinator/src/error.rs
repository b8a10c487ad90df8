//! The one distinction among errors that the exit code makes: was it the input, or did we fail?

use bakeoff_transport::queue::QueueError;
use bakeoff_transport::store::StoreError;

use crate::check::sandbox::SandboxError;
use crate::collect::read::ReadError;
use crate::kubernetes::bundle::BundleError;
use crate::kubernetes::objects::NoImage;
use crate::kubernetes::template::TemplateError;
use crate::plan::PlanError;
use crate::publish::DifferentPlan;
use crate::sweep::SweepError;

/// An error that the user can mend: exit code 2. Anything else ends with 1.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadInput(pub String);

impl BadInput {
    pub fn error(message: impl Into<String>) -> anyhow::Error {
        Self(message.into()).into()
    }
}

/// What a command ends with, when it does not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Success,
    /// A difference or a condition the caller asked to be told by the exit code; also an interruption.
    Failure,
    /// The sweep finished, but some cells failed or were cancelled.
    FailedCells,
}

impl Ending {
    pub fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failure => 1,
            Self::FailedCells => 3,
        }
    }
}

/// The exit code of an error.
pub fn code(error: &anyhow::Error) -> u8 {
    if error.chain().any(is_input) { 2 } else { 1 }
}

fn is_input(cause: &(dyn std::error::Error + 'static)) -> bool {
    if let Some(error) = cause.downcast_ref::<QueueError>() {
        return error.is_bad_input();
    }
    if let Some(error) = cause.downcast_ref::<StoreError>() {
        return error.is_bad_input();
    }
    if let Some(error) = cause.downcast_ref::<ReadError>() {
        return match error {
            ReadError::Store(error) => is_input(error),
            ReadError::NoSuchSweep { .. } | ReadError::Plan { .. } => true,
        };
    }
    if let Some(error) = cause.downcast_ref::<SandboxError>() {
        return !matches!(error, SandboxError::Setup { .. } | SandboxError::Io(_));
    }
    cause.is::<BadInput>()
        || cause.is::<SweepError>()
        || cause.is::<PlanError>()
        || cause.is::<DifferentPlan>()
        || cause.is::<BundleError>()
        || cause.is::<TemplateError>()
        || cause.is::<NoImage>()
}
