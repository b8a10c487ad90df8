//! What short prompts, and the short ends of long ones, need beside cuBLAS and FlashAttention, which are
//! made for many tokens.

use half::bf16;

use crate::{
    DevicePtr, KernelError, Launcher,
    launch::{Check, Target, status},
};

/// The most tokens these kernels take.
pub const MAX_ROWS: u32 = 128;

/// `act = silu(gate) · up` of interleaved weights.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct GateUpRows {
    /// Normalised tokens, `[tokens, hidden]`.
    pub x: DevicePtr<bf16>,
    /// `[inter, 2, hidden]`: gate and up rows interleaved.
    pub weight: DevicePtr<bf16>,
    /// `[tokens, inter]`.
    pub act: DevicePtr<bf16>,
    /// At most [`MAX_ROWS`].
    pub tokens: u32,
    /// A multiple of 8.
    pub hidden: u32,
    /// A multiple of 8.
    pub inter: u32,
}

/// `h += down · act`, with sums in FP32.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct DownRows {
    /// `[tokens, inter]`.
    pub act: DevicePtr<bf16>,
    /// `[hidden, inter]`.
    pub weight: DevicePtr<bf16>,
    /// The residual stream, `[tokens, hidden]`, updated in place.
    pub h: DevicePtr<f32>,
    /// At most [`MAX_ROWS`].
    pub tokens: u32,
    /// A multiple of 8.
    pub hidden: u32,
    /// A multiple of 8.
    pub inter: u32,
}

/// Causal attention of consecutive tokens over the cache, in which their own keys and values are already.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct AttendRows {
    /// Rotated queries, `[tokens, heads, head_dim]`.
    pub q: DevicePtr<bf16>,
    /// This layer's keys, `[position + tokens or more, kv_heads, head_dim]`.
    pub k_cache: DevicePtr<bf16>,
    /// This layer's values, likewise.
    pub v_cache: DevicePtr<bf16>,
    /// `[tokens, heads, head_dim]`; may be `q`.
    pub out: DevicePtr<bf16>,
    /// Cache index of the first token.
    pub position: u32,
    /// At most [`MAX_ROWS`].
    pub tokens: u32,
    /// Query heads; a multiple of `kv_heads`.
    pub heads: u32,
    /// Key/value heads.
    pub kv_heads: u32,
    /// 16, 32, 64 or 128.
    pub head_dim: u32,
    /// What scores are multiplied by.
    pub scale: f32,
}

unsafe extern "C" {
    fn bk_gate_up_rows(args: *const GateUpRows, target: *const Target) -> i32;
    fn bk_down_rows(args: *const DownRows, target: *const Target) -> i32;
    fn bk_attend_rows(args: *const AttendRows, target: *const Target) -> i32;
}

impl GateUpRows {
    const NAME: &str = "gate_up_rows";

    /// Queues the kernel.
    ///
    /// # Errors
    /// [`KernelError`] for shapes or addresses it cannot work with, or a launch that fails.
    pub fn launch(&self, launcher: &Launcher) -> Result<(), KernelError> {
        let check = Check(Self::NAME);
        few(&check, self.tokens)?;
        check.whole_vectors("hidden", self.hidden)?;
        check.whole_vectors("inter", self.inter)?;
        check.aligned("x", self.x)?;
        check.aligned("weight", self.weight)?;
        check.aligned("act", self.act)?;
        // SAFETY: the struct has the C side's layout, and the caller vouches for its addresses.
        status(Self::NAME, unsafe { bk_gate_up_rows(self, &launcher.target()) })
    }
}

impl DownRows {
    const NAME: &str = "down_rows";

    /// Queues the kernel.
    ///
    /// # Errors
    /// [`KernelError`] for shapes or addresses it cannot work with, or a launch that fails.
    pub fn launch(&self, launcher: &Launcher) -> Result<(), KernelError> {
        let check = Check(Self::NAME);
        few(&check, self.tokens)?;
        check.whole_vectors("hidden", self.hidden)?;
        check.whole_vectors("inter", self.inter)?;
        check.aligned("act", self.act)?;
        check.aligned("weight", self.weight)?;
        check.aligned("h", self.h)?;
        // SAFETY: the struct has the C side's layout, and the caller vouches for its addresses.
        status(Self::NAME, unsafe { bk_down_rows(self, &launcher.target()) })
    }
}

impl AttendRows {
    const NAME: &str = "attend_rows";

    /// Queues the kernel.
    ///
    /// # Errors
    /// [`KernelError`] for shapes or addresses it cannot work with, or a launch that fails.
    pub fn launch(&self, launcher: &Launcher) -> Result<(), KernelError> {
        let check = Check(Self::NAME);
        few(&check, self.tokens)?;
        check.head_dim(self.head_dim)?;
        check.heads(self.heads, self.kv_heads)?;
        for (what, ptr) in
            [("q", self.q), ("k_cache", self.k_cache), ("v_cache", self.v_cache), ("out", self.out)]
        {
            check.aligned(what, ptr)?;
        }
        // SAFETY: the struct has the C side's layout, and the caller vouches for its addresses.
        status(Self::NAME, unsafe { bk_attend_rows(self, &launcher.target()) })
    }
}

fn few(check: &Check, tokens: u32) -> Result<(), KernelError> {
    check.positive("tokens", tokens)?;
    check.that(tokens <= MAX_ROWS, "tokens", tokens, "at most 128")
}
