//! By what outputs are judged: people's stars, executed checks, or machine evidence.

use std::collections::BTreeSet;

use crate::check;
use crate::report::model::{CellFacts, Measure};
use crate::review::Review;
use crate::sweep::ReportRules;

/// The best measure that every variant with an output has. `judged`: the finished cells of the
/// variants about which something may be concluded.
pub fn measure<'c>(judged: impl Iterator<Item = &'c CellFacts> + Clone) -> Measure {
    let variants: BTreeSet<&str> = judged.clone().map(|c| c.variant.as_str()).collect();
    let all = |has: &dyn Fn(&CellFacts) -> bool| {
        variants.iter().all(|v| judged.clone().any(|c| c.variant == **v && has(c)))
    };
    if variants.is_empty() {
        Measure::None
    } else if all(&|cell| stars(cell).is_some()) {
        Measure::Stars
    } else if all(&|cell| check_passes(cell).is_some()) {
        Measure::PassRate
    } else if all(&|cell| evidence(cell).is_some()) {
        Measure::Evidence
    } else {
        Measure::None
    }
}

/// Mean over the reviewers.
pub fn stars(cell: &CellFacts) -> Option<f64> {
    let given: Vec<f64> = cell.reviews.iter().filter_map(Review::mean_stars).collect();
    (!given.is_empty()).then(|| crate::stats::mean(&given))
}

/// What executing the output says; unknown where a check could not run.
pub fn check_passes(cell: &CellFacts) -> Option<bool> {
    check::passes(&cell.checks)
}

/// The rubric's share, for an answer that is whole and parses.
pub fn evidence(cell: &CellFacts) -> Option<f64> {
    let analysis = cell.analysis.as_ref()?;
    let coverage = analysis.coverage?;
    let whole = analysis.complete && analysis.parses == Some(true);
    Some(if whole { coverage } else { 0.0 })
}

/// The value of a cell in terms of a measure.
pub fn quality(cell: &CellFacts, measure: Measure) -> Option<f64> {
    match measure {
        Measure::Stars => stars(cell),
        Measure::PassRate => check_passes(cell).map(|passes| f64::from(u8::from(passes))),
        Measure::Evidence => evidence(cell),
        Measure::None => None,
    }
}

/// Whether an output can be used: checks decide where they ran, then stars, then evidence.
pub fn passes(cell: &CellFacts, measure: Measure, rules: &ReportRules) -> Option<bool> {
    check_passes(cell).or_else(|| match measure {
        Measure::Stars => stars(cell).map(|stars| stars >= rules.min_stars),
        Measure::PassRate => None,
        Measure::Evidence => evidence(cell).map(|share| share >= rules.min_evidence),
        Measure::None => None,
    })
}
