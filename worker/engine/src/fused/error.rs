//! Errors of the driver, of cuBLAS and of our kernels, as this crate's.

use bakeoff_kernels::KernelError;
use bakeoff_proto::FailureKind;
use cudarc::{cublas::result::CublasError, driver::DriverError};

use crate::{
    EngineError,
    error::{cublas_kind, driver_kind},
};

/// `cudaErrorMemoryAllocation` of the CUDA runtime.
const RUNTIME_OUT_OF_MEMORY: i32 = 2;

pub(super) fn driver_error(error: DriverError) -> EngineError {
    EngineError::caused(driver_kind(error), "the CUDA driver failed", error)
}

pub(super) fn blas_error(error: CublasError) -> EngineError {
    EngineError::caused(cublas_kind(error), "cuBLAS failed", error)
}

pub(super) fn kernel_error(error: KernelError) -> EngineError {
    let kind = match &error {
        KernelError::Driver(error) => driver_kind(*error),
        KernelError::Shape { .. } => FailureKind::Unsupported,
        KernelError::Cuda { code: RUNTIME_OUT_OF_MEMORY, .. } => FailureKind::OutOfMemory,
        KernelError::Alignment { .. } | KernelError::Cuda { .. } => FailureKind::Device,
    };
    EngineError::caused(kind, "a kernel of the engine `fused` failed", error)
}
