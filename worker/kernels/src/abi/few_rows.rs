//! The MLP and attention of few tokens.

use crate::{bf16, describe::shared_struct, ptr::DevicePtr};

shared_struct! {
    /// `act = silu(gate) · up` of interleaved weights.
    #[repr(C)]
    pub struct GateUpRows {
        /// Normalised tokens, `[tokens, hidden]`.
        pub x: DevicePtr<bf16>,
        /// `[inter, 2, hidden]`: gate and up rows interleaved.
        pub weight: DevicePtr<bf16>,
        /// `[tokens, inter]`.
        pub act: DevicePtr<bf16> => written,
        /// At most [`crate::limits::MAX_FEW_ROWS`].
        pub tokens: u32,
        /// A multiple of 8.
        pub hidden: u32,
        /// A multiple of 8.
        pub inter: u32,
    }
}

shared_struct! {
    /// `h += down · act`, with sums in FP32.
    #[repr(C)]
    pub struct DownRows {
        /// `[tokens, inter]`.
        pub act: DevicePtr<bf16>,
        /// `[hidden, inter]`.
        pub weight: DevicePtr<bf16>,
        /// The residual stream, `[tokens, hidden]`, updated in place.
        pub h: DevicePtr<f32> => written,
        /// At most [`crate::limits::MAX_FEW_ROWS`].
        pub tokens: u32,
        /// A multiple of 8.
        pub hidden: u32,
        /// A multiple of 8.
        pub inter: u32,
    }
}

shared_struct! {
    /// Causal attention of consecutive tokens over the cache, in which their own keys and values
    /// are already.
    #[repr(C)]
    pub struct AttendRows {
        /// Rotated queries, `[tokens, heads, head_dim]`.
        pub q: DevicePtr<bf16>,
        /// This layer's keys, `[position + tokens or more, kv_heads, head_dim]`.
        pub k_cache: DevicePtr<bf16>,
        /// This layer's values, likewise.
        pub v_cache: DevicePtr<bf16>,
        /// `[tokens, heads, head_dim]`; may be `q`.
        pub out: DevicePtr<bf16> => written,
        /// Cache index of the first token.
        pub position: u32,
        /// At most [`crate::limits::MAX_FEW_ROWS`].
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
}
