//! Everything that can go wrong between a model's name and its last token.

use bakeoff_proto::FailureKind;

/// Each variant is one [`FailureKind`]; the message names the value at fault and the next step.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct EngineError {
    pub kind: FailureKind,
    pub message: String,
}

impl EngineError {
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

impl From<candle_core::Error> for EngineError {
    fn from(error: candle_core::Error) -> Self {
        Self::new(FailureKind::Device, format!("the device refused an operation: {error}"))
    }
}
