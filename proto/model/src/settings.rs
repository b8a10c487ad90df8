//! How to generate and on which engine, as the sweep fixes it. All of it is part of a cell's
//! identity.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::sampling::{self, SamplingParams};
use crate::vocabulary::{Dtype, EngineKind, LoadFormat, SamplingSource};

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
    /// Tokens after which a text is cut off, where nobody says otherwise.
    pub const DEFAULT_MAX_NEW_TOKENS: u32 = 4096;

    /// Fills in the defaults once all overrides are applied, drops what greedy decoding ignores and
    /// what is switched off, so that two sweeps that mean the same have the same cells. A
    /// temperature of 0 is greedy.
    #[must_use]
    pub fn settled(mut self) -> Self {
        self.greedy |= self.temperature.is_some_and(sampling::is_greedy);
        if self.greedy {
            self.temperature = None;
            self.top_p = None;
            self.top_k = None;
            self.min_p = None;
        } else if self.sampling == SamplingSource::Sweep {
            self.temperature.get_or_insert(SamplingParams::DEFAULT_TEMPERATURE);
            self.top_p.get_or_insert(SamplingParams::DEFAULT_TOP_P);
            self.top_k = self.top_k.filter(|k| *k > 0);
        }
        self
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_mean_the_same_are_the_same() {
        let open = GenerationSettings::default();
        let zero = GenerationSettings { temperature: Some(0.0), top_p: Some(0.5), ..open.clone() };
        let greedy = GenerationSettings { greedy: true, top_k: Some(5), ..open.clone() };
        assert_eq!(zero.settled(), greedy.settled());
        let spelled_out = GenerationSettings {
            temperature: Some(0.7),
            top_p: Some(0.9),
            top_k: Some(0),
            ..open.clone()
        };
        assert_eq!(open.clone().settled(), spelled_out.settled());
        // With the model's own settings, an open value stays open and 0 switches top-k off.
        let model = GenerationSettings { sampling: SamplingSource::Model, top_k: Some(0), ..open };
        assert_eq!(model.clone().settled(), model);
    }
}
