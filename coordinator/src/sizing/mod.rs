//! Sizing: which GPU holds which model, for how many users, how fast at best. Predicted from sizes
//! and bandwidths, never measured, and labelled so.

use bakeoff_model::ledger::GPU_RESERVE_BYTES;
use bakeoff_model::{Dtype, ModelShape};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The data file that ships.
pub const GPUS: &str = include_str!("../../../deploy/gpus.toml");
/// What the CUDA context and the kernels take, beside the reserve of the memory plan.
const CONTEXT_BYTES: u64 = 500_000_000;
/// Tokens of one sequence in the table: prompt and answer.
pub const SEQUENCE_TOKENS: u64 = 4096;

/// One GPU of the data file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Gpu {
    pub name: String,
    /// GB of 10^9 bytes.
    pub memory_gb: f64,
    pub bandwidth_gb_s: f64,
    pub price_per_hour: f64,
    pub currency: String,
    /// Nobody found a source of the price.
    pub price_assumed: bool,
    pub price_source: String,
    pub price_date: String,
    /// Value of the node label `nvidia.com/gpu.product`.
    pub product: String,
    /// The maker's page for memory and bandwidth.
    pub source: String,
    /// A page that was read and states the same.
    pub seen: String,
}

/// What the arithmetic needs to know of a model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModelSize {
    /// All weights on the device.
    pub weight_bytes: u64,
    /// Weights read for one token of one sequence; `None` when unknown (a mixture of experts).
    pub read_bytes_per_token: Option<u64>,
    pub kv_bytes_per_token: u64,
}

impl ModelSize {
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
    pub gpu: String,
    pub fits: bool,
    /// Sequences of 4,096 tokens whose keys and values fit beside the weights.
    pub sequences: u64,
    /// Ceiling of one sequence: bandwidth over the bytes read for a token.
    pub decode_tok_s: Option<f64>,
    /// Ceiling of all sequences together, each at full length; `None` for a mixture of experts, whose
    /// sequences choose different experts.
    pub total_tok_s: Option<f64>,
    pub price_per_hour: f64,
    pub currency: String,
    /// Where the price is from, and when; that it is assumed, if it is.
    pub price_source: String,
    /// Price of a million tokens at the ceiling with all sequences running.
    pub price_per_million: Option<f64>,
    /// `resources` and `nodeSelector` of the pod.
    pub kubernetes: String,
}

/// The GPUs of a data file.
pub fn gpus(text: &str) -> Result<Vec<Gpu>, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        gpus: Vec<Gpu>,
    }
    let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
    for gpu in &file.gpus {
        for (key, value) in [
            ("memory_gb", gpu.memory_gb),
            ("bandwidth_gb_s", gpu.bandwidth_gb_s),
            ("price_per_hour", gpu.price_per_hour),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return Err(format!("`{key}` of {} must be above 0, found {value}", gpu.name));
            }
        }
    }
    Ok(file.gpus)
}

/// The GPUs that ship.
pub fn shipped_gpus() -> Vec<Gpu> {
    gpus(GPUS).expect("a test reads the data file that ships")
}

/// One model on one GPU.
pub fn fit(model: &ModelSize, gpu: &Gpu) -> Fit {
    let memory = (gpu.memory_gb * 1e9) as u64;
    let usable = memory.saturating_sub(GPU_RESERVE_BYTES + CONTEXT_BYTES);
    let left = usable.saturating_sub(model.weight_bytes);
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
    let price_per_million = total_tok_s.map(|tok_s| gpu.price_per_hour / 3600.0 / tok_s * 1e6);
    Fit {
        gpu: gpu.name.clone(),
        fits,
        sequences,
        decode_tok_s,
        total_tok_s,
        price_per_hour: gpu.price_per_hour,
        currency: gpu.currency.clone(),
        price_source: match gpu.price_assumed {
            true => format!("assumption, edit: {} ({})", gpu.price_source, gpu.price_date),
            false => format!("{} ({})", gpu.price_source, gpu.price_date),
        },
        price_per_million,
        kubernetes: kubernetes(model, gpu),
    }
}

fn kubernetes(model: &ModelSize, gpu: &Gpu) -> String {
    // The checkpoint on disk beside logs and results; the page cache is the kernel's own business.
    let disk_gi = (model.weight_bytes as f64 * 1.15 / f64::from(1 << 30)).ceil() as u64 + 4;
    format!(
        "nodeSelector:\n  nvidia.com/gpu.product: {}\nresources:\n  requests:\n    cpu: \"2\"\n    memory: 4Gi\n    ephemeral-storage: {disk_gi}Gi\n  limits:\n    nvidia.com/gpu: \"1\"\n    memory: 8Gi\n",
        gpu.product
    )
}

/// The configurations of the models of the default sweep, for when no record tells their sizes.
pub fn known_shape(model_id: &str) -> Option<ModelShape> {
    let json = match model_id {
        "Qwen/Qwen2.5-Coder-7B-Instruct" => {
            include_str!("../../../deploy/models/Qwen2.5-Coder-7B-Instruct.json")
        }
        "Qwen/Qwen2.5-Coder-32B-Instruct" => {
            include_str!("../../../deploy/models/Qwen2.5-Coder-32B-Instruct.json")
        }
        "Qwen/Qwen3-32B" => include_str!("../../../deploy/models/Qwen3-32B.json"),
        "Qwen/Qwen3-30B-A3B" => include_str!("../../../deploy/models/Qwen3-30B-A3B.json"),
        "Qwen/Qwen3-Coder-30B-A3B-Instruct" => {
            include_str!("../../../deploy/models/Qwen3-Coder-30B-A3B-Instruct.json")
        }
        _ => return None,
    };
    Some(ModelShape::from_config_json(json.as_bytes()).expect("a test parses every one of them"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(id: &str) -> ModelSize {
        ModelSize::of_shape(&known_shape(id).expect("it ships"), Dtype::Bf16)
    }

    fn on(id: &str, gpu: &str) -> Fit {
        let gpus = shipped_gpus();
        fit(&size(id), gpus.iter().find(|g| g.name == gpu).expect("in the data file"))
    }

    #[test]
    fn the_7b_fits_an_l4_at_21_tokens_a_second_for_several_users() {
        let fit = on("Qwen/Qwen2.5-Coder-7B-Instruct", "L4");
        assert!(fit.fits);
        assert_eq!(fit.decode_tok_s.map(f64::round), Some(21.0));
        // 24 − 4.5 − 15.23 GB leaves 4.27 GB; a sequence takes 4096 × 57,344 bytes.
        assert_eq!(fit.sequences, 18);
        assert!(fit.kubernetes.contains("NVIDIA-L4") && fit.kubernetes.contains("nvidia.com/gpu"));
        assert!(fit.total_tok_s.is_some_and(|t| t > 250.0 && t < 18.0 * 21.3));
    }

    #[test]
    fn a_32b_fits_neither_24_nor_48_gb() {
        for gpu in ["L4", "A10G", "L40S"] {
            let fit = on("Qwen/Qwen3-32B", gpu);
            assert!(!fit.fits && fit.decode_tok_s.is_none(), "{gpu}");
        }
        assert!(on("Qwen/Qwen3-32B", "H100 80GB").fits);
    }

    #[test]
    fn a_mixture_of_experts_has_a_ceiling_for_one_sequence_only() {
        let fit = on("Qwen/Qwen3-30B-A3B", "H100 80GB");
        assert!(fit.decode_tok_s.is_some_and(|t| t > 500.0) && fit.total_tok_s.is_none());
    }

    #[test]
    fn every_known_model_parses_and_bad_data_is_refused() {
        for id in [
            "Qwen/Qwen2.5-Coder-7B-Instruct",
            "Qwen/Qwen2.5-Coder-32B-Instruct",
            "Qwen/Qwen3-32B",
            "Qwen/Qwen3-30B-A3B",
            "Qwen/Qwen3-Coder-30B-A3B-Instruct",
        ] {
            assert!(size(id).weight_bytes > 1_000_000_000);
        }
        assert!(known_shape("x/y").is_none());
        for gpu in shipped_gpus() {
            assert!(gpu.source.starts_with("https://") && gpu.seen.starts_with("https://"));
            assert!(gpu.price_assumed != gpu.price_source.contains("https://"), "{}", gpu.name);
        }
        let bad = GPUS.replacen("memory_gb = 24.0", "memory_gb = 0.0", 1);
        assert!(gpus(&bad).expect_err("zero").contains("memory_gb"));
    }
}
