//! Attention of one new token over the whole cache, read where it lies.

use candle_core::{CpuStorage, Storage, Tensor};
use rayon::prelude::*;

use super::{
    dot::{Lanes, Stored},
    gemv::LANES,
};

/// Above so many cached elements the heads are shared out among threads.
const PARALLEL_ELEMENTS: usize = 1 << 15;

/// Softmax-weighted values for one position: `query` is `[heads, head_dim]`, the caches are
/// `[kv_heads, capacity, head_dim]` contiguous, of which `length` positions count. FP32 throughout.
///
/// # Errors
/// Caches elsewhere than on the CPU, of another dtype, or too short.
pub fn decode(
    query: &[f32],
    keys: &Tensor,
    values: &Tensor,
    length: usize,
) -> candle_core::Result<Vec<f32>> {
    let (kv_heads, capacity, head_dim) = keys.dims3()?;
    if values.dims3()? != (kv_heads, capacity, head_dim) || length == 0 || length > capacity {
        candle_core::bail!(
            "attention over {length} of {:?} and {:?}",
            keys.shape(),
            values.shape()
        );
    }
    let (keys, key_layout) = keys.storage_and_layout();
    let (values, value_layout) = values.storage_and_layout();
    let (Some(key_range), Some(value_range)) =
        (key_layout.contiguous_offsets(), value_layout.contiguous_offsets())
    else {
        candle_core::bail!("attention needs contiguous caches");
    };
    let size = Size { kv_heads, capacity, head_dim, length };
    match (&*keys, &*values) {
        (Storage::Cpu(CpuStorage::F32(k)), Storage::Cpu(CpuStorage::F32(v))) => {
            Ok(size.heads(query, &k[key_range.0..key_range.1], &v[value_range.0..value_range.1]))
        }
        (Storage::Cpu(CpuStorage::BF16(k)), Storage::Cpu(CpuStorage::BF16(v))) => {
            Ok(size.heads(query, &k[key_range.0..key_range.1], &v[value_range.0..value_range.1]))
        }
        _ => candle_core::bail!("attention needs F32 or BF16 caches on the CPU"),
    }
}

struct Size {
    kv_heads: usize,
    capacity: usize,
    head_dim: usize,
    length: usize,
}

impl Size {
    fn heads<T: Stored>(&self, query: &[f32], keys: &[T], values: &[T]) -> Vec<f32> {
        let mut out = vec![0f32; query.len()];
        let group = query.len() / self.kv_heads;
        let one = |(head, (out, query)): (usize, (&mut [f32], &[f32]))| {
            let first = head * self.capacity * self.head_dim;
            let cached = first..first + self.length * self.head_dim;
            self.head_group(query, &keys[cached.clone()], &values[cached], out);
        };
        if self.kv_heads * self.length * self.head_dim < PARALLEL_ELEMENTS {
            out.chunks_mut(group).zip(query.chunks(group)).enumerate().for_each(one);
        } else {
            out.par_chunks_mut(group).zip(query.par_chunks(group)).enumerate().for_each(one);
        }
        out
    }

    /// The query heads that share one head of keys and values.
    fn head_group<T: Stored>(&self, query: &[f32], keys: &[T], values: &[T], out: &mut [f32]) {
        let lanes: Lanes = *LANES;
        let scale = 1.0 / (self.head_dim as f32).sqrt();
        let mut scores = vec![0f32; self.length];
        for (query, out) in query.chunks(self.head_dim).zip(out.chunks_mut(self.head_dim)) {
            lanes.rows(keys, query, &mut scores);
            let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let mut total = 0.0;
            for score in &mut scores {
                *score = ((*score - largest) * scale).exp();
                total += *score;
            }
            for (score, value) in scores.iter().zip(values.chunks(self.head_dim)) {
                lanes.add_scaled(value, score / total, out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::dummy;
    use candle_core::{DType, Device};

    #[test]
    fn it_is_the_plain_softmax_of_the_plain_products() {
        let (kv_heads, group, capacity, head_dim) = (2, 3, 700, 32);
        for (length, dtype) in
            [(1, DType::F32), (7, DType::F32), (650, DType::F32), (650, DType::BF16)]
        {
            let random = |name: &str, shape: (usize, usize, usize)| {
                let mut values = vec![0f32; shape.0 * shape.1 * shape.2];
                dummy::fill(name, bakeoff_model::tensors::Role::Plain, &mut values);
                values.iter_mut().for_each(|v| *v *= 40.0);
                Tensor::from_vec(values, shape, &Device::Cpu).expect("a tensor")
            };
            let cache = |name| random(name, (kv_heads, capacity, head_dim)).to_dtype(dtype);
            let (keys, values) = (cache("k").expect("a cast"), cache("v").expect("a cast"));
            let query = random("q", (kv_heads, group, head_dim));

            let flat: Vec<f32> = query.flatten_all().and_then(|q| q.to_vec1()).expect("a query");
            let found = decode(&flat, &keys, &values, length).expect("attention");
            let plain = || -> candle_core::Result<Vec<f32>> {
                let part = |t: &Tensor| t.narrow(1, 0, length)?.to_dtype(DType::F32)?.contiguous();
                let scores = query
                    .matmul(&part(&keys)?.t()?)?
                    .affine(1.0 / (head_dim as f64).sqrt(), 0.0)?;
                let weights = candle_nn::ops::softmax_last_dim(&scores)?;
                weights.matmul(&part(&values)?)?.flatten_all()?.to_vec1()
            };
            for (found, plain) in found.iter().zip(plain().expect("plain attention")) {
                assert!((found - plain).abs() < 1e-5, "{length}: {found} {plain}");
            }
            assert!(decode(&flat, &keys, &values, capacity + 1).is_err());
        }
    }
}
