//! From verdicts to rates: how often outputs pass, and pass@k of a suite's tasks.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Check, Verdict};
use crate::stats::{Stat, pass_at_k};

/// How often one check ended how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckCount {
    /// The check's name.
    pub check: String,
    /// Outputs that passed it.
    pub pass: usize,
    /// Outputs that failed it.
    pub fail: usize,
    /// Outputs on which it could not run.
    pub not_run: usize,
}

impl CheckCount {
    /// The counts with their verdicts.
    pub fn by_verdict(&self) -> [(Verdict, usize); 3] {
        [(Verdict::Pass, self.pass), (Verdict::Fail, self.fail), (Verdict::NotRun, self.not_run)]
    }
}

/// The ends of checks by name, in the order in which the checks run.
pub fn count<'c>(checks: impl IntoIterator<Item = &'c Check>) -> Vec<CheckCount> {
    let mut counts: Vec<CheckCount> = Vec::new();
    for check in checks {
        let at = counts.iter().position(|count| count.check == check.name).unwrap_or_else(|| {
            let check = check.name.clone();
            counts.push(CheckCount { check, pass: 0, fail: 0, not_run: 0 });
            counts.len() - 1
        });
        match check.verdict {
            Verdict::Pass => counts[at].pass += 1,
            Verdict::Fail => counts[at].fail += 1,
            Verdict::NotRun => counts[at].not_run += 1,
        }
    }
    counts
}

/// Share of outputs that pass, with its Wilson interval; outputs of which nothing is known are left
/// out.
pub fn pass_rate(passes: impl IntoIterator<Item = Option<bool>>) -> Option<Stat> {
    let known: Vec<bool> = passes.into_iter().flatten().collect();
    Stat::rate(known.iter().filter(|passes| **passes).count(), known.len())
}

/// pass@k for k of 1, 5, 10 and the number of samples, over the tasks of a suite. Each item is a
/// task and whether one of its samples passes. A task counts with the unbiased estimate from its
/// own samples; the interval is over the tasks, and Wilson's where all tasks agree.
pub fn suite<'a>(samples: impl IntoIterator<Item = (&'a str, bool)>) -> BTreeMap<usize, Stat> {
    let mut tasks: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (task, passes) in samples {
        let (n, passed) = tasks.entry(task).or_default();
        *n += 1;
        *passed += usize::from(passes);
    }
    // Every task must have as many samples as k, or the figures would be of unlike tasks.
    let Some(fewest) = tasks.values().map(|(n, _)| *n).min() else { return BTreeMap::new() };
    [1, 5, 10, fewest]
        .into_iter()
        .filter(|k| *k <= fewest)
        .filter_map(|k| {
            let scores: Vec<f64> =
                tasks.values().filter_map(|(n, passed)| pass_at_k(*n, *passed, k)).collect();
            Some((k, over_tasks(&scores)?))
        })
        .collect()
}

fn over_tasks(scores: &[f64]) -> Option<Stat> {
    for (agreed, passes) in [(0.0, 0), (1.0, scores.len())] {
        if scores.iter().all(|score| *score == agreed) {
            return Stat::rate(passes, scores.len());
        }
    }
    let stat = Stat::of(scores.iter().copied())?;
    let within = |end: Option<f64>| end.map(|end| end.clamp(0.0, 1.0));
    Some(Stat { low: within(stat.low), high: within(stat.high), ..stat })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_does_not_count() {
        let rate = pass_rate([Some(true), None, Some(false), Some(true), None]).expect("a rate");
        assert_eq!(rate.n, 3);
        assert!((rate.mean - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(pass_rate([None, None]), None);
    }

    #[test]
    fn tasks_count_alike_whatever_their_samples() {
        // c of n: 1 of 4, 4 of 4, 0 of 5.
        let samples = [("a", 4, 1), ("b", 4, 4), ("c", 5, 0)]
            .into_iter()
            .flat_map(|(task, n, c)| (0..n).map(move |i| (task, i < c)));
        let scores = suite(samples);
        assert_eq!(scores.keys().copied().collect::<Vec<_>>(), [1, 4]);
        assert!((scores[&1].mean - (0.25 + 1.0) / 3.0).abs() < 1e-12);
        assert!((scores[&4].mean - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(scores[&1].n, 3);
        assert!(scores[&1].low.unwrap() >= 0.0 && scores[&1].high.unwrap() <= 1.0);
        assert!(suite(std::iter::empty()).is_empty());
    }

    #[test]
    fn a_perfect_score_on_few_tasks_is_not_certain() {
        let scores = suite([("a", true), ("b", true), ("c", true)]);
        assert_eq!(scores[&1].mean, 1.0);
        assert!(scores[&1].low.unwrap() < 0.5, "{scores:?}");
    }
}
