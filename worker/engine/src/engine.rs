//! The trait every engine implements: one generation, never logits per step.

use std::ops::ControlFlow;
use std::time::Instant;

use bakeoff_model::Sampling;
use bakeoff_proto::FinishReason;

use crate::EngineError;

/// One sequence to generate.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub prompt_ids: Vec<u32>,
    pub max_new_tokens: usize,
    pub sampling: Sampling,
    /// Any of these ends the sequence; it is counted and reported as its last token.
    pub stop_ids: Vec<u32>,
}

/// What an engine tells while it generates. The callback may stop it by `ControlFlow::Break`.
#[derive(Debug, Clone, PartialEq)]
pub enum TokenEvent {
    /// So many prompt tokens are through.
    Prefill { sequence: usize, tokens: usize },
    /// A token is on the host.
    Token { sequence: usize, id: u32 },
}

/// One finished (or stopped) sequence.
#[derive(Debug, Clone)]
pub struct Generation {
    /// Generated tokens, the end-of-sequence token included.
    pub token_ids: Vec<u32>,
    /// `None` when the callback stopped it.
    pub finish_reason: Option<FinishReason>,
    /// When the prompt's ids were handed over.
    pub started: Instant,
    /// When each token was on the host; as long as `token_ids`.
    pub token_times: Vec<Instant>,
    /// True if every prefill attention used FlashAttention 2.
    pub flash_attn: bool,
    /// Bytes of key and value cache allocated for this sequence.
    pub kv_bytes: u64,
    /// Weight bytes read per decoded token: all of a dense model, the routed experts of an MoE
    /// as counted on the device. Mean over the decoded tokens.
    pub weight_bytes_per_token: f64,
}

/// Bytes an engine holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Footprint {
    pub weight_bytes: u64,
    pub workspace_bytes: u64,
    pub kv_bytes_per_token: u64,
}

/// A loaded model that generates. Engines run on a thread of their own and may block.
pub trait Engine: Send {
    /// `reference`, `fused` or `stock`.
    fn name(&self) -> &'static str;

    fn footprint(&self) -> Footprint;

    /// Longest sequence, prompt included.
    fn max_context(&self) -> usize;

    /// Generates each request to its end. A single request is the measured case; several form a batch
    /// where the engine can, and run one after another where it cannot.
    ///
    /// # Errors
    /// Context overflow, non-finite logits, device errors. A stop by the callback is not an error.
    fn generate(
        &mut self,
        requests: &[Request],
        on_event: &mut dyn FnMut(TokenEvent) -> ControlFlow<()>,
    ) -> Result<Vec<Generation>, EngineError>;

    /// Teacher-forced logits in FP32, `[ids.len()][vocab]`, for tests.
    fn score(&mut self, ids: &[u32]) -> Result<Vec<Vec<f32>>, EngineError>;
}
