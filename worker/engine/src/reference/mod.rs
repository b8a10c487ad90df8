//! The reference engine: one decoder in plain candle operations for every architecture, on any
//! device. What a CPU runs, and the oracle for the others.
//!
//! Weights and cache have the dtype asked for; between the products everything is FP32, norms and
//! softmax included.
//!
//! - [`decoder`]: embedding, layers, output
//! - [`attention`], [`feed_forward`]: the two halves of a layer
//! - [`layers`]: linear maps and norms

mod attention;
mod decoder;
mod feed_forward;
mod layers;

use std::ops::ControlFlow;

use bakeoff_model::Dtype;
use candle_core::Device;

use crate::{
    Engine, EngineError, Footprint, Generation, Request, TokenEvent,
    config::ModelConfig,
    load::OnLoad,
    request::Limits,
    sampling::{Sampler, check_finite},
    sequence::{self, Stepper, Usage},
    weights::Weights,
};
use decoder::Decoder;

/// Prompt tokens that pass at once: enough to keep the matrix products busy, few enough that
/// progress is told and a stop is heard in the middle of a long prompt.
const CHUNK_TOKENS_CPU: usize = 256;
const CHUNK_TOKENS_GPU: usize = bakeoff_model::ledger::PREFILL_CHUNK_TOKENS;

/// A loaded reference model with its cache.
pub struct Reference {
    decoder: Decoder,
    config: ModelConfig,
    dtype: Dtype,
    limits: Limits,
    footprint: Footprint,
    chunk_tokens: usize,
    sequence: Option<Sequence>,
}

/// The sequence being generated.
struct Sequence {
    sampler: Sampler,
    /// Tokens in the cache.
    length: usize,
    /// Tokens chosen so far.
    chosen: u32,
    /// Decode steps, and the experts they used, summed over layers.
    steps: u64,
    expert_uses: u64,
}

impl Reference {
    /// Reads the weights and allocates the cache for `context` tokens.
    ///
    /// # Errors
    /// The device refuses, or `on_progress` breaks.
    pub fn load(
        config: &ModelConfig,
        weights: &Weights,
        dtype: Dtype,
        device: &Device,
        context: usize,
        on_progress: OnLoad<'_>,
    ) -> Result<Self, EngineError> {
        let buffers = weights.load(dtype, device, on_progress)?;
        let decoder = Decoder::new(config, buffers, dtype, device, context)?;
        let shape = &config.shape;
        Ok(Self {
            decoder,
            dtype,
            limits: Limits { context, model_context: shape.max_context, vocab: shape.vocab_size },
            footprint: Footprint {
                weight_bytes: shape.weight_bytes(dtype),
                workspace_bytes: 0,
                kv_bytes_per_token: shape.kv_bytes_per_token(dtype),
            },
            chunk_tokens: if device.is_cpu() { CHUNK_TOKENS_CPU } else { CHUNK_TOKENS_GPU },
            config: config.clone(),
            sequence: None,
        })
    }

    fn choose(&mut self, mut logits: Vec<f32>) -> Result<u32, EngineError> {
        let sequence = self.sequence.as_mut().expect("a sequence was started");
        let id = sequence.sampler.choose(&mut logits, sequence.chosen)?;
        sequence.chosen += 1;
        Ok(id)
    }
}

impl Stepper for Reference {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn start(&mut self, request: &Request) -> Result<(), EngineError> {
        self.sequence = Some(Sequence {
            sampler: Sampler::new(&request.sampling, self.limits.vocab, &request.prompt_ids),
            length: 0,
            chosen: 0,
            steps: 0,
            expert_uses: 0,
        });
        Ok(())
    }

    fn prefill(
        &mut self,
        ids: &[u32],
        on_chunk: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Option<u32>, EngineError> {
        let mut length = 0;
        let mut logits = Vec::new();
        for chunk in ids.chunks(self.chunk_tokens) {
            let hidden = self.decoder.forward(chunk, length)?;
            length += chunk.len();
            if length == ids.len() {
                logits = self.decoder.last_logits(&hidden)?;
            }
            if on_chunk(length).is_break() {
                return Ok(None);
            }
        }
        if let Some(sequence) = &mut self.sequence {
            sequence.length = length;
        }
        self.choose(logits).map(Some)
    }

    fn step(&mut self, token: u32) -> Result<u32, EngineError> {
        let sequence = self.sequence.as_mut().expect("a sequence was started");
        let position = sequence.length;
        sequence.length += 1;
        sequence.steps += 1;
        let decoder = &mut self.decoder;
        decoder.expert_uses = 0;
        let logits = decoder.step(token, position)?;
        sequence.expert_uses += decoder.expert_uses;
        self.choose(logits)
    }

    fn usage(&self) -> Usage {
        let shape = &self.config.shape;
        let weight_bytes_per_token = match &self.sequence {
            Some(Sequence { steps, expert_uses, .. }) if *steps > 0 => {
                let experts = *expert_uses as f64 / *steps as f64;
                let common = shape.common_weight_bytes_per_token(self.dtype) as f64;
                common + experts * shape.expert_bytes(self.dtype) as f64
            }
            _ => shape.weight_bytes_per_token(self.dtype) as f64,
        };
        Usage {
            kv_bytes: shape.kv_bytes_per_token(self.dtype) * self.limits.context as u64,
            weight_bytes_per_token,
            flash_attn: false,
        }
    }
}

impl Engine for Reference {
    fn name(&self) -> &'static str {
        "reference"
    }

    fn footprint(&self) -> Footprint {
        self.footprint
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

    fn score(&mut self, ids: &[u32]) -> Result<Vec<Vec<f32>>, EngineError> {
        self.limits.check_score(ids)?;
        let mut rows = Vec::with_capacity(ids.len());
        for chunk in ids.chunks(self.chunk_tokens) {
            let hidden = self.decoder.forward(chunk, rows.len())?;
            rows.extend(self.decoder.all_logits(&hidden)?);
        }
        for (step, row) in rows.iter().enumerate() {
            check_finite(row, step as u32)?;
        }
        Ok(rows)
    }
}
