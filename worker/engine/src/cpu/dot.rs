//! Dot products of stored weights with FP32 vectors, in the widest lanes the CPU has.

use half::bf16;

/// A stored number that widens to FP32, with the loops for each width of lanes.
pub trait Stored: Copy + Send + Sync + 'static {
    fn widen(self) -> f32;

    /// # Safety
    /// The CPU has AVX-512F.
    #[cfg(target_arch = "x86_64")]
    unsafe fn rows_avx512(weights: &[Self], x: &[f32], out: &mut [f32]);

    /// # Safety
    /// The CPU has AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    unsafe fn rows_avx2(weights: &[Self], x: &[f32], out: &mut [f32]);
}

impl Stored for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[cfg(target_arch = "x86_64")]
    unsafe fn rows_avx512(weights: &[Self], x: &[f32], out: &mut [f32]) {
        // SAFETY: as the caller vouches.
        unsafe { x86::avx512_f32(weights, x, out) }
    }

    #[cfg(target_arch = "x86_64")]
    unsafe fn rows_avx2(weights: &[Self], x: &[f32], out: &mut [f32]) {
        // SAFETY: as the caller vouches.
        unsafe { x86::avx2_f32(weights, x, out) }
    }
}

impl Stored for bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[cfg(target_arch = "x86_64")]
    unsafe fn rows_avx512(weights: &[Self], x: &[f32], out: &mut [f32]) {
        // SAFETY: as the caller vouches.
        unsafe { x86::avx512_bf16(weights, x, out) }
    }

    #[cfg(target_arch = "x86_64")]
    unsafe fn rows_avx2(weights: &[Self], x: &[f32], out: &mut [f32]) {
        // SAFETY: as the caller vouches.
        unsafe { x86::avx2_bf16(weights, x, out) }
    }
}

/// The loops by intrinsics: left to itself the compiler keeps such sums in single lanes. Four
/// vectors of sums run side by side, which hides the latency of a multiply-add.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use half::bf16;

    use super::Stored;

    macro_rules! rows {
        ($name:ident, $features:literal, $type:ty, $lanes:literal, $zero:ident, $load:ident,
         $mul_add:ident, $add:ident, $store:ident, |$at:ident| $widened:expr) => {
            #[target_feature(enable = $features)]
            pub fn $name(weights: &[$type], x: &[f32], out: &mut [f32]) {
                let columns = x.len();
                let whole = columns - columns % $lanes;
                for (row, out) in weights.chunks_exact(columns).zip(out) {
                    let mut sums = [$zero(); 4];
                    let mut at = 0;
                    while at < whole {
                        for sum in &mut sums {
                            if at < whole {
                                // SAFETY: a whole vector is left from `at` on, in both slices.
                                let $at = unsafe { row.as_ptr().add(at) };
                                // SAFETY: as above.
                                let (w, v) = unsafe { ($widened, $load(x.as_ptr().add(at))) };
                                *sum = $mul_add(w, v, *sum);
                                at += $lanes;
                            }
                        }
                    }
                    let sum = $add($add(sums[0], sums[1]), $add(sums[2], sums[3]));
                    let mut lanes = [0f32; $lanes];
                    // SAFETY: `lanes` is as long as the vector.
                    unsafe { $store(lanes.as_mut_ptr(), sum) };
                    let rest = row[whole..].iter().zip(&x[whole..]);
                    let rest: f32 = rest.map(|(w, v)| w.widen() * v).sum();
                    *out = lanes.iter().sum::<f32>() + rest;
                }
            }
        };
    }

    rows!(
        avx512_f32,
        "avx512f",
        f32,
        16,
        _mm512_setzero_ps,
        _mm512_loadu_ps,
        _mm512_fmadd_ps,
        _mm512_add_ps,
        _mm512_storeu_ps,
        |at| _mm512_loadu_ps(at)
    );
    rows!(
        avx512_bf16,
        "avx512f",
        bf16,
        16,
        _mm512_setzero_ps,
        _mm512_loadu_ps,
        _mm512_fmadd_ps,
        _mm512_add_ps,
        _mm512_storeu_ps,
        |at| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(
            _mm256_loadu_si256(at.cast())
        )))
    );
    rows!(
        avx2_f32,
        "avx2,fma",
        f32,
        8,
        _mm256_setzero_ps,
        _mm256_loadu_ps,
        _mm256_fmadd_ps,
        _mm256_add_ps,
        _mm256_storeu_ps,
        |at| _mm256_loadu_ps(at)
    );
    rows!(
        avx2_bf16,
        "avx2,fma",
        bf16,
        8,
        _mm256_setzero_ps,
        _mm256_loadu_ps,
        _mm256_fmadd_ps,
        _mm256_add_ps,
        _mm256_storeu_ps,
        |at| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(
            at.cast()
        ))))
    );
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
    /// What this CPU has, asked once.
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
        if x.is_empty() {
            return out.fill(0.0);
        }
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `detect` found the feature.
            Self::Avx512 => unsafe { T::rows_avx512(weights, x, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `detect` found the features.
            Self::Avx2 => unsafe { T::rows_avx2(weights, x, out) },
            Self::Portable => rows(weights, x, out),
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
fn add_scaled_avx512<T: Stored>(values: &[T], scale: f32, out: &mut [f32]) {
    add_scaled(values, scale, out, f32::mul_add);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn add_scaled_avx2<T: Stored>(values: &[T], scale: f32, out: &mut [f32]) {
    add_scaled(values, scale, out, f32::mul_add);
}

/// The loop without special instructions.
fn rows<T: Stored>(weights: &[T], x: &[f32], out: &mut [f32]) {
    const LANES: usize = 8;
    let columns = x.len();
    let (x_lanes, x_rest) = x.as_chunks::<LANES>();
    for (row, out) in out.iter_mut().enumerate() {
        let (row_lanes, row_rest) =
            weights[row * columns..(row + 1) * columns].as_chunks::<LANES>();
        let mut sums = [0f32; LANES];
        for (w, v) in row_lanes.iter().zip(x_lanes) {
            for ((sum, w), v) in sums.iter_mut().zip(w).zip(v) {
                *sum += w.widen() * v;
            }
        }
        let rest: f32 = row_rest.iter().zip(x_rest).map(|(w, v)| w.widen() * v).sum();
        *out = sums.iter().sum::<f32>() + rest;
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
            dummy::fill("x", bakeoff_model::tensors::Role::Plain, &mut x);
            let mut wide = vec![0f32; 3 * columns];
            dummy::fill("w", bakeoff_model::tensors::Role::Plain, &mut wide);
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
