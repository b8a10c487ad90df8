//! What a reader must know before trusting a number.

use std::collections::{BTreeMap, BTreeSet};

use bakeoff_model::LoadFormat;

use crate::collect::Collected;
use crate::report::model::{CellFacts, Invalid, Measure, Variant, Warning, WarningKind};

/// Beyond this share of its bound a model cannot have been read from memory: noise is below it.
pub const ABOVE_BOUND_PCT: f64 = 105.0;

pub fn find(
    collected: &Collected,
    variants: &[Variant],
    cells: &[CellFacts],
    measure: Measure,
) -> Vec<Warning> {
    let mut found = Vec::new();
    let mut warn = |kind: WarningKind, text: String| found.push(Warning { kind, text });
    for reason in Invalid::ALL {
        let of = |v: &&Variant| v.invalid == Some(reason);
        let names: Vec<_> = variants.iter().filter(of).map(|v| v.name.as_str()).collect();
        if !names.is_empty() {
            let text = format!("{}: not judged, {}.", names.join(", "), reason.words());
            warn(WarningKind::NotJudged, text);
        }
    }
    for v in variants {
        let name = &v.name;
        if v.truncated > 0 {
            let cap = v.tokens.map_or(0.0, |t| t.mean);
            warn(
                WarningKind::Truncated,
                format!(
                    "{name}: {} of {} outputs were cut off at the token limit ({cap:.0} tokens on \
                    average). What is missing is not the model's verdict: raise max_new_tokens \
                    before judging.",
                    v.truncated, v.done
                ),
            );
        }
        if v.think_unclosed > 0 {
            warn(
                WarningKind::ThinkingUnclosed,
                format!(
                    "{name}: {} of {} outputs end inside the thinking and hold no answer.",
                    v.think_unclosed, v.done
                ),
            );
        }
        if v.no_code > 0 {
            warn(
                WarningKind::NoCode,
                format!("{name}: {} of {} outputs hold no code.", v.no_code, v.done),
            );
        }
        if v.throttled > 0 {
            warn(
                WarningKind::Throttled,
                format!(
                    "{name}: the card throttled during {} of {} generations; their speeds are too \
                    low.",
                    v.throttled, v.done
                ),
            );
        }
        if let Some(percent) = v.roofline_pct.filter(|percent| *percent > ABOVE_BOUND_PCT) {
            warn(
                WarningKind::AboveBound,
                format!(
                    "{name}: {percent:.0} % of its bound. The weights are small enough to stay in \
                    a cache, so the memory's bandwidth does not bound it."
                ),
            );
        }
        if v.failed > 0 {
            warn(WarningKind::Failed, format!("{name}: {} of {} cells failed.", v.failed, v.cells));
        }
    }
    let single: Vec<_> =
        variants.iter().filter(|v| v.single_run && v.done > 0).map(|v| v.name.as_str()).collect();
    if !single.is_empty() {
        let who = if single.len() == variants.len() {
            "Every model".to_owned()
        } else {
            single.join(", ")
        };
        let margin = collected.plan.sweep.report.margin_pct;
        warn(
            WarningKind::SingleRun,
            format!(
                "{who}: a single run of each prompt. Nothing is known of the spread; differences \
                below {margin:.0} % are not taken for real."
            ),
        );
    }
    mixed_fingerprints(collected, &mut warn);
    let stars = cells.iter().filter(|c| !c.reviews.is_empty()).count();
    let done = cells.iter().filter(|c| c.is_done()).count();
    match measure {
        Measure::Evidence => warn(
            WarningKind::NoReview,
            "No person has reviewed these outputs: \
        quality below is machine evidence, not judgement."
                .to_owned(),
        ),
        Measure::Stars if stars < done => warn(
            WarningKind::PartlyReviewed,
            format!(
                "{stars} of \
        {done} outputs have been reviewed."
            ),
        ),
        Measure::Stars | Measure::PassRate | Measure::None => {}
    }
    dummy_weights(collected, &mut warn);
    mismatches(cells, &mut warn);
    for problem in &collected.problems {
        warn(WarningKind::Store, problem.clone());
    }
    found
}

/// Text of random weights is noise, however fast it came.
fn dummy_weights(collected: &Collected, warn: &mut impl FnMut(WarningKind, String)) {
    let random = |row: &&crate::collect::Row| {
        let settings = collected.record(row).map(|record| &record.engine_settings);
        settings.is_some_and(|settings| settings.load_format == LoadFormat::Dummy)
    };
    let names: BTreeSet<_> =
        collected.rows.iter().filter(random).map(|row| collected.variant_name(row)).collect();
    if !names.is_empty() {
        let names: Vec<_> = names.into_iter().collect();
        warn(
            WarningKind::DummyWeights,
            format!(
                "{}: random weights of the model's shape (load_format = \"dummy\"). Speed and \
                memory are the model's, the text and its quality are not.",
                names.join(", ")
            ),
        );
    }
}

/// One line for each model, with the first cell's figures.
fn mismatches(cells: &[CellFacts], warn: &mut impl FnMut(WarningKind, String)) {
    let mut by_variant: BTreeMap<&str, (usize, &[String])> = BTreeMap::new();
    for cell in cells.iter().filter(|cell| !cell.mismatches.is_empty()) {
        by_variant.entry(&cell.variant).or_insert((0, &cell.mismatches)).0 += 1;
    }
    for (variant, (count, first)) in by_variant {
        let times = if count == 1 { String::new() } else { format!(" (first of {count} cells)") };
        warn(WarningKind::Mismatch, format!("{variant}: {}{times}", first.join("; ")));
    }
}

/// Records of one report should come from one kind of machine and one build.
fn mixed_fingerprints(collected: &Collected, warn: &mut impl FnMut(WarningKind, String)) {
    let mut values: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for record in collected.records.values() {
        let f = &record.fingerprint;
        for (field, value) in
            [("device", &f.device), ("driver", &f.driver), ("build", &f.build), ("dtype", &f.dtype)]
        {
            values.entry(field).or_default().insert(value);
        }
    }
    for (field, values) in values.iter().filter(|(_, values)| values.len() > 1) {
        let values: Vec<_> = values.iter().copied().collect();
        warn(
            WarningKind::MixedFingerprints,
            format!(
                "The cells do not share one {field} ({}): their speeds do not compare.",
                values.join(", ")
            ),
        );
    }
}
