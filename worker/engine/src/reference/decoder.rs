//! The decoder: embedding, layers, final norm, output.

use bakeoff_model::{
    Dtype,
    shape::ModelShape,
    tensors::{LayerWeights, MlpWeights, ModelWeights},
};
use candle_core::{DType, Device, Result, Tensor};

use super::{
    attention::{Attention, Cache, Rotary},
    feed_forward::{Experts, FeedForward},
    layers::{Linear, RmsNorm, product},
};
use crate::config::ModelConfig;

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

impl Decoder {
    /// Puts the weights in their places and allocates the cache for `context` tokens.
    ///
    /// # Errors
    /// The device refuses.
    pub fn new(
        config: &ModelConfig,
        weights: ModelWeights<Tensor>,
        dtype: Dtype,
        device: &Device,
        context: usize,
    ) -> Result<Self> {
        let shape = &config.shape;
        let stored = match dtype {
            Dtype::F32 => DType::F32,
            Dtype::Bf16 => DType::BF16,
        };
        let head = weights.output().clone();
        let layers = weights.layers.into_iter().map(|layer| {
            let cache = Cache::new(shape, context, stored, device)?;
            Layer::new(config, layer, cache)
        });
        let tables = config.rope.tables(shape.head_dim, context);
        let size = (context, shape.head_dim / 2);
        Ok(Self {
            layers: layers.collect::<Result<_>>()?,
            norm: RmsNorm::new(&weights.norm, config.rms_norm_eps)?,
            rotary: Rotary {
                cos: Tensor::from_vec(tables.cos, size, device)?,
                sin: Tensor::from_vec(tables.sin, size, device)?,
            },
            embedding: weights.embedding,
            head,
            shape: shape.clone(),
            device: device.clone(),
            expert_uses: 0,
        })
    }

    /// Passes tokens through the layers, the first at position `offset`. Gives `[n, hidden]`,
    /// before the final norm.
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
    fn new(config: &ModelConfig, weights: LayerWeights<Tensor>, cache: Cache) -> Result<Self> {
        let norm = |weight: Tensor| RmsNorm::new(&weight, config.rms_norm_eps);
        let feed_forward = match weights.mlp {
            MlpWeights::Dense { gate_up, gate_up_bias, down, down_bias } => FeedForward::Dense {
                gate_up: Linear::new(gate_up, gate_up_bias)?,
                down: Linear::new(down, down_bias)?,
            },
            MlpWeights::Routed { router, gate_up, down } => FeedForward::Routed(Experts {
                router,
                gate_up,
                down,
                per_token: config.shape.experts.as_ref().map_or(0, |e| e.experts_per_token),
                normalise: config.norm_topk_prob,
            }),
        };
        Ok(Self {
            input_norm: norm(weights.attention_norm)?,
            attention: Attention {
                qkv: Linear::new(weights.qkv, weights.qkv_bias)?,
                output: Linear::new(weights.o, weights.o_bias)?,
                q_norm: weights.q_norm.map(norm).transpose()?,
                k_norm: weights.k_norm.map(norm).transpose()?,
                cache,
            },
            post_norm: norm(weights.mlp_norm)?,
            feed_forward,
        })
    }
}
