//! The changes of one figure over the pairs, and what they prove.

use std::collections::BTreeMap;

use super::{Basis, Difference};
use crate::stats::{self, mean};

/// From so many prompts on, the prompts are the sample: their means stand for the pairs.
const PROMPTS_AS_SAMPLE: usize = 5;

/// How changes are computed and shown.
#[derive(Debug, Clone, Copy)]
pub enum Scale {
    /// By ratios, taken as logarithms.
    Percent { higher_is_better: bool },
    /// By differences, since quality can be zero; `full` is the best that there is.
    Points { full: f64 },
}

#[derive(Debug, Clone, Copy)]
pub struct Rules {
    pub threshold_pct: f64,
    pub margin_pct: f64,
}

/// The changes of one figure of one model.
pub struct Sample {
    a: f64,
    b: f64,
    pairs: usize,
    /// Mean change, on the scale that the pairs were taken to.
    change: f64,
    interval: Option<(f64, f64)>,
}

impl Sample {
    pub fn new<'p>(
        values: impl Iterator<Item = (&'p str, f64, f64)>,
        change: impl Fn(f64, f64) -> f64,
    ) -> Option<Self> {
        let values: Vec<_> = values.collect();
        if values.is_empty() {
            return None;
        }
        let mut by_prompt: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for (prompt, x, y) in &values {
            by_prompt.entry(prompt).or_default().push(change(*x, *y));
        }
        let units: Vec<f64> = if by_prompt.len() >= PROMPTS_AS_SAMPLE {
            by_prompt.values().map(|changes| mean(changes)).collect()
        } else {
            by_prompt.into_values().flatten().collect()
        };
        Some(Self {
            a: mean(&values.iter().map(|v| v.1).collect::<Vec<_>>()),
            b: mean(&values.iter().map(|v| v.2).collect::<Vec<_>>()),
            pairs: values.len(),
            change: mean(&units),
            interval: stats::interval(&units),
        })
    }

    pub fn difference(
        &self,
        variant: &str,
        metric: &str,
        scale: Scale,
        rules: Rules,
    ) -> Difference {
        let shown = |change: f64| match scale {
            Scale::Percent { .. } => (change.exp() - 1.0) * 100.0,
            Scale::Points { .. } => change,
        };
        let figure = |value: f64| match scale {
            Scale::Percent { .. } => value,
            Scale::Points { full } => value / full * 100.0,
        };
        let change = shown(self.change);
        let interval = self.interval.map(|(low, high)| (shown(low), shown(high)));
        let (basis, significant) = match interval {
            Some((low, high)) => (Basis::Interval, low > 0.0 || high < 0.0),
            None => (Basis::Margin, change.abs() > rules.margin_pct),
        };
        let worse = match scale {
            Scale::Percent { higher_is_better: false } => change,
            Scale::Percent { higher_is_better: true } | Scale::Points { .. } => -change,
        };
        Difference {
            variant: variant.to_owned(),
            metric: metric.to_owned(),
            a: figure(self.a),
            b: figure(self.b),
            change,
            points: matches!(scale, Scale::Points { .. }),
            low: interval.map(|i| i.0),
            high: interval.map(|i| i.1),
            pairs: self.pairs,
            basis,
            significant,
            regression: significant && worse > rules.threshold_pct,
        }
    }
}
