//! A mixture-of-experts layer over many tokens.

use crate::{bf16, describe::shared_struct, limits::TILE_ROWS, ptr::DevicePtr};

shared_struct! {
    /// Where a layer's choice and the sorted order live; reused from layer to layer.
    #[repr(C)]
    pub struct ExpertPlan {
        /// Chosen experts, `[tokens, top_k]`, most likely first.
        pub ids: DevicePtr<u32> => written,
        /// Their weights, `[tokens, top_k]`.
        pub weights: DevicePtr<f32> => written,
        /// First sorted slot of each expert, `[experts + 1]`.
        pub offsets: DevicePtr<u32> => written,
        /// Token of each sorted slot, `[tokens · top_k]`.
        pub token_of: DevicePtr<u32> => written,
        /// Sorted slot of each (token, choice), `[tokens, top_k]`.
        pub slot_of: DevicePtr<u32> => written,
        /// Work list of the grouped products, `[ExpertPlan::tiles_len(..), 2]`: expert, first slot.
        pub tiles: DevicePtr<u32> => written,
        /// Number of tiles in use, then the number of distinct experts in use; `[2]`.
        pub counts: DevicePtr<u32> => written,
        /// Number of distinct experts used over all layers: incremented where given.
        pub expert_loads: Option<DevicePtr<u64>> => written,
        /// Number of tokens.
        pub tokens: u32,
        /// At most 256.
        pub experts: u32,
        /// At most 16, and at most `experts`.
        pub top_k: u32,
        /// 1 divides the chosen weights by their sum, 0 leaves them.
        pub renormalise: u32,
    }
}

shared_struct! {
    /// FP32 router logits of many tokens, softmax and choice into `plan.ids` and `plan.weights`.
    #[repr(C)]
    pub struct RouterRows {
        /// Normalised tokens, `[tokens, hidden]`.
        pub x: DevicePtr<bf16>,
        /// `[experts, hidden]`.
        pub weight: DevicePtr<bf16>,
        /// Scratch, `[tokens, experts]`.
        pub logits: DevicePtr<f32> => written,
        /// Where the choice goes.
        pub plan: ExpertPlan,
        /// A multiple of 8.
        pub hidden: u32,
    }
}

shared_struct! {
    /// Fills everything in the plan but `ids` and `weights`, from `ids`.
    #[repr(C)]
    pub struct SortByExpert {
        /// The plan.
        pub plan: ExpertPlan,
    }
}

shared_struct! {
    /// `act[slot] = silu(gate) · up` of each sorted slot's token and expert.
    #[repr(C)]
    pub struct GroupedGateUp {
        /// Normalised tokens, `[tokens, hidden]`.
        pub x: DevicePtr<bf16>,
        /// `[experts, inter, 2, hidden]`: gate and up rows interleaved within an expert.
        pub weight: DevicePtr<bf16>,
        /// `[tokens · top_k, inter]`, by sorted slot.
        pub act: DevicePtr<bf16> => written,
        /// A plan that [`SortByExpert`] has filled.
        pub plan: ExpertPlan,
        /// A multiple of 8.
        pub hidden: u32,
        /// A multiple of 8.
        pub inter: u32,
    }
}

shared_struct! {
    /// `out[slot] = down · act[slot]` of each sorted slot's expert.
    #[repr(C)]
    pub struct GroupedDown {
        /// `[tokens · top_k, inter]`, by sorted slot.
        pub act: DevicePtr<bf16>,
        /// `[experts, hidden, inter]`.
        pub weight: DevicePtr<bf16>,
        /// `[tokens · top_k, hidden]`, by sorted slot.
        pub out: DevicePtr<bf16> => written,
        /// A plan that [`SortByExpert`] has filled.
        pub plan: ExpertPlan,
        /// A multiple of 8.
        pub hidden: u32,
        /// A multiple of 8.
        pub inter: u32,
    }
}

shared_struct! {
    /// `h[t] += Σ_j weights[t, j] · out[slot_of[t, j]]`, in FP32.
    #[repr(C)]
    pub struct CombineRows {
        /// What [`GroupedDown`] wrote.
        pub out: DevicePtr<bf16>,
        /// The residual stream, `[tokens, hidden]`, updated in place.
        pub h: DevicePtr<f32> => written,
        /// The plan.
        pub plan: ExpertPlan,
        /// A multiple of 8.
        pub hidden: u32,
    }
}

impl ExpertPlan {
    /// The most tiles that so many tokens can make; each takes two values of [`ExpertPlan::tiles`].
    pub fn tiles_len(tokens: u32, experts: u32, top_k: u32) -> u32 {
        (tokens * top_k).div_ceil(TILE_ROWS) + experts
    }
}
