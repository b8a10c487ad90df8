//! How a decode step is cut; [`crate::plan`] computes it.

use crate::{
    bf16,
    describe::{shared_enum, shared_struct},
    limits::{CONSUMER_WARPS, GROUP_HEADS},
};

shared_enum! {
    /// What the weights of a layer are multiplied with, in this order, and `lm_head` after the last
    /// layer. A dense layer has `GateUp` and `Down`, a routed one `ExpertGateUp` and `ExpertDown`.
    pub enum Phase as "k" {
        /// Queries, keys and values.
        Qkv = 0,
        /// Attention's output projection.
        O = 1,
        /// Gate and up of a dense MLP.
        GateUp = 2,
        /// Down of a dense MLP.
        Down = 3,
        /// Gate and up of the chosen experts.
        ExpertGateUp = 4,
        /// Down of the chosen experts.
        ExpertDown = 5,
        /// From the last norm to the logits.
        LmHead = 6,
    }
}

shared_struct! {
    /// How a phase's matrix is cut into items, one a stage of the ring.
    ///
    /// A unit is what one result needs: `rows` rows (two for gate and up). A row is `segments`
    /// pieces of `segment_vectors`, which lie apart; a stage holds `merged` whole segments, or one
    /// of the `chunks` of a segment. Vectors are 16 bytes.
    #[repr(C)]
    #[derive(Default, Eq)]
    pub struct Cut {
        /// Results of the phase; 0 where the model has no such phase.
        pub units: u32,
        /// Rows of a unit.
        pub rows: u32,
        /// Segments of a row.
        pub segments: u32,
        /// Vectors of a segment.
        pub segment_vectors: u32,
        /// Chunks of a segment that is longer than a stage.
        pub chunks: u32,
        /// Vectors of a chunk.
        pub chunk_vectors: u32,
        /// Segments in a stage.
        pub merged: u32,
        /// Items of a row.
        pub steps: u32,
    }
}

shared_struct! {
    /// How the phases are cut and a block's shared memory is laid out, in the order of the fields.
    #[repr(C)]
    #[derive(Default, Eq)]
    pub struct StepPlan {
        /// By [`Phase`].
        pub cuts: [Cut; Phase::COUNT],
        /// Stages of the ring.
        pub stages: u32,
        /// Vectors of a stage.
        pub stage_vectors: u32,
        /// A phase's input, or attention's scratch.
        pub input_bytes: u32,
        /// The layers' addresses.
        pub layer_bytes: u32,
        /// A phase's products, one an item.
        pub product_bytes: u32,
        /// Most rows of the residual stream that a block has.
        pub own_rows: u32,
        /// These rows with the norm's weight and the router's columns there.
        pub own_bytes: u32,
        /// All of it, and what a launch asks for.
        pub shared_bytes: u32,
    }
}

impl Phase {
    /// How many there are.
    pub const COUNT: usize = 7;
}

/// Size of `AttentionShared` in `cuda/attend.cuh`: a group's queries, a key and a value in BF16,
/// and each warp's maxima, totals and results in FP32.
pub const fn attention_bytes(head_dim: u32) -> u32 {
    (GROUP_HEADS + 2) * head_dim * size_of::<bf16>() as u32
        + CONSUMER_WARPS * GROUP_HEADS * (2 + head_dim) * size_of::<f32>() as u32
}
