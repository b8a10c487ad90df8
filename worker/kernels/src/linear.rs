//! Matrix-vector products of a decode step. Weights are BF16, row-major `[out, in]`; every sum is
//! FP32; the residual stream is FP32.
//!
//! The kernels read their weights at the device's memory bandwidth: each warp streams its rows
//! through a ring of bulk copies in shared memory, filled before the predecessor has finished.

use half::bf16;

use crate::{
    DecodeState, DevicePtr, KernelError, Launcher,
    launch::{Check, Target, status},
};

/// `out = rmsnorm(h) · weightᵀ + bias`, in FP32: the fused query/key/value projection, and the
/// last norm with `lm_head`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct NormLinear {
    /// The residual stream, `[hidden]`.
    pub h: DevicePtr<f32>,
    /// The norm's weight, `[hidden]`.
    pub gamma: DevicePtr<bf16>,
    /// `[rows, hidden]`. For attention: all query rows, then keys, then values.
    pub weight: DevicePtr<bf16>,
    /// `[rows]`.
    pub bias: Option<DevicePtr<bf16>>,
    /// `[rows]`.
    pub out: DevicePtr<f32>,
    /// Makes the kernel do nothing once the sequence has stopped.
    pub state: Option<DevicePtr<DecodeState>>,
    /// Length of a row; a multiple of 8.
    pub hidden: u32,
    /// Rows of the weight.
    pub rows: u32,
    /// The norm's epsilon.
    pub eps: f32,
}

/// `h += weight · x`: the output projection of attention and the dense down projection.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct LinearResidual {
    /// `[inner]`.
    pub x: DevicePtr<bf16>,
    /// `[hidden, inner]`.
    pub weight: DevicePtr<bf16>,
    /// The residual stream, `[hidden]`, updated in place.
    pub h: DevicePtr<f32>,
    /// Makes the kernel do nothing once the sequence has stopped.
    pub state: Option<DevicePtr<DecodeState>>,
    /// Length of a row; a multiple of 8, at most 32,768.
    pub inner: u32,
    /// Length of the residual stream.
    pub hidden: u32,
}

/// `out = silu(gate) · up` with `gate, up` from `rmsnorm(h)`: the first half of a dense MLP.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct NormGateUp {
    /// The residual stream, `[hidden]`.
    pub h: DevicePtr<f32>,
    /// The norm's weight, `[hidden]`.
    pub gamma: DevicePtr<bf16>,
    /// `[inter, 2, hidden]`: **gate and up rows interleaved** (gate 0, up 0, gate 1, up 1, ...).
    pub weight: DevicePtr<bf16>,
    /// `[inter]`.
    pub out: DevicePtr<bf16>,
    /// Makes the kernel do nothing once the sequence has stopped.
    pub state: Option<DevicePtr<DecodeState>>,
    /// Length of a row; a multiple of 8.
    pub hidden: u32,
    /// Length of the result.
    pub inter: u32,
    /// The norm's epsilon.
    pub eps: f32,
}

unsafe extern "C" {
    fn bk_norm_linear(args: *const NormLinear, target: *const Target) -> i32;
    fn bk_linear_residual(args: *const LinearResidual, target: *const Target) -> i32;
    fn bk_norm_gate_up(args: *const NormGateUp, target: *const Target) -> i32;
}

impl NormLinear {
    const NAME: &str = "norm_linear";

    /// Queues the kernel.
    ///
    /// # Errors
    /// [`KernelError`] for shapes or addresses it cannot work with, or a launch that fails.
    pub fn launch(&self, launcher: &Launcher) -> Result<(), KernelError> {
        let check = Check(Self::NAME);
        check.norm_width(self.hidden)?;
        check.positive("rows", self.rows)?;
        check.aligned("h", self.h)?;
        check.aligned("gamma", self.gamma)?;
        check.aligned("weight", self.weight)?;
        // SAFETY: the struct has the C side's layout, and the caller vouches for its addresses.
        status(Self::NAME, unsafe { bk_norm_linear(self, &launcher.target()) })
    }
}

impl LinearResidual {
    const NAME: &str = "linear_residual";

    /// Queues the kernel.
    ///
    /// # Errors
    /// [`KernelError`] for shapes or addresses it cannot work with, or a launch that fails.
    pub fn launch(&self, launcher: &Launcher) -> Result<(), KernelError> {
        let check = Check(Self::NAME);
        check.whole_vectors("inner", self.inner)?;
        check.that(self.inner <= 32_768, "inner", self.inner, "at most 32768")?;
        check.positive("hidden", self.hidden)?;
        check.aligned("x", self.x)?;
        check.aligned("weight", self.weight)?;
        // SAFETY: the struct has the C side's layout, and the caller vouches for its addresses.
        status(Self::NAME, unsafe { bk_linear_residual(self, &launcher.target()) })
    }
}

impl NormGateUp {
    const NAME: &str = "norm_gate_up";

    /// Queues the kernel.
    ///
    /// # Errors
    /// [`KernelError`] for shapes or addresses it cannot work with, or a launch that fails.
    pub fn launch(&self, launcher: &Launcher) -> Result<(), KernelError> {
        let check = Check(Self::NAME);
        check.norm_width(self.hidden)?;
        check.positive("inter", self.inter)?;
        check.aligned("h", self.h)?;
        check.aligned("gamma", self.gamma)?;
        check.aligned("weight", self.weight)?;
        // SAFETY: the struct has the C side's layout, and the caller vouches for its addresses.
        status(Self::NAME, unsafe { bk_norm_gate_up(self, &launcher.target()) })
    }
}
