//! The metrics record of a finished generation: `metrics/<cell>.json`. Its presence is completion.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantArray};

use crate::{AttemptId, CellId, JobId, SweepName};
use bakeoff_model::{EngineSettings, Format, GenerationSettings, ModelSource, Thinking};

/// Why a generation ended.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
    IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum FinishReason {
    /// An end-of-sequence token.
    Stop,
    /// `max_new_tokens` was reached: the output is truncated.
    Length,
}

bakeoff_model::words!(FinishReason);

/// A finished generation: what was asked, what came out, how fast, on what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MetricsRecord {
    /// See [`crate::SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The sweep of the cell.
    pub sweep: SweepName,
    /// The cell.
    pub cell: CellId,
    /// Its job.
    pub job: JobId,
    /// The job's generation.
    pub generation: u32,
    /// The attempt that made it.
    pub attempt: AttemptId,
    /// Who made it.
    pub worker: String,
    /// The model's name, as [`bakeoff_model::ModelSpec::display_id`] has it.
    pub model: String,
    /// Where the model's files are.
    pub source: ModelSource,
    /// The prompt's id in the sweep.
    pub prompt_id: String,
    /// Counted from 1.
    pub run: u32,
    /// The cell's seed.
    pub seed: u64,
    /// Start of the generation.
    #[schemars(with = "String")]
    pub started_at: Timestamp,
    /// The markdown with the output.
    pub document: DocumentRef,
    /// What the settings turned out to be.
    pub resolved: Resolved,
    /// The settings as the plan has them.
    pub generation_settings: GenerationSettings,
    /// The settings as the plan has them.
    pub engine_settings: EngineSettings,
    /// What must be equal to compare.
    pub fingerprint: Fingerprint,
    /// Speed, memory and energy.
    pub metrics: Metrics,
    /// What the text is.
    pub output: OutputFacts,
    /// The ledger.
    pub memory: MemoryFacts,
    /// The machine.
    pub device: DeviceFacts,
    /// Gaps between tokens in milliseconds, in order, rounded to microseconds. Kept raw: no average
    /// hides a stall.
    pub inter_token_ms: Vec<f64>,
    /// Figures that disagree with their formula, each as a sentence.
    pub mismatches: Vec<String>,
}

/// The markdown file that belongs to a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DocumentRef {
    /// Full key in the store.
    pub key: String,
    /// Of the whole file, 64 hexadecimal digits.
    pub sha256: String,
    /// The output is the last so many bytes of the file, verbatim.
    pub output_bytes: u64,
}

/// What `auto` and open settings turned out to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Resolved {
    /// Never `auto`.
    pub format: Format,
    /// `auto` where the template decided.
    pub thinking: Thinking,
    /// `reference`, `fused` or `stock`.
    pub engine: String,
    /// As sampled with; not looked at when greedy.
    pub temperature: f64,
    /// As sampled with; not looked at when greedy.
    pub top_p: f64,
    /// `None` is off.
    pub top_k: Option<u32>,
    /// `None` is off.
    pub min_p: Option<f64>,
    /// 1 is off.
    pub repetition_penalty: f64,
    /// Always the likeliest token.
    pub greedy: bool,
}

/// What must be equal for two records to be compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Fingerprint {
    /// SHA-256 over each weight file's size and whole header, and over each tensor's name with 64
    /// bytes from the middle of its values: it tells checkpoints apart, a tuned one from its base
    /// too, but not two that differ only beside those bytes. For dummy weights over `config.json`.
    pub weights_sha256: String,
    /// SHA-256 of `tokenizer.json`.
    pub tokenizer_sha256: String,
    /// Digest of the chat template; empty if there is none.
    pub template_sha256: String,
    /// Version and commit of the worker.
    pub build: String,
    /// `reference`, `fused` or `stock`.
    pub engine: String,
    /// `bf16` or `f32`.
    pub dtype: String,
    /// GPU name, or the CPU's model name.
    pub device: String,
    /// Driver version; empty on CPU.
    pub driver: String,
    /// Settings that change arithmetic, each `on`, `off` or `n/a`.
    pub flash_attn: String,
    /// `on`, `off` or `n/a`.
    pub tf32: String,
    /// `on`, `off` or `n/a`.
    pub reduced_precision_reduction: String,
    /// `on`, `off` or `n/a`.
    pub cuda_graph: String,
}

/// Speed, memory and energy. Definitions: ARCHITECTURE.md, "Metrics". GB is 10^9 bytes. `None`:
/// undefined or not measurable here.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Metrics {
    /// Every prefill attention used FlashAttention 2.
    pub flash_attn: bool,
    /// Tokens of the output, the end-of-sequence token included.
    pub tokens_generated: u32,
    /// `tokens_generated` over `time_s`, prefill included.
    pub tok_per_s: f64,
    /// From the prompt's ids handed over to the last token on the host.
    pub time_s: f64,
    /// Weights on the device.
    pub model_memory_gb: f64,
    /// Free right after the generation, by NVML.
    pub gpu_free_gb: Option<f64>,
    /// Tokens of the formatted prompt.
    pub prompt_tokens: u32,
    /// To the first token on the host.
    pub ttft_ms: f64,
    /// (`time_s` − time to first token) / (`tokens_generated` − 1); `None` for one token.
    pub tpot_ms: Option<f64>,
    /// 1000 / `tpot_ms`.
    pub decode_tok_s: Option<f64>,
    /// `prompt_tokens` over the time to first token.
    pub prefill_tok_s: f64,
    /// Median gap between tokens (see [`bakeoff_model::percentile`]).
    pub itl_p50_ms: Option<f64>,
    /// 95th percentile of the gaps.
    pub itl_p95_ms: Option<f64>,
    /// 99th percentile of the gaps.
    pub itl_p99_ms: Option<f64>,
    /// `decode_tok_s` over what `read_bandwidth_gb_s` allows, percent.
    pub roofline_pct: Option<f64>,
    /// Read bandwidth measured in the worker's process, GB/s.
    pub read_bandwidth_gb_s: Option<f64>,
    /// Bytes read per decoded token at mean length.
    pub bytes_per_token: Option<f64>,
    /// Time to fetch the files; `None` if they were there.
    pub download_s: Option<f64>,
    /// From storage to ready, download excluded.
    pub load_s: f64,
    /// Stored bytes over `load_s`.
    pub load_gb_s: f64,
    /// Keys and values by formula.
    pub kv_memory_gb: f64,
    /// Most memory in use over the cell, by NVML.
    pub peak_memory_gb: Option<f64>,
    /// Mean utilisation over the generation, percent.
    pub gpu_util_mean_pct: Option<f64>,
    /// Mean power over the generation, W.
    pub power_mean_w: Option<f64>,
    /// Energy of the generation over its tokens, J.
    pub energy_j_per_token: Option<f64>,
    /// Lowest SM clock over the generation, MHz.
    pub sm_clock_min_mhz: Option<u32>,
    /// The card slowed down for heat, hardware slowdown or power brake.
    pub throttled: Option<bool>,
    /// Resident set size maximum over the cell, on CPU and GPU machines alike.
    pub host_rss_peak_gb: Option<f64>,
    /// CPU time of the process over the cell.
    pub host_cpu_s: Option<f64>,
}

/// What the text is, without judging it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OutputFacts {
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Tokens through `</think>`; all of them if it is never closed.
    pub thinking_tokens: u32,
    /// The other tokens.
    pub answer_tokens: u32,
    /// `None` when the output has no `<think>`.
    pub think_closed: Option<bool>,
    /// The answer has a fenced block, or looks like code where the prompt asked for plain code.
    pub has_code: bool,
}

/// The memory ledger as planned and as seen, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct MemoryFacts {
    /// Weights by the ledger.
    pub planned_weight_bytes: u64,
    /// Weights as loaded.
    pub weight_bytes: u64,
    /// Keys and values by the ledger.
    pub planned_kv_bytes: u64,
    /// Keys and values as allocated.
    pub kv_bytes: u64,
    /// Workspace by the ledger.
    pub planned_workspace_bytes: u64,
    /// What was allowed.
    pub cap_bytes: Option<u64>,
    /// What the device has.
    pub device_total_bytes: Option<u64>,
}

/// The machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct DeviceFacts {
    /// The GPU's name by NVML, or the CPU's.
    pub name: String,
    /// The GPU driver's version.
    pub driver: Option<String>,
    /// The class of jobs that the worker takes beside `any`.
    pub gpu_class: String,
    /// The CPU's model name.
    pub host_cpu: String,
    /// Why telemetry of the GPU is missing, if it is.
    pub telemetry_note: Option<String>,
}
