//! Device memory by formula: what a model, its cache and its workspace need, against what the device allows.

use std::fmt;

use crate::{EngineSettings, shape::ModelShape};

/// Kept free on a GPU beside everything we plan: cuBLAS workspaces, fragmentation, the display.
pub const GPU_RESERVE_BYTES: u64 = 4_000_000_000;
/// Kept free on a machine that computes on its CPU.
pub const HOST_RESERVE_BYTES: u64 = 500_000_000;
/// A prefill passes at most so many tokens at a time through the layers, which bounds its scratch.
pub const PREFILL_CHUNK_TOKENS: usize = 2048;
/// Rows of scores that attention holds at a time, where it is not FlashAttention.
pub const ATTENTION_BLOCK_ROWS: usize = 128;
/// Instantiated CUDA graph with its kernel arguments, by measurement well below this.
const GRAPH_BYTES: u64 = 100_000_000;

/// The memory of the device that a model is planned for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceMemory {
    pub total_bytes: u64,
    /// What the CUDA context takes before anything of ours; 0 on CPU.
    pub context_bytes: u64,
    pub reserve_bytes: u64,
}

impl DeviceMemory {
    pub fn gpu(total_bytes: u64, context_bytes: u64) -> Self {
        Self { total_bytes, context_bytes, reserve_bytes: GPU_RESERVE_BYTES }
    }

    pub fn host(total_bytes: u64) -> Self {
        Self { total_bytes, context_bytes: 0, reserve_bytes: HOST_RESERVE_BYTES }
    }

    fn usable_bytes(self) -> u64 {
        self.total_bytes.saturating_sub(self.context_bytes).saturating_sub(self.reserve_bytes)
    }
}

/// What a forward pass needs beside weights and cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Workspace {
    /// FP32 logits of the last position of each sequence, and a copy for sampling.
    pub logits_bytes: u64,
    /// Activations of one chunk of the prefill.
    pub activation_bytes: u64,
    /// Attention scores of one block of rows; 0 with FlashAttention.
    pub score_bytes: u64,
    pub graph_bytes: u64,
}

impl Workspace {
    pub fn total_bytes(&self) -> u64 {
        self.logits_bytes + self.activation_bytes + self.score_bytes + self.graph_bytes
    }

    fn plan(shape: &ModelShape, settings: &EngineSettings, context: usize, batch: usize) -> Self {
        let chunk = context.min(PREFILL_CHUNK_TOKENS) as u64;
        let rows = context.min(ATTENTION_BLOCK_ROWS) as u64;
        let scores = shape.heads as u64 * rows * context as u64 * 4;
        Self {
            logits_bytes: 2 * (batch * shape.vocab_size) as u64 * 4,
            activation_bytes: chunk * activation_width(shape) * settings.dtype.bytes(),
            // Scores and their softmax.
            score_bytes: if settings.flash_attn { 0 } else { 2 * scores },
            graph_bytes: if settings.cuda_graph { GRAPH_BYTES } else { 0 },
        }
    }
}

/// Values alive at once for a token of the prefill: the residual and its norm with the wider of
/// attention (queries, keys, values, rotated copies, output) and MLP (gate, up, product, output).
fn activation_width(shape: &ModelShape) -> u64 {
    let attention = 3 * shape.q_size() + 4 * shape.kv_size() + shape.hidden_size;
    let dense = 3 * shape.intermediate_size + shape.hidden_size;
    let routed = shape.experts.as_ref().map_or(0, |experts| {
        experts.experts_per_token * (3 * experts.intermediate_size + 2 * shape.hidden_size)
    });
    (3 * shape.hidden_size + attention.max(dense).max(routed)) as u64
}

/// Planned bytes on the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    pub weight_bytes: u64,
    pub kv_bytes: u64,
    pub workspace: Workspace,
    /// The least of `max_memory_gb` and what the device, if one is known, leaves after its context
    /// and the reserve.
    pub cap_bytes: u64,
    pub max_memory_bytes: u64,
    pub device: Option<DeviceMemory>,
    /// Tokens of a sequence, prompt and output, that the cache is planned for.
    pub context_tokens: usize,
    pub batch: usize,
}

/// The model does not fit; printed with the ledger.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the model needs {:.1} GB and {:.1} GB are allowed: use a device with more memory, raise \
     max_memory_gb if that is the limit, or lower max_new_tokens\n{ledger}",
    gb(ledger.total_bytes()), gb(ledger.cap_bytes)
)]
pub struct DoesNotFit {
    pub ledger: Ledger,
}

impl Ledger {
    /// The ledger of a model on a device; without a device only `max_memory_gb` limits it.
    pub fn plan(
        shape: &ModelShape,
        settings: &EngineSettings,
        context_tokens: usize,
        batch: usize,
        device: Option<DeviceMemory>,
    ) -> Self {
        let max_memory_bytes = (settings.max_memory_gb.max(0.0) * 1e9) as u64;
        let usable = device.map_or(u64::MAX, DeviceMemory::usable_bytes);
        let tokens = (context_tokens * batch) as u64;
        Self {
            weight_bytes: shape.weight_bytes(settings.dtype),
            kv_bytes: shape.kv_bytes_per_token(settings.dtype).saturating_mul(tokens),
            workspace: Workspace::plan(shape, settings, context_tokens, batch),
            cap_bytes: max_memory_bytes.min(usable),
            max_memory_bytes,
            device,
            context_tokens,
            batch,
        }
    }

    pub fn total_bytes(&self) -> u64 {
        self.weight_bytes + self.workspace_bytes().saturating_add(self.kv_bytes)
    }

    pub fn workspace_bytes(&self) -> u64 {
        self.workspace.total_bytes()
    }

    /// # Errors
    /// The total exceeds the cap.
    pub fn fits(&self) -> Result<(), DoesNotFit> {
        if self.total_bytes() <= self.cap_bytes {
            Ok(())
        } else {
            Err(DoesNotFit { ledger: self.clone() })
        }
    }
}

/// A table of a line each, amounts aligned.
impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |f: &mut fmt::Formatter<'_>, name: &str, bytes: u64, note: &str| {
            let text = format!("{name:<12} {:>9.3} GB  {note}", gb(bytes));
            writeln!(f, "{}", text.trim_end())
        };
        let tokens = format!("{} tokens x {}", self.context_tokens, self.batch);
        line(f, "weights", self.weight_bytes, "")?;
        line(f, "KV cache", self.kv_bytes, &tokens)?;
        line(f, "logits", self.workspace.logits_bytes, "")?;
        line(f, "activations", self.workspace.activation_bytes, "one chunk of the prefill")?;
        line(f, "attention", self.workspace.score_bytes, "scores; none with FlashAttention")?;
        line(f, "CUDA graph", self.workspace.graph_bytes, "")?;
        line(f, "total", self.total_bytes(), "")?;
        let cap = match self.device {
            None => format!("max_memory_gb = {}", gb(self.max_memory_bytes)),
            Some(device) => format!(
                "least of max_memory_gb = {} and {:.1} of the device - {:.1} context - {:.1} reserve",
                gb(self.max_memory_bytes),
                gb(device.total_bytes),
                gb(device.context_bytes),
                gb(device.reserve_bytes),
            ),
        };
        line(f, "cap", self.cap_bytes, &cap)?;
        if self.total_bytes() <= self.cap_bytes {
            line(f, "headroom", self.cap_bytes - self.total_bytes(), "")
        } else {
            line(f, "over by", self.total_bytes() - self.cap_bytes, "does not fit")
        }
    }
}

fn gb(bytes: u64) -> f64 {
    bytes as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(name: &str) -> ModelShape {
        let path = format!("{}/../deploy/models/{name}.json", env!("CARGO_MANIFEST_DIR"));
        ModelShape::from_config_json(&std::fs::read(&path).expect(&path)).expect(name)
    }

    /// An H100 80GB HBM3 reports 81559 MiB.
    const H100: u64 = 81_559 << 20;

    #[test]
    fn the_cap_is_the_least_of_the_setting_and_what_the_device_leaves() {
        let shape = shape("Qwen2.5-Coder-7B-Instruct");
        let settings = EngineSettings::default();
        let plan =
            |settings: &EngineSettings, device| Ledger::plan(&shape, settings, 4196, 1, device);

        assert_eq!(plan(&settings, None).cap_bytes, 85_000_000_000);
        let h100 = Some(DeviceMemory::gpu(H100, 500_000_000));
        assert_eq!(plan(&settings, h100).cap_bytes, H100 - 4_500_000_000);
        let low = EngineSettings { max_memory_gb: 20.0, ..settings.clone() };
        assert_eq!(plan(&low, h100).cap_bytes, 20_000_000_000);
        let tiny = Some(DeviceMemory::gpu(2_000_000_000, 500_000_000));
        assert_eq!(plan(&settings, tiny).cap_bytes, 0);
    }

    #[test]
    fn the_five_models_fit_an_h100_and_the_large_ones_not_a_24_gb_card() {
        for name in [
            "Qwen2.5-Coder-7B-Instruct",
            "Qwen2.5-Coder-32B-Instruct",
            "Qwen3-32B",
            "Qwen3-30B-A3B",
            "Qwen3-Coder-30B-A3B-Instruct",
        ] {
            let plan = |total| {
                let device = Some(DeviceMemory::gpu(total, 500_000_000));
                Ledger::plan(&shape(name), &EngineSettings::default(), 32_768, 1, device)
            };
            assert_eq!(plan(H100).fits(), Ok(()), "{name}");
            assert_eq!(plan(24 << 30).fits().is_ok(), name.contains("7B"), "{name}");
        }
    }

    #[test]
    fn what_does_not_fit_is_printed_with_its_ledger() {
        let device = Some(DeviceMemory::gpu(24 << 30, 500_000_000));
        let settings = EngineSettings::default();
        let ledger = Ledger::plan(&shape("Qwen3-32B"), &settings, 4196, 1, device);
        let text = ledger.fits().expect_err("65.5 GB in 24").to_string();
        assert!(text.starts_with("the model needs 67.1 GB and 21.3 GB are allowed"), "{text}");
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.contains(&"weights         65.524 GB"), "{text}");
        assert!(lines.contains(&"KV cache         1.100 GB  4196 tokens x 1"), "{text}");
        assert!(lines.last().is_some_and(|l| l.starts_with("over by")), "{text}");
    }

    #[test]
    fn the_total_is_the_sum_of_the_lines_and_grows_with_context_and_batch() {
        let shape = shape("Qwen3-30B-A3B");
        let plain = EngineSettings { flash_attn: false, ..EngineSettings::default() };
        let one = Ledger::plan(&shape, &plain, 8192, 1, None);
        let two = Ledger::plan(&shape, &plain, 8192, 2, None);
        assert_eq!(two.kv_bytes, 2 * one.kv_bytes);
        assert_eq!(one.kv_bytes, 8192 * 2 * 48 * 4 * 128 * 2);
        assert!(one.workspace.score_bytes > 0);
        assert_eq!(one.total_bytes(), one.weight_bytes + one.kv_bytes + one.workspace_bytes());
    }
}
