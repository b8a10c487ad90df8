//! A mixture-of-experts layer for one token, in three kernels: router logits, gate and up of the
//! chosen experts, down with the weighted sum.
//!
//! The choice itself (FP32 softmax, the `top_k` largest, optionally renormalised; equal logits
//! prefer the lower id) costs less than handing it on, so both expert kernels make it from the
//! logits.

use half::bf16;

use crate::{
    DecodeState, DevicePtr, KernelError, Launcher,
    launch::{Check, Target, status},
};

/// `logits = rmsnorm(h) · weightᵀ` for the router: like [`crate::linear::NormLinear`], but for few rows.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Router {
    /// The residual stream, `[hidden]`.
    pub h: DevicePtr<f32>,
    /// The norm's weight, `[hidden]`.
    pub gamma: DevicePtr<bf16>,
    /// `[experts, hidden]`.
    pub weight: DevicePtr<bf16>,
    /// `[experts]`.
    pub logits: DevicePtr<f32>,
    /// Makes the kernel do nothing once the sequence has stopped.
    pub state: Option<DevicePtr<DecodeState>>,
    /// Weights to bring into L2 meanwhile, or `None`.
    pub prefetch: Option<DevicePtr<u8>>,
    /// How many bytes of them; a multiple of 16.
    pub prefetch_bytes: u64,
    /// A multiple of 8.
    pub hidden: u32,
    /// At most 256.
    pub experts: u32,
    /// The norm's epsilon.
    pub eps: f32,
}

/// `out[j] = silu(gate) · up` of the `j`-th chosen expert.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct ExpertGateUp {
    /// The residual stream, `[hidden]`.
    pub h: DevicePtr<f32>,
    /// The norm's weight, `[hidden]` (the same as the router's).
    pub gamma: DevicePtr<bf16>,
    /// The router's logits, `[experts]`.
    pub logits: DevicePtr<f32>,
    /// `[experts, inter, 2, hidden]`: gate and up rows interleaved within an expert.
    pub weight: DevicePtr<bf16>,
    /// `[top_k, inter]`, in the order of the choice (most likely first).
    pub out: DevicePtr<f32>,
    /// Makes the kernel do nothing once the sequence has stopped.
    pub state: Option<DevicePtr<DecodeState>>,
    /// A multiple of 8.
    pub hidden: u32,
    /// An expert's inner width; a multiple of 8.
    pub inter: u32,
    /// At most 256.
    pub experts: u32,
    /// At most 16, and at most `experts`.
    pub top_k: u32,
    /// The norm's epsilon.
    pub eps: f32,
}

/// `h += Σ_j weight_j · down_j · act[j]` over the chosen experts, summed in FP32.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct ExpertDown {
    /// What [`ExpertGateUp`] wrote, `[top_k, inter]`.
    pub act: DevicePtr<f32>,
    /// The router's logits, `[experts]`. They must be written by a kernel that was queued before
    /// the one which precedes this.
    pub logits: DevicePtr<f32>,
    /// `[experts, hidden, inter]`.
    pub weight: DevicePtr<bf16>,
    /// The residual stream, `[hidden]`, updated in place.
    pub h: DevicePtr<f32>,
    /// The choice, `[top_k]` ids, most likely first; written where given.
    pub ids: Option<DevicePtr<u32>>,
    /// Its weights, `[top_k]`; written where given.
    pub weights: Option<DevicePtr<f32>>,
    /// Number of distinct experts used so far: incremented where given.
    pub expert_loads: Option<DevicePtr<u64>>,
    /// Makes the kernel do nothing once the sequence has stopped.
    pub state: Option<DevicePtr<DecodeState>>,
    /// Length of the residual stream.
    pub hidden: u32,
    /// An expert's inner width; a multiple of 8.
    pub inter: u32,
    /// At most 256.
    pub experts: u32,
    /// At most 16, and at most `experts`.
    pub top_k: u32,
    /// 1 divides the chosen weights by their sum, 0 leaves them.
    pub renormalise: u32,
}

unsafe extern "C" {
    fn bk_router(args: *const Router, target: *const Target) -> i32;
    fn bk_expert_gate_up(args: *const ExpertGateUp, target: *const Target) -> i32;
    fn bk_expert_down(args: *const ExpertDown, target: *const Target) -> i32;
}

impl Router {
    const NAME: &str = "router";

    /// Queues the kernel.
    ///
    /// # Errors
    /// [`KernelError`] for shapes or addresses it cannot work with, or a launch that fails.
    pub fn launch(&self, launcher: &Launcher) -> Result<(), KernelError> {
        let check = Check(Self::NAME);
        check.norm_width(self.hidden)?;
        check.experts(self.experts, 1)?;
        check.that(
            self.prefetch_bytes.is_multiple_of(16),
            "prefetch_bytes modulo 16",
            (self.prefetch_bytes % 16) as u32,
            "0",
        )?;
        check.aligned("h", self.h)?;
        check.aligned("gamma", self.gamma)?;
        check.aligned("weight", self.weight)?;
        if let Some(prefetch) = self.prefetch {
            check.aligned("prefetch", prefetch)?;
        }
        // SAFETY: the struct has the C side's layout, and the caller vouches for its addresses.
        status(Self::NAME, unsafe { bk_router(self, &launcher.target()) })
    }
}

impl ExpertGateUp {
    const NAME: &str = "expert_gate_up";

    /// Queues the kernel.
    ///
    /// # Errors
    /// [`KernelError`] for shapes or addresses it cannot work with, or a launch that fails.
    pub fn launch(&self, launcher: &Launcher) -> Result<(), KernelError> {
        let check = Check(Self::NAME);
        check.norm_width(self.hidden)?;
        check.whole_vectors("inter", self.inter)?;
        check.experts(self.experts, self.top_k)?;
        check.aligned("h", self.h)?;
        check.aligned("gamma", self.gamma)?;
        check.aligned("weight", self.weight)?;
        // SAFETY: the struct has the C side's layout, and the caller vouches for its addresses.
        status(Self::NAME, unsafe { bk_expert_gate_up(self, &launcher.target()) })
    }
}

impl ExpertDown {
    const NAME: &str = "expert_down";

    /// Queues the kernel.
    ///
    /// # Errors
    /// [`KernelError`] for shapes or addresses it cannot work with, or a launch that fails.
    pub fn launch(&self, launcher: &Launcher) -> Result<(), KernelError> {
        let check = Check(Self::NAME);
        check.positive("hidden", self.hidden)?;
        check.whole_vectors("inter", self.inter)?;
        check.experts(self.experts, self.top_k)?;
        check.that(
            self.inter.saturating_mul(self.top_k) <= 12_288,
            "inter · top_k",
            self.inter.saturating_mul(self.top_k),
            "at most 12288",
        )?;
        check.aligned("act", self.act)?;
        check.aligned("weight", self.weight)?;
        // SAFETY: the struct has the C side's layout, and the caller vouches for its addresses.
        status(Self::NAME, unsafe { bk_expert_down(self, &launcher.target()) })
    }
}
