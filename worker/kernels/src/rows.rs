//! The small steps between matrix products, over many tokens at once (prefill). The residual
//! stream is FP32, what the products take and give is BF16.

use half::bf16;

use crate::{
    DevicePtr, KernelError, Launcher,
    launch::{Check, Target, status},
};

/// `h[t] = embedding[tokens[t]]`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct EmbedRows {
    /// `[tokens_len]`, each below `rows`.
    pub tokens: DevicePtr<u32>,
    /// `[rows, hidden]`.
    pub embedding: DevicePtr<bf16>,
    /// `[tokens_len, hidden]`.
    pub h: DevicePtr<f32>,
    /// Number of tokens.
    pub tokens_len: u32,
    /// Length of the residual stream; a multiple of 8.
    pub hidden: u32,
    /// Rows of the embedding; larger ids take the last row.
    pub rows: u32,
}

/// `h += y` (where `y` is given), then `out = rmsnorm(h)` (where `out` is given).
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct AddNormRows {
    /// The residual stream, `[tokens, hidden]`, updated in place.
    pub h: DevicePtr<f32>,
    /// What a projection gave, `[tokens, hidden]`.
    pub y: Option<DevicePtr<bf16>>,
    /// The norm's weight, `[hidden]`; needed with `out`.
    pub gamma: Option<DevicePtr<bf16>>,
    /// `[tokens, hidden]`.
    pub out: Option<DevicePtr<bf16>>,
    /// Number of tokens.
    pub tokens: u32,
    /// A multiple of 8, at most 16,384.
    pub hidden: u32,
    /// The norm's epsilon.
    pub eps: f32,
}

/// From the fused projection to rotated queries and the cache: bias, q/k norm, RoPE, cache write.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct QkvRows {
    /// `[tokens, (heads + 2 · kv_heads) · head_dim]`, without bias.
    pub qkv: DevicePtr<bf16>,
    /// `[(heads + 2 · kv_heads) · head_dim]`.
    pub bias: Option<DevicePtr<bf16>>,
    /// `[head_dim]`; with `k_norm` or not at all.
    pub q_norm: Option<DevicePtr<bf16>>,
    /// `[head_dim]`.
    pub k_norm: Option<DevicePtr<bf16>>,
    /// `[cache_len, head_dim / 2]`, as in [`crate::attention::DecodeAttention`].
    pub cos: DevicePtr<f32>,
    /// Likewise.
    pub sin: DevicePtr<f32>,
    /// `[tokens, heads, head_dim]`.
    pub q_out: DevicePtr<bf16>,
    /// This layer's keys, `[cache_len, kv_heads, head_dim]`.
    pub k_cache: DevicePtr<bf16>,
    /// This layer's values, `[cache_len, kv_heads, head_dim]`.
    pub v_cache: DevicePtr<bf16>,
    /// Cache index of the first token.
    pub position: u32,
    /// Number of tokens.
    pub tokens: u32,
    /// Rows of the cache; the last token must fit.
    pub cache_len: u32,
    /// Query heads; a multiple of `kv_heads`.
    pub heads: u32,
    /// Key/value heads.
    pub kv_heads: u32,
    /// 16, 32, 64 or 128.
    pub head_dim: u32,
    /// The q/k norm's epsilon.
    pub eps: f32,
}

/// `out = silu(gate) · up` from interleaved columns.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct SiluMulRows {
    /// `[tokens, inter, 2]`: what `[inter, 2, hidden]` weights give.
    pub gate_up: DevicePtr<bf16>,
    /// `[tokens, inter]`.
    pub out: DevicePtr<bf16>,
    /// Number of tokens.
    pub tokens: u32,
    /// A multiple of 8.
    pub inter: u32,
}

unsafe extern "C" {
    fn bk_embed_rows(args: *const EmbedRows, target: *const Target) -> i32;
    fn bk_add_norm_rows(args: *const AddNormRows, target: *const Target) -> i32;
    fn bk_qkv_rows(args: *const QkvRows, target: *const Target) -> i32;
    fn bk_silu_mul_rows(args: *const SiluMulRows, target: *const Target) -> i32;
}

impl EmbedRows {
    const NAME: &str = "embed_rows";

    /// Queues the kernel.
    ///
    /// # Errors
    /// [`KernelError`] for shapes or addresses it cannot work with, or a launch that fails.
    pub fn launch(&self, launcher: &Launcher) -> Result<(), KernelError> {
        let check = Check(Self::NAME);
        check.positive("tokens_len", self.tokens_len)?;
        check.positive("rows", self.rows)?;
        check.whole_vectors("hidden", self.hidden)?;
        check.aligned("embedding", self.embedding)?;
        check.aligned("h", self.h)?;
        // SAFETY: the struct has the C side's layout, and the caller vouches for its addresses.
        status(Self::NAME, unsafe { bk_embed_rows(self, &launcher.target()) })
    }
}

impl AddNormRows {
    const NAME: &str = "add_norm_rows";

    /// Queues the kernel.
    ///
    /// # Errors
    /// [`KernelError`] for shapes or addresses it cannot work with, or a launch that fails.
    pub fn launch(&self, launcher: &Launcher) -> Result<(), KernelError> {
        let check = Check(Self::NAME);
        check.positive("tokens", self.tokens)?;
        check.norm_width(self.hidden)?;
        check.that(
            self.out.is_some() == self.gamma.is_some(),
            "norm weight given",
            self.gamma.is_some().into(),
            "given exactly where out is",
        )?;
        check.aligned("h", self.h)?;
        for (what, ptr) in [("y", self.y), ("gamma", self.gamma), ("out", self.out)] {
            if let Some(ptr) = ptr {
                check.aligned(what, ptr)?;
            }
        }
        // SAFETY: the struct has the C side's layout, and the caller vouches for its addresses.
        status(Self::NAME, unsafe { bk_add_norm_rows(self, &launcher.target()) })
    }
}

impl QkvRows {
    const NAME: &str = "qkv_rows";

    /// Queues the kernel.
    ///
    /// # Errors
    /// [`KernelError`] for shapes or addresses it cannot work with, or a launch that fails.
    pub fn launch(&self, launcher: &Launcher) -> Result<(), KernelError> {
        let check = Check(Self::NAME);
        check.positive("tokens", self.tokens)?;
        check.head_dim(self.head_dim)?;
        check.heads(self.heads, self.kv_heads)?;
        check.that(
            self.q_norm.is_some() == self.k_norm.is_some(),
            "norms given",
            1,
            "both of q_norm and k_norm, or neither",
        )?;
        check.that(
            self.position.checked_add(self.tokens).is_some_and(|end| end <= self.cache_len),
            "position",
            self.position,
            "such that position + tokens is at most cache_len",
        )?;
        // SAFETY: the struct has the C side's layout, and the caller vouches for its addresses.
        status(Self::NAME, unsafe { bk_qkv_rows(self, &launcher.target()) })
    }
}

impl SiluMulRows {
    const NAME: &str = "silu_mul_rows";

    /// Queues the kernel.
    ///
    /// # Errors
    /// [`KernelError`] for shapes or addresses it cannot work with, or a launch that fails.
    pub fn launch(&self, launcher: &Launcher) -> Result<(), KernelError> {
        let check = Check(Self::NAME);
        check.positive("tokens", self.tokens)?;
        check.whole_vectors("inter", self.inter)?;
        check.aligned("gate_up", self.gate_up)?;
        check.aligned("out", self.out)?;
        // SAFETY: the struct has the C side's layout, and the caller vouches for its addresses.
        status(Self::NAME, unsafe { bk_silu_mul_rows(self, &launcher.target()) })
    }
}
