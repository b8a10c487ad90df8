//! How to generate and on which engine, as the sweep fixes it. Everything here is part of a cell's identity.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where sampling parameters that the sweep leaves open come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SamplingSource {
    /// Bakeoff's defaults: the same for every model.
    #[default]
    Sweep,
    /// The model's own `generation_config.json`.
    Model,
}

/// Sampling and length. `None` means that the sweep left it open (see [`SamplingSource`]).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GenerationSettings {
    pub max_new_tokens: u32,
    pub temperature: Option<f64>,
    pub top_p: Option<f64>,
    pub top_k: Option<u32>,
    pub min_p: Option<f64>,
    pub repetition_penalty: Option<f64>,
    /// Always the most likely token; temperature and the filters are ignored then.
    pub greedy: bool,
    pub sampling: SamplingSource,
}

impl GenerationSettings {
    pub const DEFAULT_MAX_NEW_TOKENS: u32 = 4096;
    pub const DEFAULT_TEMPERATURE: f64 = 0.7;
    pub const DEFAULT_TOP_P: f64 = 0.9;
}

impl Default for GenerationSettings {
    fn default() -> Self {
        Self {
            max_new_tokens: Self::DEFAULT_MAX_NEW_TOKENS,
            temperature: None,
            top_p: None,
            top_k: None,
            min_p: None,
            repetition_penalty: None,
            greedy: false,
            sampling: SamplingSource::Sweep,
        }
    }
}

/// Which implementation of the forward pass generates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// Fused where it can run, reference elsewhere.
    #[default]
    Auto,
    /// Plain candle operations on any device and dtype.
    Reference,
    /// Our CUDA kernels in one graph, BF16.
    Fused,
    /// candle-transformers' own models: what a user would write without Bakeoff.
    Stock,
}

impl EngineKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Reference => "reference",
            Self::Fused => "fused",
            Self::Stock => "stock",
        }
    }
}

/// The number format of weights and activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    #[default]
    Bf16,
    F32,
}

impl Dtype {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::F32 => "f32",
        }
    }

    pub fn bytes(self) -> u64 {
        match self {
            Self::Bf16 => 2,
            Self::F32 => 4,
        }
    }
}

/// Where weights come from: the checkpoint, or random numbers of the checkpoint's shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LoadFormat {
    #[default]
    Safetensors,
    /// Random weights: right for measuring speed, meaningless as text.
    Dummy,
}

/// The engine's settings. Those that a kernel ignores read `n/a` in the record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EngineSettings {
    pub engine: EngineKind,
    pub dtype: Dtype,
    pub load_format: LoadFormat,
    /// Cap on device memory, in GB (10^9 bytes). The device's own limit applies below it.
    pub max_memory_gb: f64,
    /// Use FlashAttention 2 in prefill where it is built in.
    pub flash_attn: bool,
    /// TF32 for FP32 matrix products.
    pub tf32: bool,
    /// Let cuBLAS reduce BF16 products in BF16.
    pub reduced_precision_reduction: bool,
    /// Replay the decode step as one CUDA graph.
    pub cuda_graph: bool,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            engine: EngineKind::Auto,
            dtype: Dtype::Bf16,
            load_format: LoadFormat::Safetensors,
            max_memory_gb: 85.0,
            flash_attn: true,
            tf32: true,
            reduced_precision_reduction: true,
            cuda_graph: true,
        }
    }
}
