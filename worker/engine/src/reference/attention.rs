//! Grouped-query attention over a cache that is allocated once.

use bakeoff_model::{ledger::ATTENTION_BLOCK_ROWS, shape::ModelShape};
use candle_core::{D, DType, Device, Result, Tensor};

use super::layers::{Linear, RmsNorm};
use crate::cpu;

/// Cosines and sines on the device, `[positions, head_dim / 2]`.
pub struct Rotary {
    pub cos: Tensor,
    pub sin: Tensor,
}

impl Rotary {
    /// `x` is `[heads, n, head_dim]`, its first row at position `offset`.
    fn apply(&self, x: &Tensor, offset: usize) -> Result<Tensor> {
        let n = x.dim(1)?;
        let (cos, sin) = (self.cos.narrow(0, offset, n)?, self.sin.narrow(0, offset, n)?);
        candle_nn::rotary_emb::rope(&x.unsqueeze(0)?.contiguous()?, &cos, &sin)?.squeeze(0)
    }
}

/// The parts of one layer's attention.
pub struct Attention {
    pub qkv: Linear,
    pub output: Linear,
    pub q_norm: Option<RmsNorm>,
    pub k_norm: Option<RmsNorm>,
    pub cache: Cache,
}

/// Keys and values of one layer, `[kv_heads, capacity, head_dim]` each, in the model's dtype.
pub struct Cache {
    keys: Tensor,
    values: Tensor,
}

impl Cache {
    pub fn new(shape: &ModelShape, capacity: usize, dtype: DType, device: &Device) -> Result<Self> {
        let size = (shape.kv_heads, capacity, shape.head_dim);
        Ok(Self {
            keys: Tensor::zeros(size, dtype, device)?,
            values: Tensor::zeros(size, dtype, device)?,
        })
    }

    fn write(&self, keys: &Tensor, values: &Tensor, offset: usize) -> Result<()> {
        let stored = |x: &Tensor| x.to_dtype(self.keys.dtype())?.contiguous();
        self.keys.slice_set(&stored(keys)?, 1, offset)?;
        self.values.slice_set(&stored(values)?, 1, offset)
    }

    /// The first `length` positions in FP32.
    fn read(&self, length: usize) -> Result<(Tensor, Tensor)> {
        let read = |x: &Tensor| x.narrow(1, 0, length)?.to_dtype(DType::F32);
        Ok((read(&self.keys)?, read(&self.values)?))
    }
}

impl Attention {
    /// `x` is `[n, hidden]`; its rows are positions `offset..offset + n`.
    pub fn forward(
        &self,
        x: &Tensor,
        offset: usize,
        shape: &ModelShape,
        rotary: &Rotary,
    ) -> Result<Tensor> {
        let n = x.dim(0)?;
        let (q, kv) = (shape.q_size(), shape.kv_size());
        let qkv = self.qkv.forward(x)?;
        let heads = |first, size: usize| {
            qkv.narrow(1, first, size)?
                .reshape((n, size / shape.head_dim, shape.head_dim))?
                .transpose(0, 1)?
                .contiguous()
        };
        let normed = |norm: &Option<RmsNorm>, x: Tensor| match norm {
            None => Ok(x),
            Some(norm) => norm.forward(&x),
        };
        let query = rotary.apply(&normed(&self.q_norm, heads(0, q)?)?, offset)?;
        let keys = rotary.apply(&normed(&self.k_norm, heads(q, kv)?)?, offset)?;
        self.cache.write(&keys, &heads(q + kv, kv)?, offset)?;

        let mixed = if n == 1 && x.device().is_cpu() {
            let query = query.flatten_all()?.to_vec1::<f32>()?;
            let mixed =
                cpu::attention::decode(&query, &self.cache.keys, &self.cache.values, offset + 1)?;
            Tensor::from_vec(mixed, (1, q), &Device::Cpu)?
        } else {
            self.blocks(&query, offset, shape)?
        };
        self.output.forward(&mixed)
    }

    /// Causal attention of `query` `[heads, n, head_dim]` in blocks of rows, which bounds the scores
    /// held at a time. Gives `[n, heads · head_dim]`.
    fn blocks(&self, query: &Tensor, offset: usize, shape: &ModelShape) -> Result<Tensor> {
        let (heads, n, head_dim) = query.dims3()?;
        let group = heads / shape.kv_heads;
        let (keys, values) = self.cache.read(offset + n)?;
        let scale = 1.0 / (head_dim as f64).sqrt();
        let mut blocks = Vec::new();
        for first in (0..n).step_by(ATTENTION_BLOCK_ROWS) {
            let rows = ATTENTION_BLOCK_ROWS.min(n - first);
            let visible = offset + first + rows;
            // Query heads that share a head of keys are rows of one product.
            let q = query.narrow(1, first, rows)?.contiguous()?;
            let q = q.reshape((shape.kv_heads, group * rows, head_dim))?;
            let keys = keys.narrow(1, 0, visible)?.transpose(1, 2)?;
            let scores = (q.matmul(&keys)? * scale)?;
            let scores = scores.reshape((heads, rows, visible))?;
            let scores = scores.broadcast_add(&mask(rows, visible, query.device())?)?;
            let weights = candle_nn::ops::softmax(&scores, D::Minus1)?;
            let weights = weights.reshape((shape.kv_heads, group * rows, visible))?;
            let mixed = weights.matmul(&values.narrow(1, 0, visible)?.contiguous()?)?;
            let mixed = mixed.reshape((heads, rows, head_dim))?.transpose(0, 1)?;
            blocks.push(mixed.reshape((rows, heads * head_dim))?);
        }
        Tensor::cat(&blocks, 0)
    }
}

/// 0 where a row may look and -∞ where it may not; the last row sees all of `visible`.
fn mask(rows: usize, visible: usize, device: &Device) -> Result<Tensor> {
    let first = visible - rows;
    let values: Vec<f32> = (0..rows)
        .flat_map(|row| {
            (0..visible).map(move |at| if at <= first + row { 0.0 } else { f32::NEG_INFINITY })
        })
        .collect();
    Tensor::from_vec(values, (rows, visible), device)
}
