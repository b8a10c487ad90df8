//! Attention of a chunk of the prompt over everything before it and itself.

use candle_core::{D, DType, Result, Tensor};

/// How the prefill attends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrefillAttention {
    /// FlashAttention 2: memory linear in the context. For few tokens the prefill has a kernel of
    /// its own.
    Flash,
    /// Products and a softmax in candle's operations: what the setting `flash_attn = false` asks
    /// for.
    Plain,
}

impl PrefillAttention {
    /// FlashAttention where it is wanted and built in.
    pub fn choose(wanted: bool) -> Self {
        if wanted && cfg!(feature = "flash-attn") { Self::Flash } else { Self::Plain }
    }

    /// Attention of `q [1, tokens, heads, head_dim]` over `k, v [1, keys, kv_heads, head_dim]`. The
    /// last query stands at the last key; none sees what comes after it.
    pub fn run(self, q: &Tensor, k: &Tensor, v: &Tensor, scale: f32) -> Result<Tensor> {
        match self {
            #[cfg(feature = "flash-attn")]
            Self::Flash => candle_flash_attn::flash_attn(q, k, v, scale, true),
            #[cfg(not(feature = "flash-attn"))]
            Self::Flash => candle_core::bail!("built without the feature flash-attn"),
            Self::Plain => plain(q, k, v, scale),
        }
    }
}

/// One key/value head after the other, so that only its queries' scores are alive.
fn plain(q: &Tensor, k: &Tensor, v: &Tensor, scale: f32) -> Result<Tensor> {
    let (_, tokens, heads, head_dim) = q.dims4()?;
    let (_, keys, kv_heads, _) = k.dims4()?;
    let group = heads / kv_heads;
    let mask = causal_mask(tokens, keys, q.device())?;
    let mut outs = Vec::with_capacity(kv_heads);
    for head in 0..kv_heads {
        // [group * tokens, head_dim]
        let q = q.narrow(2, head * group, group)?.squeeze(0)?.transpose(0, 1)?;
        let q = q.contiguous()?.reshape((group * tokens, head_dim))?;
        let k = k.narrow(2, head, 1)?.squeeze(2)?.squeeze(0)?.contiguous()?;
        let v = v.narrow(2, head, 1)?.squeeze(2)?.squeeze(0)?.contiguous()?;
        let scores = (q.matmul(&k.t()?)?.to_dtype(DType::F32)? * f64::from(scale))?;
        let scores = scores.reshape((group, tokens, keys))?.broadcast_add(&mask)?;
        let weights = softmax(&scores)?.to_dtype(q.dtype())?;
        let out = weights.reshape((group * tokens, keys))?.matmul(&v)?;
        outs.push(out.reshape((group, tokens, head_dim))?.transpose(0, 1)?);
    }
    Tensor::cat(&outs, 1)?.contiguous()?.unsqueeze(0)
}

fn softmax(scores: &Tensor) -> Result<Tensor> {
    let weights = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
    weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)
}

/// Zero where a query may look, minus infinity where not; `[tokens, keys]`.
fn causal_mask(tokens: usize, keys: usize, device: &candle_core::Device) -> Result<Tensor> {
    let before = keys - tokens;
    let mask: Vec<f32> = (0..tokens)
        .flat_map(|token| {
            (0..keys).map(move |key| if key > before + token { f32::NEG_INFINITY } else { 0.0 })
        })
        .collect();
    Tensor::from_vec(mask, (tokens, keys), device)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    /// Attention written out per element, in f64.
    fn by_hand(q: &Tensor, k: &Tensor, v: &Tensor, scale: f64) -> Result<Vec<f64>> {
        let (_, tokens, heads, dim) = q.dims4()?;
        let (_, keys, kv_heads, _) = k.dims4()?;
        let flat = |t: &Tensor| t.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>();
        let (q, k, v) = (flat(q)?, flat(k)?, flat(v)?);
        let mut out = Vec::new();
        for token in 0..tokens {
            for head in 0..heads {
                let kv_head = head / (heads / kv_heads);
                let seen = keys - tokens + token + 1;
                let at = |key: usize| (key * kv_heads + kv_head) * dim;
                let query = &q[(token * heads + head) * dim..][..dim];
                let scores: Vec<f64> = (0..seen)
                    .map(|key| {
                        let key = &k[at(key)..][..dim];
                        query.iter().zip(key).map(|(a, b)| a * b).sum::<f64>() * scale
                    })
                    .collect();
                let largest = scores.iter().copied().fold(f64::MIN, f64::max);
                let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
                let total: f64 = weights.iter().sum();
                out.extend((0..dim).map(|i| {
                    weights.iter().enumerate().map(|(key, w)| w * v[at(key) + i]).sum::<f64>()
                        / total
                }));
            }
        }
        Ok(out)
    }

    #[test]
    fn plain_attention_is_causal_from_the_bottom_right_and_shares_keys_in_groups() -> Result<()> {
        let device = Device::Cpu;
        for (tokens, keys, heads, kv_heads, dim) in
            [(5, 5, 4, 2, 8), (3, 11, 6, 1, 16), (1, 7, 2, 2, 8)]
        {
            let random = |rows, heads| Tensor::randn(0f32, 1.0, (1, rows, heads, dim), &device);
            let (q, k, v) =
                (random(tokens, heads)?, random(keys, kv_heads)?, random(keys, kv_heads)?);
            let out = PrefillAttention::Plain.run(&q, &k, &v, 0.3)?;
            assert_eq!(out.dims4()?, (1, tokens, heads, dim));
            let expected = by_hand(&q, &k, &v, f64::from(0.3f32))?;
            for (ours, expected) in out.flatten_all()?.to_vec1::<f32>()?.iter().zip(expected) {
                assert!((f64::from(*ours) - expected).abs() < 1e-5, "{ours} {expected}");
            }
        }
        Ok(())
    }
}
