//! Sizing: which GPU holds which model, for how many users, how fast at best. Predicted from sizes
//! and bandwidths, never measured, and labelled so.

use bakeoff_model::{Dtype, GpuSpec, ModelShape};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Tokens of one sequence in the table: prompt and answer.
pub const SEQUENCE_TOKENS: u64 = 4096;

/// What the arithmetic needs to know of a model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModelSize {
    /// All weights on the device.
    pub weight_bytes: u64,
    /// Weights read for one token of one sequence; `None` when unknown (a mixture of experts).
    pub read_bytes_per_token: Option<u64>,
    /// Keys and values of one token.
    pub kv_bytes_per_token: u64,
}

impl ModelSize {
    /// From shape and number format.
    pub fn of_shape(shape: &ModelShape, dtype: Dtype) -> Self {
        Self {
            weight_bytes: shape.weight_bytes(dtype),
            read_bytes_per_token: Some(shape.weight_bytes_per_token(dtype)),
            kv_bytes_per_token: shape.kv_bytes_per_token(dtype),
        }
    }
}

/// A model on a GPU. Everything is predicted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Fit {
    /// The GPU's name.
    pub gpu: String,
    /// At least one sequence fits beside the weights.
    pub fits: bool,
    /// Sequences of 4,096 tokens whose keys and values fit beside the weights.
    pub sequences: u64,
    /// Ceiling of one sequence: bandwidth over the bytes read for a token.
    pub decode_tok_s: Option<f64>,
    /// Ceiling of all sequences together, each at full length; `None` for a mixture of experts,
    /// whose sequences choose different experts.
    pub total_tok_s: Option<f64>,
    /// Of one GPU.
    pub price_per_hour: f64,
    /// Of the price.
    pub currency: String,
    /// Where the price is from, and when; that it is assumed, if it is.
    pub price_source: String,
    /// Price of a million tokens at the ceiling with all sequences running.
    pub price_per_million: Option<f64>,
    /// `resources` and `nodeSelector` of the pod.
    pub kubernetes: String,
}

/// One model on one GPU.
pub fn fit(model: &ModelSize, gpu: &GpuSpec) -> Fit {
    let left = gpu.memory().usable_bytes().saturating_sub(model.weight_bytes);
    let sequence = (model.kv_bytes_per_token * SEQUENCE_TOKENS).max(1);
    let sequences = left / sequence;
    let fits = sequences > 0;
    let bandwidth = gpu.bandwidth_gb_s * 1e9;
    let read = model.read_bytes_per_token.filter(|_| fits);
    let decode_tok_s = read.map(|bytes| bandwidth / bytes as f64);
    let dense = read.filter(|bytes| *bytes * 10 >= model.weight_bytes * 6);
    let total_tok_s = dense.map(|bytes| {
        let step = bytes as f64 + (sequences * sequence) as f64;
        sequences as f64 * bandwidth / step
    });
    let price_per_million = total_tok_s.map(|tok_s| gpu.price.per_hour / 3600.0 / tok_s * 1e6);
    Fit {
        gpu: gpu.title.clone(),
        fits,
        sequences,
        decode_tok_s,
        total_tok_s,
        price_per_hour: gpu.price.per_hour,
        currency: gpu.price.currency.clone(),
        price_source: gpu.price.provenance(),
        price_per_million,
        kubernetes: kubernetes(model, gpu),
    }
}

fn kubernetes(model: &ModelSize, gpu: &GpuSpec) -> String {
    // The checkpoint on disk beside logs and results; the page cache is the kernel's own business.
    let disk_gi = (model.weight_bytes as f64 * 1.15 / f64::from(1 << 30)).ceil() as u64 + 4;
    format!(
        "nodeSelector:\n  nvidia.com/gpu.product: {}\nresources:\n  requests:\n    cpu: \"2\"\n    \
         memory: 4Gi\n    ephemeral-storage: {disk_gi}Gi\n  limits:\n    nvidia.com/gpu: \"1\"\n    \
         memory: 8Gi\n",
        gpu.node_label()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use bakeoff_model::{GpuTable, known};

    fn size(id: &str) -> ModelSize {
        ModelSize::of_shape(&known::find(id).expect("it ships").shape(), Dtype::Bf16)
    }

    fn on(id: &str, gpu: &str) -> Fit {
        fit(&size(id), GpuTable::shipped().find(gpu).expect("in the table"))
    }

    #[test]
    fn the_7b_fits_an_l4_at_21_tokens_a_second_for_several_users() {
        let fit = on("Qwen/Qwen2.5-Coder-7B-Instruct", "l4");
        assert!(fit.fits);
        assert_eq!(fit.decode_tok_s.map(f64::round), Some(21.0));
        // 24.15 − 4.6 − 15.23 GB leaves 4.32 GB; a sequence takes 4096 × 57,344 bytes.
        assert_eq!(fit.sequences, 18);
        assert!(fit.kubernetes.contains("NVIDIA-L4") && fit.kubernetes.contains("nvidia.com/gpu"));
        assert!(fit.total_tok_s.is_some_and(|t| t > 250.0 && t < 18.0 * 21.3));
    }

    #[test]
    fn a_32b_fits_neither_24_nor_48_gb() {
        for gpu in ["l4", "a10g", "a100-40gb", "l40s"] {
            let fit = on("Qwen/Qwen3-32B", gpu);
            assert!(!fit.fits && fit.decode_tok_s.is_none(), "{gpu}");
        }
        assert!(on("Qwen/Qwen3-32B", "h100").fits);
    }

    #[test]
    fn a_mixture_of_experts_has_a_ceiling_for_one_sequence_only() {
        let fit = on("Qwen/Qwen3-30B-A3B", "h100");
        assert!(fit.decode_tok_s.is_some_and(|t| t > 500.0) && fit.total_tok_s.is_none());
    }
}
