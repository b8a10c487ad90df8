//! Dot products of stored weights with FP32 vectors, in the widest lanes the CPU has.

use half::bf16;

/// A stored number that widens to FP32.
pub trait Stored: Copy + Send + Sync + 'static {
    fn widen(self) -> f32;
}

impl Stored for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
}

impl Stored for bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

/// What the CPU can do, found once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lanes {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

impl Lanes {
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("fma") {
                return Self::Avx512;
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Self::Avx2;
            }
        }
        Self::Portable
    }

    /// `out[r] = weights[r] · x` for each row of `weights`, which are `x.len()` long.
    ///
    /// # Panics
    /// The lengths do not fit together.
    pub fn rows<T: Stored>(self, weights: &[T], x: &[f32], out: &mut [f32]) {
        assert_eq!(weights.len(), x.len() * out.len(), "rows times columns");
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `detect` found the feature.
            Self::Avx512 => unsafe { rows_avx512(weights, x, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `detect` found the features.
            Self::Avx2 => unsafe { rows_avx2(weights, x, out) },
            Self::Portable => rows::<T, 8>(weights, x, out, |a, b, sum| a * b + sum),
        }
    }

    /// `out += scale * values`.
    ///
    /// # Panics
    /// The lengths differ.
    pub fn add_scaled<T: Stored>(self, values: &[T], scale: f32, out: &mut [f32]) {
        assert_eq!(values.len(), out.len());
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `detect` found the feature.
            Self::Avx512 => unsafe { add_scaled_avx512(values, scale, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `detect` found the features.
            Self::Avx2 => unsafe { add_scaled_avx2(values, scale, out) },
            Self::Portable => add_scaled(values, scale, out, |a, b, sum| a * b + sum),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
fn rows_avx512<T: Stored>(weights: &[T], x: &[f32], out: &mut [f32]) {
    rows::<T, 16>(weights, x, out, f32::mul_add);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn rows_avx2<T: Stored>(weights: &[T], x: &[f32], out: &mut [f32]) {
    rows::<T, 8>(weights, x, out, f32::mul_add);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
fn add_scaled_avx512<T: Stored>(values: &[T], scale: f32, out: &mut [f32]) {
    add_scaled(values, scale, out, f32::mul_add);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn add_scaled_avx2<T: Stored>(values: &[T], scale: f32, out: &mut [f32]) {
    add_scaled(values, scale, out, f32::mul_add);
}

/// Four sums of `LANES` each run side by side, which hides the latency of a multiply-add.
#[inline(always)]
fn rows<T: Stored, const LANES: usize>(
    weights: &[T],
    x: &[f32],
    out: &mut [f32],
    mul_add: impl Fn(f32, f32, f32) -> f32 + Copy,
) {
    const SUMS: usize = 4;
    let columns = x.len();
    for (row, out) in out.iter_mut().enumerate() {
        let row = &weights[row * columns..(row + 1) * columns];
        let mut sums = [[0f32; LANES]; SUMS];
        let (row_lanes, row_rest) = row.as_chunks::<LANES>();
        let (x_lanes, x_rest) = x.as_chunks::<LANES>();
        let (row_blocks, row_tail) = row_lanes.as_chunks::<SUMS>();
        let (x_blocks, x_tail) = x_lanes.as_chunks::<SUMS>();
        for (w, v) in row_blocks.iter().zip(x_blocks) {
            for sum in 0..SUMS {
                for lane in 0..LANES {
                    sums[sum][lane] = mul_add(w[sum][lane].widen(), v[sum][lane], sums[sum][lane]);
                }
            }
        }
        for (w, v) in row_tail.iter().zip(x_tail) {
            for lane in 0..LANES {
                sums[0][lane] = mul_add(w[lane].widen(), v[lane], sums[0][lane]);
            }
        }
        let mut total: f32 = sums.as_flattened().iter().sum();
        for (w, v) in row_rest.iter().zip(x_rest) {
            total = mul_add(w.widen(), *v, total);
        }
        *out = total;
    }
}

#[inline(always)]
fn add_scaled<T: Stored>(
    values: &[T],
    scale: f32,
    out: &mut [f32],
    mul_add: impl Fn(f32, f32, f32) -> f32 + Copy,
) {
    for (value, out) in values.iter().zip(out) {
        *out = mul_add(value.widen(), scale, *out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::dummy;

    fn all() -> Vec<Lanes> {
        let mut all = vec![Lanes::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                all.push(Lanes::Avx2);
            }
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("fma") {
                all.push(Lanes::Avx512);
            }
        }
        all
    }

    #[test]
    fn every_width_gives_the_exact_sum_within_rounding() {
        for columns in [0, 1, 7, 8, 15, 16, 17, 63, 64, 65, 130, 576, 1537] {
            let mut x = vec![0f32; columns];
            dummy::fill("x", false, &mut x);
            let mut wide = vec![0f32; 3 * columns];
            dummy::fill("w", false, &mut wide);
            let narrow: Vec<bf16> = wide.iter().map(|w| bf16::from_f32(*w)).collect();
            for lanes in all() {
                check(lanes, &wide, &x);
                check(lanes, &narrow, &x);
            }
        }
    }

    fn check<T: Stored>(lanes: Lanes, weights: &[T], x: &[f32]) {
        let mut out = [f32::NAN; 3];
        lanes.rows(weights, x, &mut out);
        for (row, found) in out.iter().enumerate() {
            let row = &weights[row * x.len()..][..x.len()];
            let products = row.iter().zip(x).map(|(w, x)| f64::from(w.widen()) * f64::from(*x));
            let size: f64 = products.clone().map(f64::abs).sum();
            let exact: f64 = products.sum();
            assert!((f64::from(*found) - exact).abs() <= 1e-6 * size, "{lanes:?} {}", x.len());
        }
        let mut sum = x.to_vec();
        lanes.add_scaled(&weights[..x.len()], 0.5, &mut sum);
        for ((sum, w), x) in sum.iter().zip(weights).zip(x) {
            assert!((sum - (x + 0.5 * w.widen())).abs() < 1e-7);
        }
    }
}
