//! Random weights of a true shape: close to N(0, 0.02), norms at 1, the same on every machine. The
//! fused engine's kernel makes numbers of the same distribution, from one seed for all tensors.

use bakeoff_model::tensors::Role;
use rayon::prelude::*;

use super::convert::Element;

/// Standard deviation, as models are initialised with.
pub const DEVIATION: f32 = 0.02;

/// The seed of a tensor: FNV-1a over its name.
fn seed(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Fills `out` with the values of the tensor of this name, from its first on.
pub fn fill<T: Element>(name: &str, role: Role, out: &mut [T]) {
    const CHUNK: usize = 1 << 14;
    if role == Role::Norm {
        out.fill(T::from_f32(1.0));
        return;
    }
    let key = mix(seed(name).wrapping_add(1));
    out.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, out)| {
        for (i, value) in out.iter_mut().enumerate() {
            *value = T::from_f32(normal(key, (chunk * CHUNK + i) as u64) * DEVIATION);
        }
    });
}

/// The finaliser of splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
/// generators").
fn mix(mut v: u64) -> u64 {
    v = (v ^ (v >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    v = (v ^ (v >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    v ^ (v >> 31)
}

/// The sum of four uniform 16-bit numbers, scaled to variance 1.
fn normal(key: u64, at: u64) -> f32 {
    let bits = mix(key.wrapping_add(at.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    let sum: u64 = (0..4).map(|lane| (bits >> (16 * lane)) & 0xffff).sum();
    (sum as i32 - 131_070) as f32 * (1.0 / 37_837.227)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_normal_and_repeat() {
        let mut values = vec![0f32; 100_000];
        fill("a", Role::Plain, &mut values);
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / values.len() as f32;
        assert!(mean.abs() < 3e-4, "{mean}");
        assert!((variance.sqrt() - DEVIATION).abs() < 3e-4, "{}", variance.sqrt());

        let mut again = vec![0f32; 50_000];
        fill("a", Role::Plain, &mut again);
        assert_eq!(values[..50_000], again[..]);
        fill("b", Role::Plain, &mut again);
        assert_ne!(values[..50_000], again[..]);
        fill("b", Role::Norm, &mut again);
        assert!(again.iter().all(|v| *v == 1.0));
    }
}
