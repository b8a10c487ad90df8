//! The sweep file as it is written: every key with its type, range and meaning. The comments here
//! are what a user reads in the JSON Schema.
//!
//! A new setting: a field here, and its place in what the plan freezes ([`super::Sweep`],
//! [`super::ReportRules`], [`super::CheckSettings`], or the settings in `bakeoff_model`).

use std::ops::Bound::{Excluded, Included};

use bakeoff_model::{
    Dtype, EngineKind, Format, GenerationSettings, LoadFormat, SamplingParams, SamplingSource,
    Thinking, sampling,
};
use bakeoff_proto::SweepName;
use schemars::JsonSchema;
use serde::Deserialize;

use super::checks::ChecksSection;
use super::rules::ReportRules;
use crate::toml_file::bounds::{Maybe, bounds};
use crate::toml_file::shapes::{CountOrAll, OneOrMany, WordOrFlag};

bounds! {
    Seed: u64 = (Included(0), Included(u64::MAX));
    Runs: u32 = (Included(1), Included(10_000));
    /// Beyond any context of the architectures that are supported.
    MaxNewTokens: u32 = (Included(1), Included(1 << 20));
    Temperature: f64 = sampling::TEMPERATURE.range(), expected sampling::TEMPERATURE;
    TopP: f64 = sampling::TOP_P.range(), expected sampling::TOP_P;
    TopK: u32 = (Included(0), Included(sampling::MAX_TOP_K)), expected sampling::TOP_K;
    MinP: f64 = sampling::MIN_P.range(), expected sampling::MIN_P;
    RepetitionPenalty: f64 = sampling::REPETITION_PENALTY.range(),
        expected sampling::REPETITION_PENALTY;
    MemoryGb: f64 = (Excluded(0.0), Included(100_000.0)), " (GB, 10^9 bytes)";
}

/// A sweep: which models answer which prompts, how often, and how.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SweepFile {
    /// Name of the sweep and of its folder in the object store: letters, digits, `.`, `_` and `-`.
    pub name: SweepName,
    /// File name of the CSV; `<name>_summary.csv` unless given.
    pub summary: Option<String>,
    /// How each model generates.
    #[serde(default)]
    pub generation: GenerationSection,
    /// What runs the models.
    #[serde(default)]
    pub engine: EngineSection,
    /// How the work is queued.
    #[serde(default)]
    pub queue: QueueSection,
    /// By which rules the report recommends.
    #[serde(default)]
    pub report: ReportRules,
    /// What is executed to check the outputs; nothing without this table.
    pub checks: Option<ChecksSection>,
    /// What the models are asked: a `[[prompts]]` for each prompt or suite.
    #[serde(default)]
    pub prompts: Vec<PromptEntry>,
    /// Which models answer: a `[[models]]` for each.
    #[serde(default)]
    pub models: Vec<ModelEntry>,
}

/// Sampling and length. In a model's own `generation` only what differs is given.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GenerationSection {
    /// Seed of the whole sweep; each run of each prompt derives its own. Only in `[generation]`.
    #[serde(with = "Maybe::<Seed>")]
    #[schemars(extend("default" = 0))]
    pub seed: Option<u64>,
    /// How often each model answers each prompt. Only in `[generation]`.
    #[serde(with = "Maybe::<Runs>")]
    #[schemars(extend("default" = super::settings::DEFAULT_RUNS))]
    pub runs: Option<u32>,
    /// The output is cut off after so many tokens.
    #[serde(with = "Maybe::<MaxNewTokens>")]
    #[schemars(extend("default" = GenerationSettings::DEFAULT_MAX_NEW_TOKENS))]
    pub max_new_tokens: Option<u32>,
    /// Divides the logits: lower is more certain, 0 is greedy.
    #[serde(with = "Maybe::<Temperature>")]
    #[schemars(extend("default" = SamplingParams::DEFAULT_TEMPERATURE))]
    pub temperature: Option<f64>,
    /// Keep the most likely tokens whose probabilities add up to this.
    #[serde(with = "Maybe::<TopP>")]
    #[schemars(extend("default" = SamplingParams::DEFAULT_TOP_P))]
    pub top_p: Option<f64>,
    /// Drop tokens less likely than this share of the most likely one. Off unless given.
    #[serde(with = "Maybe::<MinP>")]
    pub min_p: Option<f64>,
    /// Make tokens that occurred before less likely: 1 is off.
    #[serde(with = "Maybe::<RepetitionPenalty>")]
    pub repetition_penalty: Option<f64>,
    /// Keep only so many of the most likely tokens; 0 is off.
    #[serde(with = "Maybe::<TopK>")]
    pub top_k: Option<u32>,
    /// Always take the most likely token; temperature, top_p, top_k and min_p are ignored.
    #[schemars(extend("default" = false))]
    pub greedy: Option<bool>,
    /// Where values left open come from: `sweep`, the same defaults for every model, or `model`,
    /// each model's own generation_config.json.
    #[schemars(extend("default" = SamplingSource::Sweep))]
    pub sampling: Option<SamplingSource>,
}

/// What runs the models. In a model's own `engine` only what differs is given.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EngineSection {
    /// One engine, or a list to compare: `auto`, `reference`, `fused`, `stock`.
    #[schemars(extend("default" = EngineKind::Auto))]
    pub engine: Option<OneOrMany<EngineKind>>,
    /// Number format of weights and activations.
    #[schemars(extend("default" = Dtype::Bf16))]
    pub dtype: Option<Dtype>,
    /// `dummy`: random weights of the model's shape, right for speed and meaningless as text.
    #[schemars(extend("default" = LoadFormat::Safetensors))]
    pub load_format: Option<LoadFormat>,
    /// Cap on device memory; the device's own limit applies below it.
    #[serde(with = "Maybe::<MemoryGb>")]
    #[schemars(extend("default" = 85))]
    pub max_memory_gb: Option<f64>,
    /// FlashAttention 2 in prefill where it is built in.
    #[schemars(extend("default" = true))]
    pub flash_attn: Option<bool>,
    /// TF32 for FP32 matrix products.
    #[schemars(extend("default" = true))]
    pub tf32: Option<bool>,
    /// Let cuBLAS reduce BF16 products in BF16.
    #[schemars(extend("default" = true))]
    pub reduced_precision_reduction: Option<bool>,
    /// Replay the decode step as one CUDA graph.
    #[schemars(extend("default" = true))]
    pub cuda_graph: Option<bool>,
}

/// How the work is queued.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct QueueSection {
    /// Which workers may take the jobs: `any`, `cpu`, or the name of a GPU.
    #[schemars(extend("default" = "any"))]
    pub gpu_class: Option<String>,
    /// Cells in one job: `all` of a model, so that its weights are loaded once, or a number.
    #[schemars(extend("default" = "all"))]
    pub cells_per_job: Option<CountOrAll>,
}

/// One prompt, or a suite of them. It has one of `text`, `file` and `suite`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PromptEntry {
    /// Name in files and reports: letters, digits, `.`, `_` and `-`.
    pub id: String,
    /// The prompt itself.
    pub text: Option<String>,
    /// A file beside the sweep that holds the prompt, byte for byte.
    pub file: Option<String>,
    /// A JSONL file of tasks as HumanEval has them: `task_id`, `prompt`, `test`, `entry_point`.
    pub suite: Option<String>,
    /// Put before the text of each task of a suite.
    #[schemars(extend("default" = super::suite::INSTRUCTION))]
    pub instruction: Option<String>,
    /// System message of the chat template.
    pub system: Option<String>,
    /// Language that the answer should be in.
    #[schemars(extend("default" = "python"))]
    pub language: Option<String>,
    /// Put before the prompt of a base model for code; a comment that names the language unless
    /// given.
    pub code_hint: Option<String>,
    /// What the report looks for: a rubric that ships, a .toml file beside the sweep, or `none`.
    /// `python-code` for Python unless given.
    pub rubric: Option<String>,
}

/// One model, and where it differs from the rest of the sweep. It has one of `id` and `path`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelEntry {
    /// `owner/name` on the hub, or `builtin:NAME` for a model inside the engine.
    pub id: Option<String>,
    /// Folder of a checkpoint on the workers' machines; a relative one starts at the sweep file.
    pub path: Option<String>,
    /// Commit, branch or tag on the hub. Frozen as a commit when the sweep is submitted.
    #[schemars(extend("default" = "main"))]
    pub revision: Option<String>,
    /// Name in tables, where the id is not unique or not short.
    pub label: Option<String>,
    /// How the prompt becomes the model's input.
    #[serde(default)]
    pub format: Format,
    /// Whether a model that can think first does so: `auto` leaves it to the template.
    #[schemars(extend("default" = Thinking::Auto))]
    pub thinking: Option<WordOrFlag<Thinking>>,
    /// Which workers may take this model's jobs, in place of the `[queue]` setting.
    pub gpu_class: Option<String>,
    /// What differs from `[generation]`.
    #[serde(default)]
    pub generation: GenerationSection,
    /// What differs from `[engine]`.
    #[serde(default)]
    pub engine: EngineSection,
}
