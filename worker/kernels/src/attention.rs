//! Attention of one new token, fused with everything between the projections.

use half::bf16;

use crate::{
    DecodeState, DevicePtr, KernelError, Launcher,
    launch::{Check, Target, status},
};

/// Takes the projections of the token at `state.position`, normalises queries and keys (where the
/// model does), rotates them, appends key and value to the cache, and attends over
/// `0..=position` with grouped queries. Each key/value head is split over a cluster of blocks that
/// combine their parts through distributed shared memory.
///
/// The rotation is by halves (element `i` with `i + head_dim / 2`), as Qwen models have it.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct DecodeAttention {
    /// `[(heads + 2 · kv_heads) · head_dim]`: queries, keys, values, with bias.
    pub qkv: DevicePtr<f32>,
    /// The queries' norm, `[head_dim]`; with `k_norm` or not at all.
    pub q_norm: Option<DevicePtr<bf16>>,
    /// The keys' norm, `[head_dim]`.
    pub k_norm: Option<DevicePtr<bf16>>,
    /// Cosines, `[cache_len, head_dim / 2]`, with any attention factor of the scaling folded in.
    pub cos: DevicePtr<f32>,
    /// Sines, likewise.
    pub sin: DevicePtr<f32>,
    /// This layer's keys, `[cache_len, kv_heads, head_dim]`, rotated.
    pub k_cache: DevicePtr<bf16>,
    /// This layer's values, `[cache_len, kv_heads, head_dim]`.
    pub v_cache: DevicePtr<bf16>,
    /// `[heads · head_dim]`.
    pub out: DevicePtr<bf16>,
    /// Gives the position.
    pub state: DevicePtr<DecodeState>,
    /// Weights to bring into L2 meanwhile, or `None`.
    pub prefetch: Option<DevicePtr<u8>>,
    /// How many bytes of them; a multiple of 16.
    pub prefetch_bytes: u64,
    /// Query heads; a multiple of `kv_heads`.
    pub heads: u32,
    /// Key/value heads.
    pub kv_heads: u32,
    /// 16, 32, 64 or 128.
    pub head_dim: u32,
    /// The q/k norm's epsilon.
    pub eps: f32,
    /// Multiplies the scores; usually `head_dim^-0.5`.
    pub scale: f32,
}

unsafe extern "C" {
    fn bk_decode_attention(args: *const DecodeAttention, target: *const Target) -> i32;
}

impl DecodeAttention {
    const NAME: &str = "decode_attention";

    /// Queues the kernel.
    ///
    /// # Errors
    /// [`KernelError`] for shapes or addresses it cannot work with, or a launch that fails.
    pub fn launch(&self, launcher: &Launcher) -> Result<(), KernelError> {
        let check = Check(Self::NAME);
        check.head_dim(self.head_dim)?;
        check.heads(self.heads, self.kv_heads)?;
        check.that(
            self.q_norm.is_some() == self.k_norm.is_some(),
            "norms given",
            1,
            "both of q_norm and k_norm, or neither",
        )?;
        check.that(
            self.prefetch_bytes.is_multiple_of(16),
            "prefetch_bytes modulo 16",
            (self.prefetch_bytes % 16) as u32,
            "0",
        )?;
        check.aligned("k_cache", self.k_cache)?;
        check.aligned("v_cache", self.v_cache)?;
        if let Some(prefetch) = self.prefetch {
            check.aligned("prefetch", prefetch)?;
        }
        // SAFETY: the struct has the C side's layout, and the caller vouches for its addresses.
        status(Self::NAME, unsafe { bk_decode_attention(self, &launcher.target()) })
    }
}
