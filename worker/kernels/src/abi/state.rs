//! What lives in device memory, or in mapped host memory, and is read and written by kernels and
//! host alike.

use crate::{
    describe::{CType, shared_enum, shared_struct},
    limits::MAX_EOS,
};

shared_struct! {
    /// Where a sequence stands. Device memory; one for each sequence.
    ///
    /// The sampling kernel advances it, the others read it, so one CUDA graph serves every step.
    #[repr(C, align(16))]
    #[derive(Default, Eq)]
    pub struct DecodeState {
        /// Key of the random numbers.
        pub seed: u64,
        /// Cache index of the token that is being fed: it attends to `0..=position`. After a
        /// prefill of `n` tokens and before the first sampling, `n - 1`.
        pub position: u32,
        /// Tokens sampled so far; the counter of the random numbers.
        pub step: u32,
        /// The token that is being fed.
        pub token: u32,
        /// Zero while running, else a [`StopReason`]. Once set, every kernel does nothing.
        pub stop: u32,
        /// Zero, or a [`StepError`]; then `stop` is [`StopReason::Error`].
        pub error: u32,
        /// Rows of the key and value caches.
        pub cache_len: u32,
        /// Stop with [`StopReason::Length`] once so many tokens were sampled.
        pub max_steps: u32,
        /// Reserved; zero.
        pub reserved: [u32; 3],
    }
}

shared_enum! {
    /// Why the device stopped; what [`DecodeState::stop`] holds.
    pub enum StopReason as "kStop" {
        /// The last token is one of the end-of-sequence ids.
        Eos = 1,
        /// `max_steps` tokens were sampled, or the cache is full.
        Length = 2,
        /// The host asked for it through the control word.
        Cancelled = 3,
        /// See [`DecodeState::error`].
        Error = 4,
    }
}

shared_enum! {
    /// What the sampling kernel found wrong; what [`DecodeState::error`] holds.
    pub enum StepError as "kError" {
        /// A logit is NaN.
        NotANumber = 1,
        /// A logit is infinite.
        Infinite = 2,
    }
}

shared_struct! {
    /// How to sample. Device memory, so that a captured graph can serve another request.
    #[repr(C, align(16))]
    pub struct SampleSettings {
        /// Divides the logits; zero or less means greedy.
        pub temperature: f32,
        /// Keep the smallest set of most likely tokens whose probability reaches this; 1 keeps all.
        pub top_p: f32,
        /// Keep tokens at least this likely relative to the most likely; 0 keeps all.
        pub min_p: f32,
        /// Divides positive and multiplies negative logits of tokens seen before; 1 changes
        /// nothing.
        pub repetition_penalty: f32,
        /// Keep this many most likely tokens (and those equal to the last of them); 0 keeps all.
        pub top_k: u32,
        /// Ids at or beyond this are never chosen: models have more rows than tokenizers have
        /// tokens.
        pub vocab: u32,
        /// How many of `eos` count.
        pub eos_count: u32,
        /// How many entries of [`crate::abi::SampleStep::forced`] are to be fed instead of what was
        /// sampled.
        pub forced_count: u32,
        /// End-of-sequence ids.
        pub eos: [u32; SampleSettings::MAX_EOS],
    }
}

impl SampleSettings {
    /// The most end-of-sequence ids a request can have.
    pub const MAX_EOS: usize = MAX_EOS as usize;
}

/// One entry of the token ring: `step + 1` in bits 32..56, the [`StopReason`] (or zero) in bits
/// 56..64, the token in bits 0..32. The ring lives in mapped pinned host memory, is zeroed before a
/// generation, and the entry of step `s` is at `s % capacity`. Read it volatile.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingEntry(pub u64);

impl RingEntry {
    /// The sampled token.
    pub fn token(self) -> u32 {
        self.0 as u32
    }

    /// The step it belongs to, or `None` while the entry is unwritten. Steps count modulo 2^24 - 1.
    pub fn step(self) -> Option<u32> {
        ((self.0 >> 32) as u32 & 0xff_ffff).checked_sub(1)
    }

    /// Why the device stopped with this token. With [`StopReason::Error`] the token means nothing.
    pub fn stop(self) -> Option<StopReason> {
        match self.0 >> 56 {
            1 => Some(StopReason::Eos),
            2 => Some(StopReason::Length),
            3 => Some(StopReason::Cancelled),
            4 => Some(StopReason::Error),
            _ => None,
        }
    }
}

impl CType for RingEntry {
    fn name() -> String {
        u64::name()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_entry_tells_token_step_and_stop() {
        let entry = RingEntry((1 << 56) | (8 << 32) | 151_645);
        assert_eq!(entry.token(), 151_645);
        assert_eq!(entry.step(), Some(7));
        assert_eq!(entry.stop(), Some(StopReason::Eos));
        assert_eq!(RingEntry(0).step(), None);
        assert_eq!(RingEntry(5 << 32).stop(), None);
    }
}
