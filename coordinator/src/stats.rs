//! The few statistics that the reports rest on. Deterministic: the generator is seeded, so that the
//! same records give the same bytes.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const RESAMPLES: usize = 2000;
const SEED: u64 = 0x6261_6b65_6f66_6621;

/// A mean with its 95 % interval. Without repeats there is no interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Stat {
    pub mean: f64,
    pub low: Option<f64>,
    pub high: Option<f64>,
    pub n: usize,
}

impl Stat {
    /// Mean and percentile bootstrap interval; `None` for no finite values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let values: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
        if values.is_empty() {
            return None;
        }
        let interval = bootstrap(&values);
        Some(Self {
            mean: mean(&values),
            low: interval.map(|i| i.0),
            high: interval.map(|i| i.1),
            n: values.len(),
        })
    }
}

pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// 95 % percentile bootstrap interval of the mean; `None` for fewer than two values.
pub fn bootstrap(values: &[f64]) -> Option<(f64, f64)> {
    if values.len() < 2 {
        return None;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let sum: f64 =
                (0..values.len()).map(|_| values[rng.random_range(0..values.len())]).sum();
            sum / values.len() as f64
        })
        .collect();
    means.sort_by(f64::total_cmp);
    Some((percentile(&means, 2.5), percentile(&means, 97.5)))
}

/// Linear interpolation between the two nearest ranks of sorted values.
///
/// # Panics
/// When there are no values.
pub fn percentile(sorted: &[f64], percent: f64) -> f64 {
    let rank = percent / 100.0 * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[rank.floor() as usize], sorted[rank.ceil() as usize]);
    below + (above - below) * rank.fract()
}

/// What is known of a difference between paired values, as a ratio of the second to the first.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Ratio {
    /// Geometric mean of second / first.
    pub ratio: f64,
    pub low: Option<f64>,
    pub high: Option<f64>,
    pub n: usize,
    /// The interval excludes 1; for a single pair, the ratio is beyond the margin.
    pub significant: bool,
}

impl Ratio {
    /// From pairs of positive values; others are left out. `margin_pct` decides where a single pair
    /// has no interval.
    pub fn of(pairs: &[(f64, f64)], margin_pct: f64) -> Option<Self> {
        let logs: Vec<f64> = pairs
            .iter()
            .filter(|(a, b)| *a > 0.0 && *b > 0.0 && a.is_finite() && b.is_finite())
            .map(|(a, b)| (b / a).ln())
            .collect();
        if logs.is_empty() {
            return None;
        }
        let ratio = mean(&logs).exp();
        let interval = bootstrap(&logs).map(|(low, high)| (low.exp(), high.exp()));
        let significant = match interval {
            Some((low, high)) => low > 1.0 || high < 1.0,
            None => (ratio - 1.0).abs() * 100.0 > margin_pct,
        };
        Some(Self {
            ratio,
            low: interval.map(|i| i.0),
            high: interval.map(|i| i.1),
            n: logs.len(),
            significant,
        })
    }
}

/// Probability that at least one of `k` samples passes, estimated without bias from `c` passes in
/// `n` samples: 1 − C(n−c, k) / C(n, k), as a product that neither overflows nor cancels.
/// `None` unless 1 ≤ k ≤ n and c ≤ n.
pub fn pass_at_k(n: usize, c: usize, k: usize) -> Option<f64> {
    if k == 0 || k > n || c > n {
        return None;
    }
    if n - c < k {
        return Some(1.0);
    }
    let none: f64 = (n - c + 1..=n).map(|i| 1.0 - k as f64 / i as f64).product();
    Some(1.0 - none)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By counting every subset.
    fn pass_at_k_by_counting(n: usize, c: usize, k: usize) -> f64 {
        let (mut all, mut hit) = (0u32, 0u32);
        for subset in 0u32..1 << n {
            if subset.count_ones() as usize == k {
                all += 1;
                hit += u32::from(subset & ((1 << c) - 1) != 0);
            }
        }
        f64::from(hit) / f64::from(all)
    }

    #[test]
    fn pass_at_k_agrees_with_counting_the_subsets() {
        for n in 1..=8 {
            for c in 0..=n {
                for k in 1..=n {
                    let expected = pass_at_k_by_counting(n, c, k);
                    let found = pass_at_k(n, c, k).expect("in range");
                    assert!((found - expected).abs() < 1e-12, "n={n} c={c} k={k}");
                }
            }
        }
        assert_eq!(pass_at_k(3, 1, 4), None);
        assert_eq!(pass_at_k(3, 1, 0), None);
        assert!(pass_at_k(10_000, 1, 100).is_some_and(|p| (p - 0.01).abs() < 1e-9));
    }

    #[test]
    fn intervals_cover_the_mean_and_repeat() {
        let stat = Stat::of([1.0, 2.0, 3.0, 4.0, f64::NAN]).expect("values");
        assert_eq!((stat.mean, stat.n), (2.5, 4));
        assert!(stat.low.unwrap() < 2.5 && stat.high.unwrap() > 2.5);
        assert_eq!(Stat::of([1.0, 2.0, 3.0, 4.0]), Some(stat));
        assert_eq!(Stat::of([7.0]).unwrap().low, None);
        assert_eq!(Stat::of([f64::INFINITY]), None);
    }

    #[test]
    fn a_difference_is_significant_only_beyond_its_noise() {
        let same = [(10.0, 11.0), (10.0, 9.0), (10.0, 10.5), (10.0, 9.6)];
        assert!(!Ratio::of(&same, 5.0).unwrap().significant);
        let faster = [(10.0, 11.0), (20.0, 22.5), (30.0, 33.0)];
        let ratio = Ratio::of(&faster, 5.0).unwrap();
        assert!(ratio.significant && ratio.ratio > 1.09);
        assert!(!Ratio::of(&[(10.0, 10.4)], 5.0).unwrap().significant);
        assert!(Ratio::of(&[(10.0, 10.6)], 5.0).unwrap().significant);
        assert_eq!(Ratio::of(&[(0.0, 1.0)], 5.0), None);
    }
}
