//! From logits to a token, in transformers' order: repetition penalty, then temperature, top-k,
//! top-p, min-p, then a draw.
//!
//! The draw takes the largest `logit + Gumbel noise` among the tokens kept, which is a draw from
//! their softmax. The noise is Philox4x32-10 of (seed, step, token), so step t depends on nothing
//! but the seed, t and the logits, and the GPU's kernel, which computes the same, draws the same.

use bakeoff_proto::FailureKind;

use crate::{EngineError, engine::Sampling};

/// Chooses the tokens of one sequence.
#[derive(Debug)]
pub struct Sampler {
    sampling: Sampling,
    /// Which tokens occurred, in the prompt or the output.
    seen: Vec<bool>,
}

impl Sampler {
    /// A sampler for a sequence that starts with `prompt_ids`, each below `vocab`.
    pub fn new(sampling: &Sampling, vocab: usize, prompt_ids: &[u32]) -> Self {
        let mut seen = vec![false; vocab];
        for id in prompt_ids {
            if let Some(seen) = seen.get_mut(*id as usize) {
                *seen = true;
            }
        }
        Self { sampling: sampling.clone(), seen }
    }

    /// The token of step `step` (counted from 0), which counts as seen from now on. The logits are
    /// overwritten.
    ///
    /// # Errors
    /// A NaN or infinity among the logits.
    pub fn choose(&mut self, logits: &mut [f32], step: u32) -> Result<u32, EngineError> {
        check_finite(logits, step)?;
        let penalty = self.sampling.repetition_penalty as f32;
        if penalty != 1.0 {
            for (logit, _) in logits.iter_mut().zip(&self.seen).filter(|(_, seen)| **seen) {
                *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            }
        }
        let id = if self.sampling.greedy {
            argmax(logits.iter().copied().enumerate())
        } else {
            let temperature = self.sampling.temperature as f32;
            logits.iter_mut().for_each(|logit| *logit /= temperature);
            let least = threshold(&self.sampling, logits);
            let kept = logits.iter().copied().enumerate().filter(|(_, logit)| *logit >= least);
            argmax(kept.map(|(id, logit)| (id, logit + gumbel(self.sampling.seed, step, id))))
        };
        if let Some(seen) = self.seen.get_mut(id) {
            *seen = true;
        }
        Ok(id as u32)
    }
}

/// # Errors
/// Names the first NaN or infinity.
pub fn check_finite(logits: &[f32], step: u32) -> Result<(), EngineError> {
    match logits.iter().position(|logit| !logit.is_finite()) {
        None => Ok(()),
        Some(id) => Err(non_finite(format!("the logit of token {id} is {}", logits[id]), step)),
    }
}

/// The error for logits that are not numbers.
pub fn non_finite(what: String, step: u32) -> EngineError {
    EngineError::new(
        FailureKind::NonFiniteLogits,
        format!(
            "{what} at step {step}: the weights are damaged, or the model overflows in this dtype; \
             verify the checkpoint, or try dtype f32"
        ),
    )
}

/// The least logit that the filters keep; equals of the last token kept are kept too.
fn threshold(sampling: &Sampling, logits: &[f32]) -> f32 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut least = f32::NEG_INFINITY;
    if let Some(k) = sampling.top_k.map(|k| k as usize).filter(|k| *k < logits.len()) {
        let mut values = logits.to_vec();
        let (_, kth, _) = values.select_nth_unstable_by(k.max(1) - 1, |a, b| b.total_cmp(a));
        least = *kth;
    }
    if sampling.top_p < 1.0 {
        least = least.max(nucleus(logits, least, largest, sampling.top_p));
    }
    if let Some(min_p) = sampling.min_p.filter(|p| *p > 0.0) {
        least = least.max(largest + min_p.ln() as f32);
    }
    least.min(largest)
}

/// The least logit of the smallest set of likeliest tokens, among those from `least` on, whose
/// probability reaches `top_p`.
fn nucleus(logits: &[f32], least: f32, largest: f32, top_p: f64) -> f32 {
    let mut kept: Vec<f32> = logits.iter().copied().filter(|logit| *logit >= least).collect();
    let weight = |logit: f32| f64::from(logit - largest).exp();
    let wanted = top_p * kept.iter().map(|logit| weight(*logit)).sum::<f64>();
    // A few tokens mostly suffice, so the vocabulary is sorted only as far as needed.
    let mut sorted = 0;
    let mut reached = 0.0;
    while sorted < kept.len() {
        let end = (8 * sorted).max(64).min(kept.len());
        if end < kept.len() {
            kept[sorted..].select_nth_unstable_by(end - sorted, |a, b| b.total_cmp(a));
        }
        kept[sorted..end].sort_unstable_by(|a, b| b.total_cmp(a));
        for logit in &kept[sorted..end] {
            reached += weight(*logit);
            if reached >= wanted {
                return *logit;
            }
        }
        sorted = end;
    }
    least
}

/// The id of the largest value; of equals the lowest id.
fn argmax(values: impl Iterator<Item = (usize, f32)>) -> usize {
    let mut best = (0, f32::NEG_INFINITY);
    for (id, value) in values {
        if value > best.1 {
            best = (id, value);
        }
    }
    best.0
}

/// Standard Gumbel noise of a token at a step.
fn gumbel(seed: u64, step: u32, id: usize) -> f32 {
    let word = philox([id as u32 / 4, step, 0, 0], seed)[id % 4];
    let uniform = (word as f32 + 0.5) * 2f32.powi(-32);
    // Minus the logarithm of an exponential variate; small variates keep their resolution.
    -(-(-uniform).ln_1p()).ln()
}

/// Philox4x32 with ten rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC11).
fn philox(mut counter: [u32; 4], key: u64) -> [u32; 4] {
    let (mut k0, mut k1) = (key as u32, (key >> 32) as u32);
    let halves = |a: u32, b: u32| {
        let product = u64::from(a) * u64::from(b);
        ((product >> 32) as u32, product as u32)
    };
    for _ in 0..10 {
        let (high0, low0) = halves(0xd251_1f53, counter[0]);
        let (high1, low1) = halves(0xcd9e_8d57, counter[2]);
        counter = [high1 ^ counter[1] ^ k0, low1, high0 ^ counter[3] ^ k1, low0];
        k0 = k0.wrapping_add(0x9e37_79b9);
        k1 = k1.wrapping_add(0xbb67_ae85);
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sampling() -> Sampling {
        Sampling {
            greedy: false,
            temperature: 1.0,
            top_p: 1.0,
            top_k: None,
            min_p: None,
            repetition_penalty: 1.0,
            seed: 7,
        }
    }

    /// How often each token is drawn over many steps.
    fn draws(sampling: &Sampling, logits: &[f32], steps: u32) -> Vec<f64> {
        let mut counts = vec![0.0; logits.len()];
        let mut sampler = Sampler::new(sampling, logits.len(), &[]);
        for step in 0..steps {
            let id = sampler.choose(&mut logits.to_vec(), step).expect("finite");
            counts[id as usize] += 1.0 / f64::from(steps);
        }
        counts
    }

    #[test]
    fn philox_matches_the_published_vectors() {
        // Random123's known-answer test of philox4x32-10.
        let zeros = philox([0; 4], 0);
        assert_eq!(zeros, [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        let ones = philox([u32::MAX; 4], u64::MAX);
        assert_eq!(ones, [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    }

    #[test]
    fn draws_follow_the_softmax() {
        let logits = [1.0f32, 0.0, 2.0, -1.0, 0.5];
        let total: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
        for temperature in [1.0, 0.5] {
            let warm = Sampling { temperature, ..sampling() };
            let total: f64 = if temperature == 1.0 {
                total
            } else {
                logits.iter().map(|l| f64::from(*l / 0.5).exp()).sum()
            };
            for (found, logit) in draws(&warm, &logits, 20_000).iter().zip(logits) {
                let expected = (f64::from(logit) / temperature).exp() / total;
                assert!((found - expected).abs() < 0.012, "{found} {expected}");
            }
        }
    }

    #[test]
    fn filters_keep_what_transformers_keeps() {
        // Probabilities 0.5, 0.3, 0.15, 0.05.
        let logits: Vec<f32> = [0.5f32, 0.3, 0.15, 0.05].iter().map(|p| p.ln()).collect();
        let kept = |s: Sampling| {
            let least = threshold(&s, &logits);
            logits.iter().filter(|logit| **logit >= least).count()
        };
        assert_eq!(kept(sampling()), 4);
        assert_eq!(kept(Sampling { top_k: Some(2), ..sampling() }), 2);
        assert_eq!(kept(Sampling { top_k: Some(9), ..sampling() }), 4);
        // 0.5 < 0.6 <= 0.8: the token that crosses the border is kept.
        assert_eq!(kept(Sampling { top_p: 0.6, ..sampling() }), 2);
        assert_eq!(kept(Sampling { top_p: 1e-9, ..sampling() }), 1);
        assert_eq!(kept(Sampling { min_p: Some(0.25), ..sampling() }), 3);
        assert_eq!(kept(Sampling { min_p: Some(1.0), ..sampling() }), 1);
        // top-p acts on what top-k left, renormalised: 0.5 / 0.8 = 0.625 >= 0.6.
        assert_eq!(kept(Sampling { top_k: Some(2), top_p: 0.6, ..sampling() }), 1);
    }

    #[test]
    fn a_penalty_divides_positive_and_multiplies_negative_logits_of_what_was_seen() {
        let greedy = Sampling { greedy: true, repetition_penalty: 2.0, ..sampling() };
        let mut sampler = Sampler::new(&greedy, 3, &[0]);
        let mut logits = vec![3.0, 2.0, -1.0];
        assert_eq!(sampler.choose(&mut logits, 0).expect("finite"), 1);
        assert_eq!(logits, [1.5, 2.0, -1.0]);
        // The choice itself counts as seen from then on.
        let mut logits = vec![3.0, 2.0, -1.0];
        assert_eq!(sampler.choose(&mut logits, 1).expect("finite"), 0);
        assert_eq!(logits, [1.5, 1.0, -1.0]);
        let mut sampler = Sampler::new(&greedy, 2, &[1]);
        let mut logits = vec![-1.5, -1.0];
        assert_eq!(sampler.choose(&mut logits, 0).expect("finite"), 0);
        assert_eq!(logits, [-1.5, -2.0]);
    }

    #[test]
    fn what_is_no_number_is_an_error_and_never_a_token() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for greedy in [true, false] {
                let mut sampler = Sampler::new(&Sampling { greedy, ..sampling() }, 3, &[]);
                let error = sampler.choose(&mut [0.0, bad, 1.0], 4).expect_err("not a number");
                assert_eq!(error.kind(), FailureKind::NonFiniteLogits);
                assert!(error.report().contains("token 1") && error.report().contains("step 4"));
            }
        }
    }

    proptest! {
        #[test]
        fn a_step_repeats_whatever_came_before(
            seed in any::<u64>(),
            step in 0u32..5000,
            logits in prop::collection::vec(-20f32..20.0, 1..300),
            top_p in 0.01f64..1.0,
        ) {
            let settings = Sampling { seed, top_p, ..sampling() };
            let mut fresh = Sampler::new(&settings, logits.len(), &[]);
            let first = fresh.choose(&mut logits.clone(), step).expect("finite");
            let mut used = Sampler::new(&settings, logits.len(), &[0]);
            for earlier in 0..3 {
                used.choose(&mut logits.clone(), earlier).expect("finite");
            }
            prop_assert_eq!(first, used.choose(&mut logits.clone(), step).expect("finite"));
        }

        #[test]
        fn the_nucleus_is_the_smallest_set_that_reaches_top_p(
            logits in prop::collection::vec(-8f32..8.0, 1..700),
            top_p in 0.01f64..0.999,
        ) {
            let settings = Sampling { top_p, ..sampling() };
            let least = threshold(&settings, &logits);
            let weight = |l: f32| f64::from(l).exp();
            let total: f64 = logits.iter().map(|l| weight(*l)).sum();
            let kept: f64 = logits.iter().filter(|l| **l >= least).map(|l| weight(*l)).sum();
            let above: f64 = logits.iter().filter(|l| **l > least).map(|l| weight(*l)).sum();
            prop_assert!(kept >= top_p * total * (1.0 - 1e-9));
            prop_assert!(above < top_p * total * (1.0 + 1e-9));
        }

        #[test]
        fn a_draw_is_always_a_token_that_is_kept(
            logits in prop::collection::vec(-8f32..8.0, 2..200),
            k in 1u32..20,
            step in 0u32..100,
        ) {
            let settings = Sampling { top_k: Some(k), ..sampling() };
            let id = Sampler::new(&settings, logits.len(), &[]).choose(&mut logits.clone(), step);
            let chosen = logits[id.expect("finite") as usize];
            let larger = logits.iter().filter(|l| **l > chosen).count();
            prop_assert!(larger < k as usize);
        }
    }
}
