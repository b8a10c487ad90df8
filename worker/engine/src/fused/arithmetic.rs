//! The settings that change what cuBLAS computes.

use bakeoff_model::EngineSettings;
use candle_core::{CudaDevice, cuda};
use cudarc::cublas::sys;

use super::error::blas_error;
use crate::EngineError;

/// Sets TF32 and reduced-precision reductions as the sweep asks.
///
/// TF32 for FP32 products is candle's own switch. Whether cuBLAS may reduce the parts of a BF16
/// product in BF16 is a mode of its handle, which candle's switch does not reach: it only names
/// another compute type, with the same result for BF16 operands.
///
/// # Errors
/// cuBLAS refuses the mode.
pub(super) fn apply(device: &CudaDevice, settings: &EngineSettings) -> Result<(), EngineError> {
    cuda::set_gemm_reduced_precision_f32(settings.tf32);
    cuda::set_gemm_reduced_precision_bf16(settings.reduced_precision_reduction);
    let mode = if settings.reduced_precision_reduction {
        sys::cublasMath_t::CUBLAS_DEFAULT_MATH
    } else {
        sys::cublasMath_t::CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION
    };
    // SAFETY: the handle is live for the call.
    unsafe { sys::cublasSetMathMode(*device.cublas_handle().handle(), mode) }
        .result()
        .map_err(blas_error)
}
