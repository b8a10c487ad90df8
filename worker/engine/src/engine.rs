//! The trait every engine implements: one generation, never logits per step.

use std::ops::ControlFlow;
use std::time::Instant;

use bakeoff_proto::FinishReason;

use crate::EngineError;

/// How the next token is chosen. All settings are resolved: nothing is left open here.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    pub greedy: bool,
    pub temperature: f64,
    pub top_p: f64,
    pub top_k: Option<u32>,
    pub min_p: Option<f64>,
    /// 1.0 is off. Applied before anything else, also when greedy, over prompt and output (as HF
    /// does).
    pub repetition_penalty: f64,
    pub seed: u64,
}

/// One sequence to generate.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub prompt_ids: Vec<u32>,
    pub max_new_tokens: usize,
    pub sampling: Sampling,
    /// Any of these ends the sequence; it is counted and reported as its last token.
    pub stop_ids: Vec<u32>,
}

/// What happens while an engine generates.
#[derive(Debug, Clone, PartialEq)]
pub enum TokenEvent {
    /// So many prompt tokens are through.
    Prefill { sequence: usize, tokens: usize },
    /// A token is on the host.
    Token { sequence: usize, id: u32 },
}

/// Where events go. A `Break` stops the generation.
pub type OnEvent<'a> = &'a mut dyn FnMut(TokenEvent) -> ControlFlow<()>;

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

/// Bytes that a loaded model holds on its device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Footprint {
    pub weight_bytes: u64,
    /// Activations and buffers, allocated at load; 0 where they come and go.
    pub workspace_bytes: u64,
    pub kv_bytes_per_token: u64,
}

/// A loaded model that generates. Engines run on a thread of their own and may block.
pub trait Engine: Send {
    /// `reference`, `fused` or `stock`.
    fn name(&self) -> &'static str;

    fn footprint(&self) -> Footprint;

    /// Generates each request to its end, one after another; all are checked before the first
    /// starts.
    ///
    /// A `Break` of `on_event` stops the whole call: the sequence it came in ends where it is
    /// (without a reason, unless that token ended it anyway) and is the last of the result;
    /// requests after it are not started.
    ///
    /// # Errors
    /// A request that cannot be met, context overflow, non-finite logits, device errors. A stop is
    /// not an error.
    fn generate(
        &mut self,
        requests: &[Request],
        on_event: OnEvent<'_>,
    ) -> Result<Vec<Generation>, EngineError>;

    /// Teacher-forced logits in FP32, `[ids.len()][vocab]`, for tests.
    ///
    /// # Errors
    /// No ids, more than the context holds, non-finite logits, device errors.
    fn score(&mut self, ids: &[u32]) -> Result<Vec<Vec<f32>>, EngineError>;
}
