//! The stock engine: candle-transformers' own models and sampler, used as their examples use them.
//! What a user would write without Bakeoff: the peer in every table, and a second opinion in tests.
//!
//! It keeps the ways of those models: concatenated caches, a synchronisation a token, and BF16
//! rotary tables in Qwen2. What they would silently compute wrong is refused.

mod models;

use std::ops::ControlFlow;

use bakeoff_model::Dtype;
use candle_core::{DType, Device, Tensor};
use candle_transformers::{
    generation::{LogitsProcessor, Sampling as Draw},
    utils::apply_repeat_penalty,
};

use crate::{
    Engine, EngineError, Footprint, Generation, Request, Sampling, TokenEvent,
    config::ModelConfig,
    load::OnLoad,
    request::Limits,
    sampling::non_finite,
    sequence::{self, Stepper, Usage},
    weights::Weights,
};
use models::Model;

/// A loaded candle-transformers model.
pub struct Stock {
    model: Model,
    config: ModelConfig,
    dtype: Dtype,
    device: Device,
    limits: Limits,
    sequence: Option<Sequence>,
}

struct Sequence {
    processor: LogitsProcessor,
    sampling: Sampling,
    /// Prompt and output so far.
    ids: Vec<u32>,
    chosen: u32,
}

impl Stock {
    /// # Errors
    /// The model needs what candle-transformers does not compute; the device refuses; `on_progress`
    /// breaks.
    pub fn load(
        config: &ModelConfig,
        weights: &Weights,
        dtype: Dtype,
        device: &Device,
        context: usize,
        on_progress: OnLoad<'_>,
    ) -> Result<Self, EngineError> {
        let model = Model::load(config, weights, dtype, device, on_progress)?;
        let shape = &config.shape;
        Ok(Self {
            model,
            dtype,
            device: device.clone(),
            limits: Limits { context, model_context: shape.max_context, vocab: shape.vocab_size },
            config: config.clone(),
            sequence: None,
        })
    }

    /// Logits `[vocab]` after the last of `ids`, whose first is at `position`.
    fn forward(&mut self, ids: &[u32], position: usize) -> candle_core::Result<Tensor> {
        let input = Tensor::new(ids, &self.device)?.unsqueeze(0)?;
        self.model.forward(&input, position)?.flatten_all()?.to_dtype(DType::F32)
    }

    fn choose(&mut self, logits: Tensor) -> Result<u32, EngineError> {
        let sequence = self.sequence.as_mut().expect("a sequence was started");
        let sum = logits.sum_all()?.to_scalar::<f32>()?;
        if !sum.is_finite() {
            return Err(non_finite(format!("the logits sum to {sum}"), sequence.chosen));
        }
        let sampling = &sequence.sampling;
        let penalty = sampling.repetition_penalty as f32;
        let logits = match penalty == 1.0 {
            true => logits,
            false => apply_repeat_penalty(&logits, penalty, &sequence.ids)?,
        };
        let min_p = sampling.min_p.unwrap_or(0.0) as f32;
        let id = sequence.processor.sample_f(&logits, |probabilities| {
            let largest = probabilities.iter().copied().fold(0.0, f32::max);
            for probability in probabilities.iter_mut().filter(|p| **p < min_p * largest) {
                *probability = 0.0;
            }
        })?;
        sequence.ids.push(id);
        sequence.chosen += 1;
        Ok(id)
    }
}

fn draw(sampling: &Sampling) -> Draw {
    let (temperature, p) = (sampling.temperature, sampling.top_p);
    match (sampling.greedy, sampling.top_k.map(|k| k as usize)) {
        (true, _) => Draw::ArgMax,
        (false, None) if p >= 1.0 => Draw::All { temperature },
        (false, None) => Draw::TopP { p, temperature },
        (false, Some(k)) if p >= 1.0 => Draw::TopK { k, temperature },
        (false, Some(k)) => Draw::TopKThenTopP { k, p, temperature },
    }
}

impl Stepper for Stock {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn start(&mut self, request: &Request) -> Result<(), EngineError> {
        self.model.clear();
        self.sequence = Some(Sequence {
            processor: LogitsProcessor::from_sampling(
                request.sampling.seed,
                draw(&request.sampling),
            ),
            sampling: request.sampling.clone(),
            ids: Vec::new(),
            chosen: 0,
        });
        Ok(())
    }

    fn prefill(
        &mut self,
        ids: &[u32],
        on_chunk: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Option<u32>, EngineError> {
        let logits = self.forward(ids, 0)?;
        if let Some(sequence) = &mut self.sequence {
            sequence.ids.extend_from_slice(ids);
        }
        if on_chunk(ids.len()).is_break() {
            return Ok(None);
        }
        self.choose(logits).map(Some)
    }

    fn step(&mut self, token: u32) -> Result<u32, EngineError> {
        let ids = self.sequence.as_ref().map_or(0, |sequence| sequence.ids.len());
        // The token itself is in the list already.
        let logits = self.forward(&[token], ids - 1)?;
        self.choose(logits)
    }

    fn usage(&self) -> Usage {
        let shape = &self.config.shape;
        let tokens = self.sequence.as_ref().map_or(0, |sequence| sequence.ids.len());
        Usage {
            // Caches grow with the sequence.
            kv_bytes: shape.kv_bytes_per_token(self.dtype) * tokens as u64,
            // A single token's experts are always distinct, so no count is needed.
            weight_bytes_per_token: shape.weight_bytes_per_token(self.dtype) as f64,
            flash_attn: false,
        }
    }
}

impl Engine for Stock {
    fn name(&self) -> &'static str {
        "stock"
    }

    fn footprint(&self) -> Footprint {
        let shape = &self.config.shape;
        Footprint {
            weight_bytes: shape.weight_bytes(self.dtype),
            workspace_bytes: 0,
            kv_bytes_per_token: shape.kv_bytes_per_token(self.dtype),
        }
    }

    fn max_context(&self) -> usize {
        self.limits.context
    }

    fn generate(
        &mut self,
        requests: &[Request],
        on_event: &mut dyn FnMut(TokenEvent) -> ControlFlow<()>,
    ) -> Result<Vec<Generation>, EngineError> {
        sequence::generate(self, requests, on_event)
    }

    /// These models give the logits of the last position only, so the ids pass one by one.
    fn score(&mut self, ids: &[u32]) -> Result<Vec<Vec<f32>>, EngineError> {
        self.limits.check_score(ids)?;
        self.model.clear();
        let each = ids.iter().enumerate();
        each.map(|(position, id)| {
            let row = self.forward(&[*id], position)?.to_vec1()?;
            crate::sampling::check_finite(&row, position as u32)?;
            Ok(row)
        })
        .collect()
    }
}
