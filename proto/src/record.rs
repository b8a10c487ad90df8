//! The metrics record of a finished generation: `metrics/<cell>.json`. Its presence is completion.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use bakeoff_model::{EngineSettings, Format, GenerationSettings, ModelSource, Thinking};
use crate::{AttemptId, CellId, JobId, SweepName};

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FinishReason {
    /// An end-of-sequence token.
    Stop,
    /// `max_new_tokens` was reached: the output is truncated.
    Length,
}

impl FinishReason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

/// A finished generation: what was asked, what came out, how fast, on what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MetricsRecord {
    pub schema_version: u32,
    pub sweep: SweepName,
    pub cell: CellId,
    pub job: JobId,
    pub generation: u32,
    pub attempt: AttemptId,
    pub worker: String,
    pub model: String,
    pub source: ModelSource,
    pub prompt_id: String,
    pub run: u32,
    pub seed: u64,
    /// Start of the generation.
    #[schemars(with = "String")]
    pub started_at: Timestamp,
    pub document: DocumentRef,
    pub resolved: Resolved,
    pub generation_settings: GenerationSettings,
    pub engine_settings: EngineSettings,
    pub fingerprint: Fingerprint,
    pub metrics: Metrics,
    pub output: OutputFacts,
    pub memory: MemoryFacts,
    pub device: DeviceFacts,
    /// Gaps between tokens in milliseconds, in order, rounded to microseconds. Kept raw: no average hides a stall.
    pub inter_token_ms: Vec<f64>,
    /// Figures that disagree with their formula, each as a sentence.
    pub mismatches: Vec<String>,
}

/// The markdown file that belongs to a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DocumentRef {
    /// Full key in the store.
    pub key: String,
    pub sha256: String,
    /// The output is the last so many bytes of the file, verbatim.
    pub output_bytes: u64,
}

/// What `auto` and open settings turned out to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Resolved {
    pub format: Format,
    pub thinking: Thinking,
    /// `reference`, `fused` or `stock`.
    pub engine: String,
    pub temperature: f64,
    pub top_p: f64,
    pub top_k: Option<u32>,
    pub min_p: Option<f64>,
    pub repetition_penalty: f64,
    pub greedy: bool,
}

/// What must be equal for two records to be compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Fingerprint {
    /// SHA-256 over each weight file's size and whole header, and over each tensor's name with 64 bytes from the
    /// middle of its values: it tells checkpoints apart, a tuned one from its base too, but not two that differ only
    /// beside those bytes. For dummy weights over `config.json`.
    pub weights_sha256: String,
    pub tokenizer_sha256: String,
    /// Digest of the chat template; empty if there is none.
    pub template_sha256: String,
    /// Version and commit of the worker.
    pub build: String,
    pub engine: String,
    pub dtype: String,
    /// GPU name, or the CPU's model name.
    pub device: String,
    /// Driver version; empty on CPU.
    pub driver: String,
    /// Settings that change arithmetic, each `on`, `off` or `n/a`.
    pub flash_attn: String,
    pub tf32: String,
    pub reduced_precision_reduction: String,
    pub cuda_graph: String,
}

/// Speed, memory and energy. Definitions: ARCHITECTURE.md, "Metrics". GB is 10^9 bytes. `None`: undefined or not measurable here.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Metrics {
    pub flash_attn: bool,
    pub tokens_generated: u32,
    pub tok_per_s: f64,
    pub time_s: f64,
    pub model_memory_gb: f64,
    pub gpu_free_gb: Option<f64>,
    pub prompt_tokens: u32,
    pub ttft_ms: f64,
    pub tpot_ms: Option<f64>,
    pub decode_tok_s: Option<f64>,
    pub prefill_tok_s: f64,
    pub itl_p50_ms: Option<f64>,
    pub itl_p95_ms: Option<f64>,
    pub itl_p99_ms: Option<f64>,
    pub roofline_pct: Option<f64>,
    /// Read bandwidth measured in the worker's process, GB/s.
    pub read_bandwidth_gb_s: Option<f64>,
    /// Bytes read per decoded token at mean length.
    pub bytes_per_token: Option<f64>,
    pub download_s: Option<f64>,
    pub load_s: f64,
    pub load_gb_s: f64,
    pub kv_memory_gb: f64,
    pub peak_memory_gb: Option<f64>,
    pub gpu_util_mean_pct: Option<f64>,
    pub power_mean_w: Option<f64>,
    pub energy_j_per_token: Option<f64>,
    pub sm_clock_min_mhz: Option<u32>,
    pub throttled: Option<bool>,
    /// Resident set size maximum over the cell, on CPU and GPU machines alike.
    pub host_rss_peak_gb: Option<f64>,
    pub host_cpu_s: Option<f64>,
}

/// What the text is, without judging it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OutputFacts {
    pub finish_reason: FinishReason,
    pub thinking_tokens: u32,
    pub answer_tokens: u32,
    /// `None` when the output has no `<think>`.
    pub think_closed: Option<bool>,
    pub has_code: bool,
}

/// The memory ledger as planned and as seen, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct MemoryFacts {
    pub planned_weight_bytes: u64,
    pub weight_bytes: u64,
    pub planned_kv_bytes: u64,
    pub kv_bytes: u64,
    pub planned_workspace_bytes: u64,
    pub cap_bytes: Option<u64>,
    pub device_total_bytes: Option<u64>,
}

/// The machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct DeviceFacts {
    pub name: String,
    pub driver: Option<String>,
    pub gpu_class: String,
    pub host_cpu: String,
    /// Why telemetry of the GPU is missing, if it is.
    pub telemetry_note: Option<String>,
}
