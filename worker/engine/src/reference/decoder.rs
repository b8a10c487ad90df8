//! The decoder: embedding, layers, final norm, output.

use std::collections::HashMap;

use bakeoff_model::{Dtype, shape::ModelShape};
use candle_core::{DType, Device, Result, Tensor};

use super::{
    attention::{Attention, Cache, Rotary},
    feed_forward::{Experts, FeedForward},
    layers::{Linear, RmsNorm, product},
};
use crate::{config::ModelConfig, weights::Buffer};

/// A model with the cache of one sequence.
pub struct Decoder {
    shape: ModelShape,
    embedding: Tensor,
    layers: Vec<Layer>,
    norm: RmsNorm,
    /// The output matrix; the embedding itself when tied.
    head: Tensor,
    rotary: Rotary,
    device: Device,
    /// Distinct experts read since it was last set to 0, summed over layers.
    pub expert_uses: u64,
}

struct Layer {
    input_norm: RmsNorm,
    attention: Attention,
    post_norm: RmsNorm,
    feed_forward: FeedForward,
}

/// The loaded buffers, taken out one by one.
struct Buffers(HashMap<Buffer, Tensor>);

impl Buffers {
    fn take(&mut self, buffer: Buffer) -> Tensor {
        self.0.remove(&buffer).unwrap_or_else(|| panic!("the plan holds {buffer:?}"))
    }

    fn linear(&mut self, weight: Buffer, bias: Buffer) -> Result<Linear> {
        let bias = self.0.remove(&bias);
        Linear::new(self.take(weight), bias)
    }

    fn norm(&mut self, buffer: Buffer, eps: f64) -> Result<RmsNorm> {
        RmsNorm::new(&self.take(buffer), eps)
    }

    fn optional_norm(&mut self, buffer: Buffer, eps: f64) -> Result<Option<RmsNorm>> {
        self.0.remove(&buffer).map(|weight| RmsNorm::new(&weight, eps)).transpose()
    }
}

impl Decoder {
    /// Puts the buffers of a whole plan in their places and allocates the cache.
    pub fn new(
        config: &ModelConfig,
        buffers: HashMap<Buffer, Tensor>,
        dtype: Dtype,
        device: &Device,
        context: usize,
    ) -> Result<Self> {
        let mut buffers = Buffers(buffers);
        let shape = &config.shape;
        let stored = match dtype {
            Dtype::F32 => DType::F32,
            Dtype::Bf16 => DType::BF16,
        };
        let layers: Result<Vec<Layer>> = (0..shape.layers)
            .map(|layer| {
                let cache = Cache::new(shape, context, stored, device)?;
                Layer::new(config, layer, &mut buffers, cache)
            })
            .collect();
        let embedding = buffers.take(Buffer::Embedding);
        let head = match shape.tie_word_embeddings {
            true => embedding.clone(),
            false => buffers.take(Buffer::LmHead),
        };
        let tables = config.rope.tables(shape.head_dim, context);
        let size = (context, shape.head_dim / 2);
        Ok(Self {
            layers: layers?,
            norm: buffers.norm(Buffer::FinalNorm, config.rms_norm_eps)?,
            rotary: Rotary {
                cos: Tensor::from_vec(tables.cos, size, device)?,
                sin: Tensor::from_vec(tables.sin, size, device)?,
            },
            embedding,
            head,
            shape: shape.clone(),
            device: device.clone(),
            expert_uses: 0,
        })
    }

    /// Passes tokens through the layers, the first at position `offset`. Gives `[n, hidden]`, before
    /// the final norm.
    pub fn forward(&mut self, ids: &[u32], offset: usize) -> Result<Tensor> {
        // On a CPU the pool's threads run it all: handing every product over to them from outside
        // would cost a wake-up each.
        if self.device.is_cpu() {
            rayon::scope(|_| self.layers(ids, offset))
        } else {
            self.layers(ids, offset)
        }
    }

    /// One token at position `position`, and the logits after it.
    pub fn step(&mut self, id: u32, position: usize) -> Result<Vec<f32>> {
        if self.device.is_cpu() {
            rayon::scope(|_| {
                let hidden = self.layers(&[id], position)?;
                self.last_logits(&hidden)
            })
        } else {
            let hidden = self.layers(&[id], position)?;
            self.last_logits(&hidden)
        }
    }

    fn layers(&mut self, ids: &[u32], offset: usize) -> Result<Tensor> {
        let rows = Tensor::new(ids, &self.device)?;
        let mut x = self.embedding.index_select(&rows, 0)?.to_dtype(DType::F32)?;
        for layer in &self.layers {
            let normed = layer.input_norm.forward(&x)?;
            x = (x + layer.attention.forward(&normed, offset, &self.shape, &self.rotary)?)?;
            let normed = layer.post_norm.forward(&x)?;
            x = (x + layer.feed_forward.forward(&normed, &mut self.expert_uses)?)?;
        }
        Ok(x)
    }

    /// Logits after the last row of what [`Decoder::forward`] gave.
    pub fn last_logits(&self, hidden: &Tensor) -> Result<Vec<f32>> {
        let last = hidden.narrow(0, hidden.dim(0)? - 1, 1)?;
        product(&self.head, &self.norm.forward(&last)?)?.flatten_all()?.to_vec1()
    }

    /// Logits after every row.
    pub fn all_logits(&self, hidden: &Tensor) -> Result<Vec<Vec<f32>>> {
        product(&self.head, &self.norm.forward(hidden)?)?.to_vec2()
    }
}

impl Layer {
    fn new(
        config: &ModelConfig,
        layer: usize,
        buffers: &mut Buffers,
        cache: Cache,
    ) -> Result<Self> {
        let eps = config.rms_norm_eps;
        let feed_forward = match &config.shape.experts {
            Some(experts) if config.shape.is_routed(layer) => FeedForward::Routed(Experts {
                router: buffers.take(Buffer::Router(layer)),
                gate_up: buffers.take(Buffer::ExpertGateUp(layer)),
                down: buffers.take(Buffer::ExpertDown(layer)),
                per_token: experts.experts_per_token,
                normalise: config.norm_topk_prob,
            }),
            _ => FeedForward::Dense {
                gate_up: buffers.linear(Buffer::GateUp(layer), Buffer::GateUpBias(layer))?,
                down: buffers.linear(Buffer::Down(layer), Buffer::DownBias(layer))?,
            },
        };
        Ok(Self {
            input_norm: buffers.norm(Buffer::InputNorm(layer), eps)?,
            attention: Attention {
                qkv: buffers.linear(Buffer::Qkv(layer), Buffer::QkvBias(layer))?,
                output: buffers.linear(Buffer::Output(layer), Buffer::OutputBias(layer))?,
                q_norm: buffers.optional_norm(Buffer::QNorm(layer), eps)?,
                k_norm: buffers.optional_norm(Buffer::KNorm(layer), eps)?,
                cache,
            },
            post_norm: buffers.norm(Buffer::PostNorm(layer), eps)?,
            feed_forward,
        })
    }
}
