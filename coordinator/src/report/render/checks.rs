//! What executing the outputs found, by variant.

use std::fmt::Write;

use super::escape::text;
use crate::check::score::CheckCount;
use crate::report::model::{Report, Variant};
use crate::stats::Stat;

/// The section of `report.md`; nothing where nothing was executed.
pub fn section(report: &Report) -> String {
    if report.variants.iter().all(|v| v.checks.is_empty()) {
        return String::new();
    }
    let mut out = "## Checks by execution\n\n| model | checks | outputs that pass | pass@k | per \
    passing output |\n|---|---|---|---|--:|\n"
        .to_owned();
    for v in &report.variants {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} |",
            text(&v.name),
            text(&words(&v.checks)),
            v.pass_rate
                .map_or_else(|| "–".to_owned(), |rate| format!("{} of {}", share(&rate), rate.n)),
            pass_at_k(v),
            per_passing(report, v)
        );
    }
    out.push_str(
        "\nWhat was not run, for want of a third-party module say, counts neither way. \
    Intervals: 95 %.\n\n",
    );
    out
}

fn words(counts: &[CheckCount]) -> String {
    let one = |count: &CheckCount| {
        let ran = count.pass + count.fail;
        let open =
            if count.not_run > 0 { format!(" ({} not run)", count.not_run) } else { String::new() };
        format!("{} {} of {ran}{open}", count.check, count.pass)
    };
    if counts.is_empty() {
        "–".to_owned()
    } else {
        counts.iter().map(one).collect::<Vec<_>>().join(", ")
    }
}

fn share(rate: &Stat) -> String {
    let percent = |value: f64| format!("{:.0}", value * 100.0);
    match (rate.low, rate.high) {
        (Some(low), Some(high)) => {
            format!("{} % ({}–{})", percent(rate.mean), percent(low), percent(high))
        }
        _ => format!("{} %", percent(rate.mean)),
    }
}

fn pass_at_k(v: &Variant) -> String {
    let scores: Vec<_> =
        v.pass_at_k.iter().map(|(k, score)| format!("pass@{k} {}", share(score))).collect();
    match v.pass_at_k.values().next() {
        Some(score) => format!("{}, {} tasks", scores.join(", "), score.n),
        None => "–".to_owned(),
    }
}

fn per_passing(report: &Report, v: &Variant) -> String {
    match (v.cost_per_passing, v.gpu_s_per_passing) {
        (Some(cost), _) => format!("{cost:.4} {}", report.rules.currency),
        (None, Some(seconds)) => format!("{seconds:.2} GPU-s"),
        (None, None) => "–".to_owned(),
    }
}
