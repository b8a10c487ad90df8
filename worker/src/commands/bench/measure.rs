//! One engine on one model: loaded once, then each shape several times.

use std::ops::ControlFlow;

use bakeoff_engine::config::ModelConfig;
use bakeoff_engine::load::{Effective, LoadOptions, load};
use bakeoff_engine::{Engine, EngineError, Generation, Request, Sampling, SamplingParams};
use bakeoff_model::percentile::median;
use bakeoff_model::{EngineKind, LoadFormat, ModelShape};
use bakeoff_proto::{FailureKind, Metrics};
use serde::Serialize;

use super::args::{BenchPlan, Shape};
use super::machine::Machine;
use super::subject::Subject;
use crate::metrics::{LoadFacts, measure, roofline_pct};

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

/// What is the same for all rows of a load.
struct LoadedSubject<'a> {
    plan: &'a BenchPlan,
    machine: &'a Machine,
    subject: &'a Subject,
    shape: ModelShape,
    effective: Effective,
    facts: LoadFacts,
}

/// # Errors
/// The model cannot be loaded, or a generation fails.
pub fn engine(
    plan: &BenchPlan,
    machine: &Machine,
    subject: &Subject,
    engine: EngineKind,
) -> Result<Vec<Row>, EngineError> {
    let shape = ModelConfig::parse(&subject.files.config)?.shape;
    let options = LoadOptions {
        settings: plan.settings(engine, subject.load_format),
        device: plan.device,
        context: plan.context(),
    };
    let loaded = load(&subject.files, &options, &mut |_| ControlFlow::Continue(()))?;
    let mut engine = loaded.engine;
    let facts = LoadFacts {
        footprint: engine.footprint(),
        stored_bytes: loaded.stored_bytes,
        load_s: loaded.load_s,
        download_s: None,
        read_bandwidth_gb_s: Some(machine.read_bandwidth_gb_s),
    };
    let effective = loaded.effective;
    let loaded = LoadedSubject { plan, machine, subject, shape, effective, facts };
    plan.shapes.iter().map(|shape| loaded.row(engine.as_mut(), *shape)).collect()
}

impl LoadedSubject<'_> {
    fn row(&self, engine: &mut dyn Engine, shape: Shape) -> Result<Row, EngineError> {
        let gen_tokens = self.plan.gen_tokens;
        self.generate(engine, shape, gen_tokens.min(16))?;
        let runs = (0..self.plan.repeats)
            .map(|_| self.measure(engine, shape))
            .collect::<Result<Vec<_>, _>>()?;
        let of = |figure: fn(&Metrics) -> f64| runs.iter().map(figure).collect::<Vec<f64>>();
        let samples = of(|run| run.decode_tok_s.unwrap_or(f64::NAN));
        let ttft_ms_samples = of(|run| run.ttft_ms);
        let median = |samples: &[f64]| median(samples).unwrap_or(f64::NAN);
        let (decode_tok_s, ttft_ms) = (median(&samples), median(&ttft_ms_samples));
        let bytes_per_token = mean(&of(|run| run.bytes_per_token.unwrap_or(f64::NAN)));
        let prompt = shape.tokens();
        let bandwidth = self.machine.read_bandwidth_gb_s;
        let prefill_tflop_s = self.shape.prefill_flops(prompt) as f64 / (ttft_ms / 1e3) / 1e12;
        let gemm_tflop_s = self.machine.gemm_tflop_s.get(&prompt).copied();
        let (effective, first) = (&self.effective, &runs[0]);
        Ok(Row {
            model: self.subject.id.clone(),
            engine: effective.engine.to_owned(),
            load_format: self.subject.load_format,
            batch: 1,
            prompt_tokens: shape.prompt_tokens,
            gen_tokens,
            depth: shape.depth,
            sampling: if self.plan.sample { "sample" } else { "greedy" },
            decode_tok_s,
            decode_tok_s_sd: deviation(&samples),
            tpot_ms: 1e3 / decode_tok_s,
            ttft_ms,
            prefill_tok_s: prompt as f64 / (ttft_ms / 1e3),
            load_s: first.load_s,
            load_gb_s: first.load_gb_s,
            read_bandwidth_gb_s: bandwidth,
            bytes_per_token,
            roofline_pct: roofline_pct(decode_tok_s, bytes_per_token, bandwidth),
            prefill_tflop_s,
            gemm_tflop_s,
            prefill_gemm_pct: gemm_tflop_s.map(|rate| 100.0 * prefill_tflop_s / rate),
            host_to_device_gb_s: self.machine.host_to_device_gb_s,
            model_memory_gb: first.model_memory_gb,
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

    fn measure(&self, engine: &mut dyn Engine, shape: Shape) -> Result<Metrics, EngineError> {
        let generation = self.generate(engine, shape, self.plan.gen_tokens)?;
        let measured = measure(&generation, shape.tokens(), &self.facts);
        measured.map(|measured| measured.metrics).ok_or_else(no_generation)
    }

    fn generate(
        &self,
        engine: &mut dyn Engine,
        shape: Shape,
        max_new_tokens: usize,
    ) -> Result<Generation, EngineError> {
        let vocab = self.shape.vocab_size.min(100_000);
        // Any ids do, as long as they are many different ones.
        let prompt_ids =
            (0..shape.tokens()).map(|at| (at.wrapping_mul(2_654_435_761) % vocab) as u32).collect();
        let request = Request {
            prompt_ids,
            max_new_tokens,
            sampling: Sampling::new(SamplingParams {
                greedy: !self.plan.sample,
                seed: 1,
                ..SamplingParams::default()
            })?,
            stop_ids: Vec::new(),
        };
        let mut generations = engine.generate(&[request], &mut |_| ControlFlow::Continue(()))?;
        generations.pop().ok_or_else(no_generation)
    }
}

fn no_generation() -> EngineError {
    EngineError::new(FailureKind::Device, "the engine returned no generation for one request")
}

fn mean(samples: &[f64]) -> f64 {
    samples.iter().sum::<f64>() / samples.len() as f64
}

/// Of the sample; 0 for a single one.
fn deviation(samples: &[f64]) -> f64 {
    let (count, mean) = (samples.len() as f64, mean(samples));
    let squares = samples.iter().map(|sample| (sample - mean).powi(2)).sum::<f64>();
    if samples.len() < 2 { 0.0 } else { (squares / (count - 1.0)).sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deviation_is_the_samples() {
        assert_eq!(deviation(&[5.0]), 0.0);
        assert!((deviation(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]) - 2.138_089_9).abs() < 1e-6);
    }
}
