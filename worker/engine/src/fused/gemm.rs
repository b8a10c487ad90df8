//! Matrix products of the prefill, by cuBLAS on plain device addresses.

use std::{ffi::c_int, sync::Arc};

use bakeoff_kernels::DevicePtr;
use cudarc::cublas::{CudaBlas, result, sys};
use half::bf16;

use super::{device::Gpu, error::blas_error};
use crate::EngineError;

/// cuBLAS on the engine's stream.
pub struct Gemm {
    blas: Arc<CudaBlas>,
}

/// Sizes of `out[rows, out_width] = x[rows, in_width] · weight[out_width, in_width]ᵀ`.
#[derive(Debug, Clone, Copy)]
pub struct GemmShape {
    pub rows: usize,
    pub out_width: usize,
    pub in_width: usize,
}

impl GemmShape {
    /// Floating-point operations.
    pub fn flops(self) -> f64 {
        2.0 * self.rows as f64 * self.out_width as f64 * self.in_width as f64
    }
}

impl Gemm {
    /// The device's own handle, on its stream.
    pub fn new(gpu: &Gpu) -> Self {
        Self { blas: gpu.cuda().cublas_handle() }
    }

    /// Queues `out = x · weightᵀ` with a BF16 result.
    ///
    /// # Safety
    /// Until the stream is through, the addresses are of device memory that holds matrices of the
    /// shape given, and nothing outside the stream writes them or uses `out`.
    ///
    /// # Errors
    /// cuBLAS refuses the sizes, or fails.
    pub unsafe fn multiply(
        &self,
        shape: GemmShape,
        x: DevicePtr<bf16>,
        weight: DevicePtr<bf16>,
        out: DevicePtr<bf16>,
    ) -> Result<(), EngineError> {
        let address = out.address();
        // SAFETY: as the caller promises; the result is BF16.
        unsafe { self.queue(shape, [x, weight], address, sys::cudaDataType_t::CUDA_R_16BF, 0.0) }
    }

    /// Queues `h += x · weightᵀ` with an FP32 sum: a projection straight into the residual stream.
    ///
    /// # Safety
    /// As for [`Gemm::multiply`].
    ///
    /// # Errors
    /// cuBLAS refuses the sizes, or fails.
    pub unsafe fn multiply_add(
        &self,
        shape: GemmShape,
        x: DevicePtr<bf16>,
        weight: DevicePtr<bf16>,
        h: DevicePtr<f32>,
    ) -> Result<(), EngineError> {
        let address = h.address();
        // SAFETY: as the caller promises; the result is FP32.
        unsafe { self.queue(shape, [x, weight], address, sys::cudaDataType_t::CUDA_R_32F, 1.0) }
    }

    /// # Safety
    /// As for [`Gemm::multiply`], with `out` of `out_type`.
    unsafe fn queue(
        &self,
        shape: GemmShape,
        [x, weight]: [DevicePtr<bf16>; 2],
        out: u64,
        out_type: sys::cudaDataType_t,
        beta: f32,
    ) -> Result<(), EngineError> {
        let size = |n: usize| c_int::try_from(n).expect("widths and chunks are far below 2^31");
        let alpha = 1.0f32;
        // cuBLAS is column-major: our row-major product is its transposed one, operands swapped.
        // SAFETY: the caller's addresses hold matrices of the shape given; both scalars are read
        // before the call returns.
        unsafe {
            result::gemm_ex(
                *self.blas.handle(),
                sys::cublasOperation_t::CUBLAS_OP_T,
                sys::cublasOperation_t::CUBLAS_OP_N,
                size(shape.out_width),
                size(shape.rows),
                size(shape.in_width),
                std::ptr::from_ref(&alpha).cast(),
                weight.address() as *const _,
                sys::cudaDataType_t::CUDA_R_16BF,
                size(shape.in_width),
                x.address() as *const _,
                sys::cudaDataType_t::CUDA_R_16BF,
                size(shape.in_width),
                std::ptr::from_ref(&beta).cast(),
                out as *mut _,
                out_type,
                size(shape.out_width),
                sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
                sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT_TENSOR_OP,
            )
        }
        .map_err(blas_error)
    }
}
