//! From numbers as stored to the dtype asked for, in parallel, rounding to nearest even.

use candle_core::WithDType;
use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::Dtype;

/// A dtype that engines compute in.
pub trait Element: WithDType + Copy + Send + Sync {
    const ZERO: Self;
    fn from_f32(value: f32) -> Self;
    fn from_bf16(value: bf16) -> Self;
}

impl Element for f32 {
    const ZERO: Self = 0.0;

    fn from_f32(value: f32) -> Self {
        value
    }

    fn from_bf16(value: bf16) -> Self {
        value.to_f32()
    }
}

impl Element for bf16 {
    const ZERO: Self = bf16::ZERO;

    fn from_f32(value: f32) -> Self {
        Self::from_f32(value)
    }

    fn from_bf16(value: bf16) -> Self {
        value
    }
}

/// Fills `out` from little-endian bytes of BF16, F16 or F32.
///
/// # Panics
/// On another dtype, which the checkpoint's check refuses.
pub fn decode<T: Element>(bytes: &[u8], dtype: Dtype, out: &mut [T]) {
    const CHUNK: usize = 1 << 16;
    let size = match dtype {
        Dtype::F32 => 4,
        Dtype::BF16 | Dtype::F16 => 2,
        other => unreachable!("a checkpoint of {other:?} is refused when it is checked"),
    };
    out.par_chunks_mut(CHUNK).zip(bytes.par_chunks(CHUNK * size)).for_each(|(out, bytes)| {
        match dtype {
            Dtype::F32 => {
                for (value, raw) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *value = T::from_f32(f32::from_le_bytes(*raw));
                }
            }
            Dtype::BF16 => {
                for (value, raw) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *value = T::from_bf16(bf16::from_le_bytes(*raw));
                }
            }
            _ => {
                for (value, raw) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *value = T::from_f32(f16::from_le_bytes(*raw).to_f32());
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stored_format_reads_as_its_value() {
        let values = [1.0f32, -2.5, 0.0, 0.15625, 3.0e4];
        let f32s: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let bf16s: Vec<u8> = values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect();
        let f16s: Vec<u8> = values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect();
        for (bytes, dtype) in [(f32s, Dtype::F32), (bf16s, Dtype::BF16), (f16s, Dtype::F16)] {
            let mut wide = [0f32; 5];
            decode(&bytes, dtype, &mut wide);
            let mut narrow = [bf16::ZERO; 5];
            decode(&bytes, dtype, &mut narrow);
            for ((value, wide), narrow) in values.iter().zip(wide).zip(narrow) {
                assert!((value - wide).abs() <= value.abs() / 256.0, "{dtype:?} {value} {wide}");
                assert!((value - narrow.to_f32()).abs() <= value.abs() / 256.0);
            }
        }
    }
}
