//! A decode step.

use super::{plan::StepPlan, state::DecodeState};
use crate::{bf16, describe::shared_struct, limits::GROUP_HEADS, ptr::DevicePtr};

shared_struct! {
    /// Where the weights and the cache of a layer lie. An array of these lives in device memory.
    #[repr(C)]
    pub struct StepLayer {
        /// The norm before attention, `[hidden]`.
        pub attention_norm: DevicePtr<bf16>,
        /// Queries, keys, values: `[(heads + 2 · kv_heads) · head_dim, hidden]`.
        pub qkv: DevicePtr<bf16>,
        /// `[(heads + 2 · kv_heads) · head_dim]`.
        pub qkv_bias: Option<DevicePtr<bf16>>,
        /// Norm of each query head, `[head_dim]`.
        pub q_norm: Option<DevicePtr<bf16>>,
        /// Norm of each key head, `[head_dim]`.
        pub k_norm: Option<DevicePtr<bf16>>,
        /// `[hidden, heads · head_dim]`.
        pub o: DevicePtr<bf16>,
        /// The norm after attention, `[hidden]`.
        pub mlp_norm: DevicePtr<bf16>,
        /// `[experts, hidden]`; `None` for a dense layer.
        pub router: Option<DevicePtr<bf16>>,
        /// `[inter, 2, hidden]`, gate and up rows interleaved; with experts `[experts,
        /// expert_inter, 2, hidden]`.
        pub gate_up: DevicePtr<bf16>,
        /// `[hidden, inter]`; with experts `[experts, hidden, expert_inter]`.
        pub down: DevicePtr<bf16>,
        /// `[cache_len, kv_heads, head_dim]`; the new key is written at the position.
        pub k_cache: DevicePtr<bf16> => written,
        /// The same for values.
        pub v_cache: DevicePtr<bf16> => written,
    }
}

shared_struct! {
    /// The step: `logits = lm_head · norm(layers(h))`, and `h` is left as the last layer leaves it.
    ///
    /// All blocks must be resident at once, so nothing that waits for this kernel may hold the
    /// device.
    #[repr(C)]
    pub struct DecodeStep {
        /// `[layer_count]`.
        pub layers: Option<DevicePtr<StepLayer>>,
        /// The last norm, `[hidden]`.
        pub norm: DevicePtr<bf16>,
        /// `[vocab, hidden]`.
        pub lm_head: DevicePtr<bf16>,
        /// `[cache_len, head_dim / 2]`.
        pub cos: Option<DevicePtr<f32>>,
        /// `[cache_len, head_dim / 2]`.
        pub sin: Option<DevicePtr<f32>>,
        /// The position; makes the kernel do nothing once the sequence has stopped. May be left out
        /// without layers.
        pub state: Option<DevicePtr<DecodeState>>,
        /// The residual stream, `[hidden]`.
        pub h: DevicePtr<f32> => written,
        /// `[vocab]`.
        pub logits: DevicePtr<f32> => written,
        /// Scratch, `[(heads + 2 · kv_heads) · head_dim]`.
        pub qkv: Option<DevicePtr<f32>> => written,
        /// Scratch, `[heads · head_dim]`.
        pub attention: Option<DevicePtr<bf16>> => written,
        /// Scratch, `[inter]`.
        pub act: Option<DevicePtr<bf16>> => written,
        /// Scratch, `[top_k · expert_inter]`.
        pub expert_act: Option<DevicePtr<f32>> => written,
        /// `[layer_count, experts]`, zero before the first step; each step leaves it zero.
        pub router_sums: Option<DevicePtr<i64>> => written,
        /// Scratch of [`DecodeStep::parts_len`] values.
        pub parts: Option<DevicePtr<f32>> => written,
        /// [`DecodeStep::counters_len`] counters, zero before the first step; each step leaves them
        /// zero.
        pub counters: DevicePtr<u32> => written,
        /// Number of distinct experts used so far: incremented where given.
        pub expert_loads: Option<DevicePtr<u64>> => written,
        /// Layers; 0 for the last norm and `lm_head` alone.
        pub layer_count: u32,
        /// A multiple of 8.
        pub hidden: u32,
        /// Rows of `lm_head`.
        pub vocab: u32,
        /// Query heads.
        pub heads: u32,
        /// Key and value heads; divides `heads`.
        pub kv_heads: u32,
        /// 16, 32, 64 or 128.
        pub head_dim: u32,
        /// Inner width of dense layers, a multiple of 8; 0 without any.
        pub inter: u32,
        /// At most 256; 0 without routed layers.
        pub experts: u32,
        /// Experts chosen for a token; at most 16.
        pub top_k: u32,
        /// An expert's inner width, a multiple of 8.
        pub expert_inter: u32,
        /// 1 divides the chosen experts' weights by their sum, 0 leaves them.
        pub renormalise: u32,
        /// The norms' epsilon.
        pub eps: f32,
        /// Of attention scores, usually `1 / √head_dim`.
        pub scale: f32,
    }
}

shared_struct! {
    /// A step and how it is cut: what the launcher takes.
    #[repr(C)]
    pub struct PlannedStep {
        /// The step.
        pub step: DecodeStep,
        /// The plan for its widths and this device.
        pub plan: StepPlan,
    }
}

impl DecodeStep {
    /// Length of [`DecodeStep::parts`] on a device of `sm_count` multiprocessors: of each part, a
    /// group's results, maxima and totals.
    pub fn parts_len(sm_count: u32, kv_heads: u32, heads: u32, head_dim: u32) -> usize {
        let parts = sm_count.max(head_groups(kv_heads, heads));
        (parts * GROUP_HEADS * (head_dim + 2)) as usize
    }

    /// Length of [`DecodeStep::counters`]: arrivals, blocks that left, and one for each group of
    /// heads.
    pub fn counters_len(kv_heads: u32, heads: u32) -> usize {
        2 + head_groups(kv_heads, heads) as usize
    }
}

/// Groups of query heads that a block can take, over all key/value heads.
fn head_groups(kv_heads: u32, heads: u32) -> u32 {
    kv_heads * (heads / kv_heads.max(1)).div_ceil(GROUP_HEADS)
}
