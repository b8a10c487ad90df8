//! Everything that can go wrong between a model's name and its last token.

use std::error::Error as StdError;

use bakeoff_model::{ShapeError, ledger::DoesNotFit};
use bakeoff_proto::FailureKind;

pub use crate::source::hub::error::BoxError;
use crate::source::hub::error::HubError;

/// A failure of this crate. Its message names the value at fault and the next step; what caused it
/// is its source. [`EngineError::kind`] says whether trying again could help.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// `config.json` cannot be used.
    #[error(transparent)]
    Config(#[from] ShapeError),
    /// The memory ledger exceeds what the device allows.
    #[error(transparent)]
    DoesNotFit(Box<DoesNotFit>),
    /// The model could not be had from the hub.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// candle could not carry out an operation.
    #[error("an operation on the device failed")]
    Candle(#[from] candle_core::Error),
    /// Anything else, of the kind known where it is found.
    #[error("{message}")]
    Other { kind: FailureKind, message: String, source: Option<BoxError> },
}

impl EngineError {
    /// A failure without a cause of its own.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self::Other { kind, message: message.into(), source: None }
    }

    /// A failure that another error caused; the message does not repeat it.
    pub fn caused(
        kind: FailureKind,
        message: impl Into<String>,
        source: impl Into<BoxError>,
    ) -> Self {
        Self::Other { kind, message: message.into(), source: Some(source.into()) }
    }

    /// The one place where an error of this crate becomes a [`FailureKind`].
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Config(error) => FailureKind::of_shape(error),
            Self::DoesNotFit(_) => FailureKind::DoesNotFit,
            Self::Hub(error) => error.kind(),
            Self::Candle(error) if is_out_of_memory(error) => FailureKind::OutOfMemory,
            Self::Candle(_) => FailureKind::Device,
            Self::Other { kind, .. } => *kind,
        }
    }

    /// The message and those of its causes, on one line.
    pub fn report(&self) -> String {
        chain(self)
    }
}

impl From<DoesNotFit> for EngineError {
    fn from(error: DoesNotFit) -> Self {
        Self::DoesNotFit(Box::new(error))
    }
}

/// An error with its causes, on one line.
pub fn chain(error: &(dyn StdError + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Whether the driver, or cuBLAS, said that memory does not suffice. On a CPU it never says so.
fn is_out_of_memory(error: &candle_core::Error) -> bool {
    match error {
        candle_core::Error::Cuda(inner) => is_cuda_out_of_memory(&**inner),
        candle_core::Error::Context { inner, .. }
        | candle_core::Error::WithPath { inner, .. }
        | candle_core::Error::WithBacktrace { inner, .. } => is_out_of_memory(inner),
        _ => false,
    }
}

#[cfg(not(feature = "cuda"))]
fn is_cuda_out_of_memory(_error: &(dyn StdError + Send + Sync + 'static)) -> bool {
    false
}

#[cfg(feature = "cuda")]
fn is_cuda_out_of_memory(error: &(dyn StdError + Send + Sync + 'static)) -> bool {
    use candle_core::cuda::CudaError;
    let kind = match error.downcast_ref::<CudaError>() {
        Some(CudaError::Cuda(error) | CudaError::Load { cuda: error, .. }) => driver_kind(*error),
        Some(CudaError::Cublas(error)) => cublas_kind(*error),
        _ => FailureKind::Device,
    };
    kind == FailureKind::OutOfMemory
}

/// The kind of an error of the CUDA driver.
#[cfg(feature = "cuda")]
pub(crate) fn driver_kind(error: cudarc::driver::DriverError) -> FailureKind {
    match error.0 {
        cudarc::driver::sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => FailureKind::OutOfMemory,
        _ => FailureKind::Device,
    }
}

/// The kind of an error of cuBLAS.
#[cfg(feature = "cuda")]
pub(crate) fn cublas_kind(error: cudarc::cublas::result::CublasError) -> FailureKind {
    use cudarc::cublas::sys::cublasStatus_t::CUBLAS_STATUS_ALLOC_FAILED;
    match error.0 {
        CUBLAS_STATUS_ALLOC_FAILED => FailureKind::OutOfMemory,
        _ => FailureKind::Device,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_holds_every_cause_once() {
        let cause = std::io::Error::other("no space left");
        let error = EngineError::caused(FailureKind::Disk, "cannot write x", cause);
        assert_eq!(error.to_string(), "cannot write x");
        assert_eq!(error.report(), "cannot write x: no space left");
        let shape = EngineError::from(ShapeError::Missing("hidden_size"));
        assert_eq!(shape.kind(), FailureKind::BadConfig);
        assert_eq!(shape.report(), ShapeError::Missing("hidden_size").to_string());
    }

    #[test]
    fn an_error_of_candle_keeps_its_source() {
        let broken =
            candle_core::Tensor::zeros((2, 3), candle_core::DType::F32, &candle_core::Device::Cpu)
                .and_then(|x| x.matmul(&x))
                .expect_err("shapes that do not match");
        let error = EngineError::from(broken);
        assert_eq!(error.kind(), FailureKind::Device);
        let source = error.source().expect("candle's own error");
        assert!(source.downcast_ref::<candle_core::Error>().is_some());
        assert!(error.report().contains("matmul"), "{}", error.report());
    }
}
