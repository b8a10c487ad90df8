//! One engine on one model: loaded once, then each shape several times.

use std::ops::ControlFlow;

use anyhow::Context as _;
use bakeoff_engine::{
    Engine, Generation, Request, Sampling,
    load::{Effective, LoadOptions, load},
};
use bakeoff_model::{EngineKind, settings::LoadFormat, shape::ModelShape};
use serde::Serialize;

use super::{
    args::{BenchArgs, BenchModel},
    machine::Machine,
};

/// One line of the result. Medians over the repeats; GB is 10^9 bytes.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub model: String,
    pub engine: String,
    pub load_format: LoadFormat,
    pub batch: usize,
    pub prompt_tokens: usize,
    pub gen_tokens: usize,
    pub depth: usize,
    pub sampling: &'static str,
    pub decode_tok_s: f64,
    pub decode_tok_s_sd: f64,
    pub tpot_ms: f64,
    pub ttft_ms: f64,
    /// Depth and prompt over the time to the first token.
    pub prefill_tok_s: f64,
    pub load_s: f64,
    pub load_gb_s: f64,
    pub read_bandwidth_gb_s: f64,
    pub bytes_per_token: f64,
    pub roofline_pct: f64,
    /// Arithmetic of the prefill by formula, over the time to the first token.
    pub prefill_tflop_s: f64,
    /// cuBLAS in BF16 with as many rows, in the same run.
    pub gemm_tflop_s: Option<f64>,
    pub prefill_gemm_pct: Option<f64>,
    pub host_to_device_gb_s: Option<f64>,
    pub model_memory_gb: f64,
    pub device: String,
    pub driver: String,
    pub flash_attn: String,
    pub tf32: String,
    pub reduced_precision_reduction: String,
    pub cuda_graph: String,
    /// decode_tok_s of every repeat.
    pub samples: Vec<f64>,
    pub ttft_ms_samples: Vec<f64>,
}

/// A length of prompt behind a depth.
#[derive(Debug, Clone, Copy)]
struct Shape {
    prompt_tokens: usize,
    depth: usize,
}

/// What is the same for all rows of a load.
struct Subject<'a> {
    args: &'a BenchArgs,
    machine: &'a Machine,
    model: &'a BenchModel,
    shape: ModelShape,
    effective: Effective,
    load_s: f64,
    stored_bytes: u64,
}

/// # Errors
/// The model cannot be loaded, or a generation fails.
pub fn engine(
    args: &BenchArgs,
    machine: &Machine,
    model: &BenchModel,
    engine: EngineKind,
) -> anyhow::Result<Vec<Row>> {
    let shape = ModelShape::from_config_json(&model.files.config).context("config.json")?;
    let options = LoadOptions {
        settings: args.settings(engine, model.load_format),
        device: args.device,
        context: args.context(),
    };
    let loaded = load(&model.files, &options, &mut |_| ControlFlow::Continue(()))?;
    let mut engine = loaded.engine;
    let subject = Subject {
        args,
        machine,
        model,
        shape,
        effective: loaded.effective,
        load_s: loaded.load_s,
        stored_bytes: loaded.stored_bytes,
    };
    let mut rows = Vec::new();
    for &depth in &args.depth {
        for &prompt_tokens in &args.prompt_tokens {
            rows.push(subject.row(engine.as_mut(), Shape { prompt_tokens, depth })?);
        }
    }
    Ok(rows)
}

impl Subject<'_> {
    fn row(&self, engine: &mut dyn Engine, shape: Shape) -> anyhow::Result<Row> {
        let gen_tokens = self.args.gen_tokens;
        self.generate(engine, shape, gen_tokens.min(16))?;
        let runs = (0..self.args.repeats)
            .map(|_| self.generate(engine, shape, gen_tokens))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let samples: Vec<f64> = runs.iter().map(decode_tok_s).collect();
        let ttft_ms_samples: Vec<f64> = runs.iter().map(ttft_ms).collect();
        let (decode_tok_s, ttft_ms) = (median(&samples), median(&ttft_ms_samples));

        let prompt = shape.depth + shape.prompt_tokens;
        // The first decoded token attends to the prompt and itself, the last to all before it.
        let mean_length = prompt as f64 + gen_tokens as f64 / 2.0;
        let footprint = engine.footprint();
        let weights = runs.iter().map(|run| run.weight_bytes_per_token).sum::<f64>();
        let bytes_per_token =
            weights / runs.len() as f64 + mean_length * footprint.kv_bytes_per_token as f64;
        let bandwidth = self.machine.read_bandwidth_gb_s;
        let prefill_tflop_s = self.shape.prefill_flops(prompt) as f64 / (ttft_ms / 1e3) / 1e12;
        let gemm_tflop_s = self.machine.gemm_tflop_s.get(&prompt).copied();
        let effective = &self.effective;
        Ok(Row {
            model: self.model.id.clone(),
            engine: effective.engine.to_owned(),
            load_format: self.model.load_format,
            batch: 1,
            prompt_tokens: shape.prompt_tokens,
            gen_tokens,
            depth: shape.depth,
            sampling: if self.args.sample { "sample" } else { "greedy" },
            decode_tok_s,
            decode_tok_s_sd: deviation(&samples),
            tpot_ms: 1e3 / decode_tok_s,
            ttft_ms,
            prefill_tok_s: prompt as f64 / (ttft_ms / 1e3),
            load_s: self.load_s,
            load_gb_s: self.stored_bytes as f64 / self.load_s / 1e9,
            read_bandwidth_gb_s: bandwidth,
            bytes_per_token,
            roofline_pct: 100.0 * decode_tok_s * bytes_per_token / (bandwidth * 1e9),
            prefill_tflop_s,
            gemm_tflop_s,
            prefill_gemm_pct: gemm_tflop_s.map(|rate| 100.0 * prefill_tflop_s / rate),
            host_to_device_gb_s: self.machine.host_to_device_gb_s,
            model_memory_gb: footprint.weight_bytes as f64 / 1e9,
            device: effective.device.clone(),
            driver: effective.driver.clone(),
            flash_attn: effective.flash_attn.to_owned(),
            tf32: effective.tf32.to_owned(),
            reduced_precision_reduction: effective.reduced_precision_reduction.to_owned(),
            cuda_graph: effective.cuda_graph.to_owned(),
            samples,
            ttft_ms_samples,
        })
    }

    fn generate(
        &self,
        engine: &mut dyn Engine,
        shape: Shape,
        max_new_tokens: usize,
    ) -> anyhow::Result<Generation> {
        let tokens = shape.depth + shape.prompt_tokens;
        let vocab = self.shape.vocab_size.min(100_000);
        // Any ids do, as long as they are many different ones.
        let prompt_ids =
            (0..tokens).map(|at| (at.wrapping_mul(2_654_435_761) % vocab) as u32).collect();
        let request = Request {
            prompt_ids,
            max_new_tokens,
            sampling: Sampling {
                greedy: !self.args.sample,
                temperature: 0.7,
                top_p: 0.9,
                top_k: None,
                min_p: None,
                repetition_penalty: 1.0,
                seed: 1,
            },
            stop_ids: Vec::new(),
        };
        let mut generations = engine.generate(&[request], &mut |_| ControlFlow::Continue(()))?;
        generations.pop().context("the engine returned no generation")
    }
}

fn decode_tok_s(run: &Generation) -> f64 {
    match (run.token_times.first(), run.token_times.last()) {
        (Some(first), Some(last)) => {
            (run.token_times.len() - 1) as f64 / last.duration_since(*first).as_secs_f64()
        }
        _ => f64::NAN,
    }
}

fn ttft_ms(run: &Generation) -> f64 {
    let first = run.token_times.first();
    first.map_or(f64::NAN, |first| first.duration_since(run.started).as_secs_f64() * 1e3)
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

/// Of the sample; 0 for a single one.
fn deviation(samples: &[f64]) -> f64 {
    let count = samples.len() as f64;
    let mean = samples.iter().sum::<f64>() / count;
    let squares = samples.iter().map(|sample| (sample - mean).powi(2)).sum::<f64>();
    if samples.len() < 2 { 0.0 } else { (squares / (count - 1.0)).sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_between_the_middle_two() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
    }

    #[test]
    fn the_deviation_is_the_samples() {
        assert_eq!(deviation(&[5.0]), 0.0);
        assert!((deviation(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]) - 2.138_089_9).abs() < 1e-6);
    }
}
