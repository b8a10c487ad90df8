//! A model that answers prompts, as the run loop sees it. Everything here blocks: the run loop
//! calls it on a thread of its own.

use std::ops::ControlFlow;

use bakeoff_engine::load::Effective;
use bakeoff_engine::{EngineError, Footprint, Generation, Sampling, TokenEvent};
use bakeoff_proto::record::OutputFacts;
use bakeoff_model::{Format, Thinking};
use bakeoff_proto::{Cell, Job};

/// How far opening a model has come, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenProgress {
    Download { bytes: u64, total_bytes: Option<u64> },
    Load { bytes: u64, total_bytes: u64 },
}

/// Where progress goes; a `Break` abandons the opening.
pub type OnOpen<'a> = &'a mut dyn FnMut(OpenProgress) -> ControlFlow<()>;
/// Where prompt chunks and tokens go; a `Break` stops the generation.
pub type OnToken<'a> = &'a mut dyn FnMut(TokenEvent) -> ControlFlow<()>;

/// Where models come from: the engine, or a test's script.
pub trait Models: Send + Sync + 'static {
    /// Opens the model of a job, for the longest of its cells.
    ///
    /// # Errors
    /// Whatever keeps the model from being found, checked against the memory ledger, or loaded.
    fn open(&self, job: &Job, on_progress: OnOpen<'_>) -> Result<Box<dyn Model>, EngineError>;
}

/// An opened model.
pub trait Model: Send {
    fn facts(&self) -> &ModelFacts;

    /// Generates a cell. `max_new_tokens` overrides the cell's own limit (for the warm-up).
    ///
    /// # Errors
    /// Those of one cell only: its template, its length, its logits; or the device's.
    fn generate(
        &mut self,
        cell: &Cell,
        max_new_tokens: u32,
        on_token: OnToken<'_>,
    ) -> Result<Output, EngineError>;
}

/// What is known of a model once it is open.
#[derive(Debug, Clone)]
pub struct ModelFacts {
    pub weights_sha256: String,
    pub tokenizer_sha256: String,
    pub template_sha256: String,
    pub format: Format,
    pub thinking: Thinking,
    pub effective: Effective,
    pub footprint: Footprint,
    pub planned_weight_bytes: u64,
    pub planned_kv_bytes: u64,
    pub planned_workspace_bytes: u64,
    pub cap_bytes: Option<u64>,
    pub device_total_bytes: Option<u64>,
    pub stored_bytes: u64,
    pub load_s: f64,
    pub download_s: Option<f64>,
    /// Read bandwidth of the memory that holds the weights, measured in this process, GB/s.
    pub read_bandwidth_gb_s: Option<f64>,
}

/// What a cell brought.
#[derive(Debug, Clone)]
pub struct Output {
    pub generation: Generation,
    pub prompt_tokens: u32,
    /// Decoded, special tokens skipped.
    pub text: String,
    /// `None` if the callback stopped the generation.
    pub facts: Option<OutputFacts>,
    pub sampling: Sampling,
}
