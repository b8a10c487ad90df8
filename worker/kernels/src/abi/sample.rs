//! Sampling, and the state of a sequence.

use super::state::{DecodeState, RingEntry, SampleSettings};
use crate::{bf16, describe::shared_struct, ptr::DevicePtr};

shared_struct! {
    /// Chooses the next token, reports it through the ring, embeds it as the next residual stream
    /// and advances the state. One cluster of blocks.
    ///
    /// In this order, as transformers does: repetition penalty, temperature, top-k, top-p, min-p;
    /// then the largest `logit + Gumbel noise` among those kept, which is a draw from their
    /// softmax. The noise comes from Philox4x32-10 keyed by `state.seed` with counter `(token,
    /// step)`, so a replay chooses the same tokens. Tokens equal to the last one kept are kept too.
    /// Greedy takes the lowest of equally likely ids. A NaN or infinite logit stops with
    /// [`crate::StepError`] instead.
    #[repr(C)]
    pub struct SampleStep {
        /// `[rows]`, read only.
        pub logits: DevicePtr<f32>,
        /// The sequence's state, advanced here.
        pub state: DevicePtr<DecodeState> => written,
        /// How to sample.
        pub settings: DevicePtr<SampleSettings>,
        /// One bit for each token seen, `[rows.div_ceil(32)]`; the chosen token is added.
        pub seen: DevicePtr<u32> => written,
        /// Tokens fed instead of the sampled ones for the first `settings.forced_count` steps.
        pub forced: Option<DevicePtr<u32>>,
        /// Mapped host memory, `[ring_capacity]`, as the device sees it.
        pub ring: DevicePtr<RingEntry> => written,
        /// Mapped host memory: nonzero asks the sequence to stop after this token.
        pub control: Option<DevicePtr<u32>>,
        /// The embedding, `[rows, hidden]`.
        pub embedding: DevicePtr<bf16>,
        /// The residual stream, `[hidden]`: becomes the chosen token's embedding.
        pub h: DevicePtr<f32> => written,
        /// Number of logits; at most 262,144.
        pub rows: u32,
        /// Length of the residual stream; a multiple of 8.
        pub hidden: u32,
        /// Entries of the ring.
        pub ring_capacity: u32,
    }
}

shared_struct! {
    /// Marks tokens (a prompt's) as seen.
    #[repr(C)]
    pub struct MarkSeen {
        /// `[count]`, each below the number of logits.
        pub tokens: DevicePtr<u32>,
        /// As in [`SampleStep::seen`].
        pub seen: DevicePtr<u32> => written,
        /// Number of tokens.
        pub count: u32,
        /// Number of logits; larger ids are ignored.
        pub rows: u32,
    }
}
