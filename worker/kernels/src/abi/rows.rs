//! The small steps of prefill.

use crate::{bf16, describe::shared_struct, ptr::DevicePtr};

shared_struct! {
    /// `h[t] = embedding[tokens[t]]`.
    #[repr(C)]
    pub struct EmbedRows {
        /// `[tokens_len]`, each below `rows`.
        pub tokens: DevicePtr<u32>,
        /// `[rows, hidden]`.
        pub embedding: DevicePtr<bf16>,
        /// `[tokens_len, hidden]`.
        pub h: DevicePtr<f32> => written,
        /// Number of tokens.
        pub tokens_len: u32,
        /// Length of the residual stream; a multiple of 8.
        pub hidden: u32,
        /// Rows of the embedding; larger ids take the last row.
        pub rows: u32,
    }
}

shared_struct! {
    /// `h += y` (where `y` is given), then `out = rmsnorm(h)` (where `out` is given).
    #[repr(C)]
    pub struct AddNormRows {
        /// The residual stream, `[tokens, hidden]`, updated in place.
        pub h: DevicePtr<f32> => written,
        /// What a projection gave, `[tokens, hidden]`.
        pub y: Option<DevicePtr<bf16>>,
        /// The norm's weight, `[hidden]`; needed with `out`.
        pub gamma: Option<DevicePtr<bf16>>,
        /// `[tokens, hidden]`.
        pub out: Option<DevicePtr<bf16>> => written,
        /// Number of tokens.
        pub tokens: u32,
        /// A multiple of 8, at most 16,384.
        pub hidden: u32,
        /// The norm's epsilon.
        pub eps: f32,
    }
}

shared_struct! {
    /// From the fused projection to rotated queries and the cache: bias, q/k norm, RoPE, cache
    /// write.
    #[repr(C)]
    pub struct QkvRows {
        /// `[tokens, (heads + 2 · kv_heads) · head_dim]`, without bias.
        pub qkv: DevicePtr<bf16>,
        /// `[(heads + 2 · kv_heads) · head_dim]`.
        pub bias: Option<DevicePtr<bf16>>,
        /// `[head_dim]`; with `k_norm` or not at all.
        pub q_norm: Option<DevicePtr<bf16>>,
        /// `[head_dim]`.
        pub k_norm: Option<DevicePtr<bf16>>,
        /// `[cache_len, head_dim / 2]`.
        pub cos: DevicePtr<f32>,
        /// Likewise.
        pub sin: DevicePtr<f32>,
        /// `[tokens, heads, head_dim]`.
        pub q_out: DevicePtr<bf16> => written,
        /// This layer's keys, `[cache_len, kv_heads, head_dim]`.
        pub k_cache: DevicePtr<bf16> => written,
        /// This layer's values, `[cache_len, kv_heads, head_dim]`.
        pub v_cache: DevicePtr<bf16> => written,
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
}

shared_struct! {
    /// `out = silu(gate) · up` from interleaved columns.
    #[repr(C)]
    pub struct SiluMulRows {
        /// `[tokens, inter, 2]`: what `[inter, 2, hidden]` weights give.
        pub gate_up: DevicePtr<bf16>,
        /// `[tokens, inter]`.
        pub out: DevicePtr<bf16> => written,
        /// Number of tokens.
        pub tokens: u32,
        /// A multiple of 8.
        pub inter: u32,
    }
}
