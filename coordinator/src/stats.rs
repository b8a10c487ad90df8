//! The few statistics that the reports rest on. Deterministic: the generator is seeded, so that the
//! same records give the same bytes.

use bakeoff_model::percentile::percentiles;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const RESAMPLES: usize = 2000;
const SEED: u64 = 0x6261_6b65_6f66_6621;

/// A mean with its 95 % interval. Without repeats there is no interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Stat {
    /// The mean.
    pub mean: f64,
    /// Lower end of the 95 % interval.
    pub low: Option<f64>,
    /// Upper end of it.
    pub high: Option<f64>,
    /// How many values.
    pub n: usize,
}

impl Stat {
    /// Mean and interval (see [`interval`]); `None` for no finite values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let values: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
        if values.is_empty() {
            return None;
        }
        let interval = interval(&values);
        Some(Self {
            mean: mean(&values),
            low: interval.map(|i| i.0),
            high: interval.map(|i| i.1),
            n: values.len(),
        })
    }

    /// The share of `passes` in `n` with its Wilson interval, which knows that all of three is not
    /// certainty. `None` for no trials.
    pub fn rate(passes: usize, n: usize) -> Option<Self> {
        const Z: f64 = 1.959_964;
        if n == 0 || passes > n {
            return None;
        }
        let (trials, share) = (n as f64, passes as f64 / n as f64);
        let (z2, denominator) = (Z * Z / trials, 1.0 + Z * Z / trials);
        let centre = (share + z2 / 2.0) / denominator;
        let half = Z / denominator * (share * (1.0 - share) / trials + z2 / (4.0 * trials)).sqrt();
        let (low, high) = ((centre - half).max(0.0), (centre + half).min(1.0));
        // The ends are exact where every trial agrees.
        let low = if passes == 0 { 0.0 } else { low };
        let high = if passes == n { 1.0 } else { high };
        Some(Self { mean: share, low: Some(low), high: Some(high), n })
    }
}

/// The mean.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// 95 % interval of the mean: the wider of the percentile bootstrap and Student's t. The bootstrap
/// alone is far too narrow for the few repeats of a sweep: of two values it never leaves their
/// range.
/// `None` for fewer than two values.
pub fn interval(values: &[f64]) -> Option<(f64, f64)> {
    let (low, high) = bootstrap(values)?;
    let (n, mean) = (values.len() as f64, mean(values));
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let half = student_t(values.len() - 1) * (variance / n).sqrt();
    Some((low.min(mean - half), high.max(mean + half)))
}

/// The 97.5 % quantile of Student's t.
fn student_t(degrees: usize) -> f64 {
    const TABLE: [f64; 30] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
        2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
        2.052, 2.048, 2.045, 2.042,
    ];
    match degrees {
        0 => f64::INFINITY,
        1..=30 => TABLE[degrees - 1],
        // Within 0.003 of the quantile.
        _ => 1.960 + 2.42 / degrees as f64,
    }
}

/// 95 % percentile bootstrap interval of the mean; `None` for fewer than two values.
fn bootstrap(values: &[f64]) -> Option<(f64, f64)> {
    if values.len() < 2 {
        return None;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let means: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let sum: f64 =
                (0..values.len()).map(|_| values[rng.random_range(0..values.len())]).sum();
            sum / values.len() as f64
        })
        .collect();
    percentiles(&means, [2.5, 97.5]).map(Into::into)
}

/// What is known of a difference between paired values, as a ratio of the second to the first.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Ratio {
    /// Geometric mean of second / first.
    pub ratio: f64,
    /// Lower end of the 95 % interval.
    pub low: Option<f64>,
    /// Upper end of it.
    pub high: Option<f64>,
    /// How many values.
    pub n: usize,
    /// The interval excludes 1; for a single pair, the ratio is beyond the margin.
    pub significant: bool,
    /// About how many more pairs would tell, see [`more_pairs`].
    pub more_pairs: Option<usize>,
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
        let interval = interval(&logs).map(|(low, high)| (low.exp(), high.exp()));
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
            more_pairs: more_pairs(&logs, (margin_pct / 100.0).ln_1p()),
        })
    }
}

/// How many more paired differences would show, in four of five repetitions, that their mean is not
/// zero: n = ((z₀.₉₇₅ + z₀.₈) · s / δ)² in all, with the standard deviation s of those there are and
/// δ the larger of their mean and `least`, the smallest difference that matters. `None` for fewer
/// than two differences, and where they do not vary: then more of the same tell nothing.
pub fn more_pairs(differences: &[f64], least: f64) -> Option<usize> {
    const Z: f64 = 1.959_964 + 0.841_621;
    let (n, mean) = (differences.len(), mean(differences));
    let variance = differences.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / (n as f64 - 1.0);
    let delta = mean.abs().max(least);
    if n < 2 || variance <= 0.0 || delta <= 0.0 {
        return None;
    }
    let needed = (Z * Z * variance / (delta * delta)).ceil() as usize;
    Some(needed.saturating_sub(n).max(1))
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

    /// By simulation: of intervals around the mean of few normal values, about 95 % hold the truth.
    #[test]
    fn intervals_of_few_values_cover_the_truth() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        // A sum of twelve uniform values is normal enough.
        let mut normal = || (0..12).map(|_| rng.random_range(0.0..1.0)).sum::<f64>() - 6.0;
        for n in [2, 3, 5, 12] {
            let trials = 300;
            let held = (0..trials)
                .filter(|_| {
                    let values: Vec<f64> = (0..n).map(|_| normal()).collect();
                    interval(&values).is_some_and(|(low, high)| low <= 0.0 && high >= 0.0)
                })
                .count();
            assert!(held * 100 >= trials * 92, "n={n}: {held} of {trials}");
        }
        assert_eq!(interval(&[2.0, 2.0, 2.0]), Some((2.0, 2.0)));
        assert_eq!(interval(&[2.0]), None);
    }

    #[test]
    fn rates_have_wilson_intervals() {
        let rate = Stat::rate(8, 10).expect("trials");
        assert!((rate.low.unwrap() - 0.4902).abs() < 1e-3, "{rate:?}");
        assert!((rate.high.unwrap() - 0.9433).abs() < 1e-3, "{rate:?}");
        let all = Stat::rate(3, 3).expect("trials");
        assert!((all.low.unwrap() - 0.4385).abs() < 1e-3 && all.high == Some(1.0), "{all:?}");
        assert_eq!(Stat::rate(0, 5).unwrap().low, Some(0.0));
        assert_eq!(Stat::rate(0, 0), None);
        assert_eq!(Stat::rate(2, 1), None);
    }

    /// By simulation: with as many pairs as asked for, about four of five samples tell.
    #[test]
    fn as_many_more_pairs_as_said_tell() {
        let known = [0.3, -0.1, 0.4, -0.2];
        let (n, delta) = (known.len(), mean(&known));
        let sd = (known.iter().map(|d| (d - delta).powi(2)).sum::<f64>() / 3.0).sqrt();
        let all = n + more_pairs(&known, 0.05).expect("they vary");
        assert_eq!(all, 69);
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        let mut normal = || (0..12).map(|_| rng.random_range(0.0..1.0)).sum::<f64>() - 6.0;
        let told = (0..300)
            .filter(|_| {
                let values: Vec<f64> = (0..all).map(|_| delta + sd * normal()).collect();
                let m = mean(&values);
                let v = values.iter().map(|x| (x - m).powi(2)).sum::<f64>() / (all as f64 - 1.0);
                m - student_t(all - 1) * (v / all as f64).sqrt() > 0.0
            })
            .count();
        assert!((216..=264).contains(&told), "{told} of 300");
        assert_eq!(more_pairs(&[0.1], 0.05), None);
        assert_eq!(more_pairs(&[0.0, 0.0, 0.0], 0.05), None);
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
