//! By what outputs are judged: behaviour under test, else people's stars, else machine evidence.

use std::collections::BTreeSet;

use crate::check::{self, Check};
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
    } else if all(&|cell| cell.behaviour.is_some()) {
        Measure::PassRate
    } else if all(&|cell| stars(cell).is_some()) {
        Measure::Stars
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

/// What the tests of an output say; unknown where none could run. `tested`: the sweep puts this
/// prompt's outputs to a test. To compile and to import are preconditions: they alone prove nothing.
pub fn behaviour(checks: &[Check], tested: bool) -> Option<bool> {
    tested.then(|| check::passes(checks)).flatten()
}

/// The rubric's share, for an answer that is whole, parses, and fails no check.
pub fn evidence(cell: &CellFacts) -> Option<f64> {
    let analysis = cell.analysis.as_ref()?;
    let coverage = analysis.coverage?;
    let whole = analysis.complete
        && analysis.parses == Some(true)
        && check::passes(&cell.checks) != Some(false);
    Some(if whole { coverage } else { 0.0 })
}

/// The value of a cell in terms of a measure.
pub fn quality(cell: &CellFacts, measure: Measure) -> Option<f64> {
    match measure {
        Measure::Stars => stars(cell),
        Measure::PassRate => cell.behaviour.map(|passes| f64::from(u8::from(passes))),
        Measure::Evidence => evidence(cell),
        Measure::None => None,
    }
}

/// Whether an output can be used: not if a check fails, compile and import included; yes if its
/// tests pass; else stars decide, then evidence.
pub fn passes(cell: &CellFacts, measure: Measure, rules: &ReportRules) -> Option<bool> {
    if check::passes(&cell.checks) == Some(false) {
        return Some(false);
    }
    cell.behaviour.or_else(|| match measure {
        Measure::Stars => stars(cell).map(|stars| stars >= rules.min_stars),
        Measure::Evidence => evidence(cell).map(|share| share >= rules.min_evidence),
        Measure::PassRate | Measure::None => None,
    })
}
