//! A comparison as markdown for a pull request.

use std::fmt::Write;

use super::{Basis, Comparison, Difference, Missing};
use crate::report::render::escape::text;

/// Cells without a partner that are named; the rest is counted.
const NAMED: usize = 10;

/// The comparison as markdown.
pub fn render(comparison: &Comparison) -> String {
    let mut out = format!("## {} → {}\n\n", text(&comparison.a), text(&comparison.b));
    let regressions = comparison.differences.iter().filter(|d| d.regression).count();
    let verdict = match regressions {
        0 => "No regression.".to_owned(),
        1 => "**1 regression.**".to_owned(),
        n => format!("**{n} regressions.**"),
    };
    let pairs = match comparison.pairs {
        1 => "1 pair of cells".to_owned(),
        n => format!("{n} pairs of cells"),
    };
    let across = match comparison.across.as_slice() {
        [] => String::new(),
        fields => format!(", across {}", fields.join(", ")),
    };
    let _ = writeln!(
        out,
        "{verdict} {pairs}{across}. A regression is significant and worse by more than {} %.\n",
        comparison.threshold_pct
    );
    out.push_str(
        "| model | metric | A | B | change | 95 % interval | verdict \
    |\n|---|---|--:|--:|--:|---|---|\n",
    );
    for difference in &comparison.differences {
        row(&mut out, difference, comparison.margin_pct);
    }
    missing(&mut out, &comparison.missing);
    notes(&mut out, comparison);
    out
}

fn row(out: &mut String, d: &Difference, margin_pct: f64) {
    let unit = if d.points { "points" } else { "%" };
    let interval = match (d.low, d.high) {
        (Some(low), Some(high)) => format!("{low:+.1} … {high:+.1}"),
        _ => "none: single pair".to_owned(),
    };
    let verdict = match (d.regression, d.significant, d.basis) {
        (true, _, Basis::Interval) => "**regression**".to_owned(),
        (true, _, Basis::Margin) => format!("**regression** (single run, beyond {margin_pct} %)"),
        (false, true, Basis::Interval) => "significant".to_owned(),
        (false, true, Basis::Margin) => format!("single run, beyond {margin_pct} %"),
        (false, false, Basis::Interval) => "not significant".to_owned(),
        (false, false, Basis::Margin) => format!("single run, within {margin_pct} %"),
    };
    let _ = writeln!(
        out,
        "| {} | {} | {} | {} | {:+.1} {unit} | {interval} | {verdict} |",
        text(&d.variant),
        d.metric,
        figure(d.a),
        figure(d.b),
        d.change
    );
}

/// Small figures need more digits than large ones.
fn figure(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

fn missing(out: &mut String, missing: &[Missing]) {
    if missing.is_empty() {
        return;
    }
    let count = missing.len();
    let cells = if count == 1 { "cell has" } else { "cells have" };
    let _ = writeln!(out, "\n{count} {cells} no partner and count for nothing above:\n");
    for cell in missing.iter().take(NAMED) {
        let _ = writeln!(
            out,
            "- {}: done in {}, {} in {}",
            text(&cell.cell),
            text(&cell.done_in),
            cell.status,
            text(&cell.missing_in)
        );
    }
    if count > NAMED {
        let _ = writeln!(out, "- and {} more", count - NAMED);
    }
}

fn notes(out: &mut String, comparison: &Comparison) {
    let intervals = comparison.differences.iter().filter(|d| d.basis == Basis::Interval).count();
    out.push_str(
        "\nSpeed, memory and energy: geometric mean of B / A over the pairs; quality: \
    mean difference. ",
    );
    out.push_str(
        "Intervals: the wider of a percentile bootstrap (2,000 resamples, fixed seed) and \
        Student's t; from five prompts on over the means of each prompt, else over the pairs, and \
        then valid for these prompts only.",
    );
    if intervals > 1 {
        let expected = intervals as f64 * 0.05;
        let _ = write!(
            out,
            " {intervals} intervals at 95 %: were A and B the same, about {expected:.1} of them \
            would still exclude no change."
        );
    }
    out.push('\n');
}
