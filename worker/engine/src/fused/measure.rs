//! What this GPU can do, measured in the process whose speeds are held against it.

use bakeoff_kernels::{
    Kernel as _,
    util::{self, FillRandom},
};
use cudarc::driver::{CudaEvent, result, sys};
use half::bf16;

use super::{
    device::{Buffer, Gpu},
    error::{driver_error, kernel_error},
    gemm::{Gemm, GemmShape},
};
use crate::EngineError;

const BANDWIDTH_BYTES: usize = 4 << 30;
const BANDWIDTH_ROUNDS: usize = 11;
/// Width of the square weight that cuBLAS multiplies by: larger than any cache.
const GEMM_WIDTH: usize = 8192;
const GEMM_ROUNDS: usize = 21;
const COPY_BYTES: usize = 256 << 20;
const COPY_ROUNDS: usize = 7;

/// Reading device memory, GB/s (10^9 bytes): median of several passes over 4 GiB of random data.
///
/// # Errors
/// A device error.
pub fn read_bandwidth_gb_s(gpu: &Gpu) -> Result<f64, EngineError> {
    let samples = util::measure_read_bandwidth(&gpu.launcher, BANDWIDTH_BYTES, BANDWIDTH_ROUNDS)
        .map_err(kernel_error)?;
    Ok(median(samples))
}

/// cuBLAS in BF16 with so many rows against an 8192 × 8192 weight, TFLOP/s: median.
///
/// # Errors
/// A device error.
pub fn gemm_tflop_s(gpu: &Gpu, rows: usize) -> Result<f64, EngineError> {
    let shape = GemmShape { rows, out_width: GEMM_WIDTH, in_width: GEMM_WIDTH };
    let random = |elements: usize, seed: u64| {
        let buffer = Buffer::<bf16>::uninitialised(gpu, elements)?;
        let (out, count) = (buffer.ptr(), elements as u64);
        let fill = FillRandom { out, count, first: 0, seed, mean: 0.0, deviation: 1.0 };
        // SAFETY: the buffer was just allocated with so many elements; freeing it waits for the
        // device.
        unsafe { fill.launch(&gpu.launcher) }.map_err(kernel_error)?;
        Ok::<_, EngineError>(buffer)
    };
    let (x, weight) = (random(rows * GEMM_WIDTH, 1)?, random(GEMM_WIDTH * GEMM_WIDTH, 2)?);
    let out = Buffer::<bf16>::uninitialised(gpu, rows * GEMM_WIDTH)?;
    let gemm = Gemm::new(gpu);
    // SAFETY: the three buffers have the sizes of `shape` and outlive the products; see above.
    let multiply = || unsafe { gemm.multiply(shape, x.ptr(), weight.ptr(), out.ptr()) };
    let seconds = timed(gpu, GEMM_ROUNDS, multiply)?;
    Ok(shape.flops() / seconds / 1e12)
}

/// Copying pinned host memory to the device, GB/s: median.
///
/// # Errors
/// A device error.
pub fn host_to_device_gb_s(gpu: &Gpu) -> Result<f64, EngineError> {
    let target = Buffer::<u8>::uninitialised(gpu, COPY_BYTES)?;
    // SAFETY: filled before it is read, freed below after all copies are through.
    let host = unsafe { result::malloc_host(COPY_BYTES, sys::CU_MEMHOSTALLOC_PORTABLE) }
        .map_err(driver_error)?;
    // SAFETY: the allocation is of this size.
    unsafe { std::ptr::write_bytes(host.cast::<u8>(), 0x5a, COPY_BYTES) };
    let seconds = timed(gpu, COPY_ROUNDS, || {
        // SAFETY: both allocations are of this size and live until the end of the function.
        unsafe {
            sys::cuMemcpyHtoDAsync_v2(
                target.ptr().address(),
                host,
                COPY_BYTES,
                gpu.stream().cu_stream(),
            )
        }
        .result()
        .map_err(driver_error)
    });
    // SAFETY: allocated above; `timed` has waited for the copies, or the device is lost.
    unsafe { result::free_host(host) }.map_err(driver_error)?;
    Ok(COPY_BYTES as f64 / seconds? / 1e9)
}

/// Median seconds of what `queue` queues, after three rounds that do not count.
fn timed(
    gpu: &Gpu,
    rounds: usize,
    mut queue: impl FnMut() -> Result<(), EngineError>,
) -> Result<f64, EngineError> {
    let event = || -> Result<CudaEvent, EngineError> {
        let flags = Some(sys::CUevent_flags::CU_EVENT_DEFAULT);
        gpu.context().new_event(flags).map_err(driver_error)
    };
    let mut samples = Vec::with_capacity(rounds);
    for round in 0..rounds + 3 {
        let (start, end) = (event()?, event()?);
        start.record(gpu.stream()).map_err(driver_error)?;
        queue()?;
        end.record(gpu.stream()).map_err(driver_error)?;
        let milliseconds = start.elapsed_ms(&end).map_err(driver_error)?;
        if round >= 3 {
            samples.push(f64::from(milliseconds) / 1e3);
        }
    }
    gpu.synchronize()?;
    Ok(median(samples))
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}
