//! `report.md`: the report where only text is read. What models and people wrote is escaped, so
//! that no output becomes markup.

use std::fmt::Write;

use super::checks;
use super::escape::text;
use crate::report::model::{Report, Variant};
use crate::stats::Stat;

/// The whole report.
pub fn render(report: &Report) -> String {
    let mut out = format!(
        "# {}\n\n{} of {} generations done. Quality by {}.\n\n",
        text(&report.sweep),
        report.cells_done,
        report.cells_planned,
        report.measure.words()
    );
    recommendations(&mut out, report);
    warnings(&mut out, report);
    matrix(&mut out, report);
    out.push_str(&checks::section(report));
    metrics(&mut out, report);
    insights(&mut out, report);
    sizing(&mut out, report);
    cells(&mut out, report);
    environment(&mut out, report);
    out.push_str(&formulas(report));
    out
}

fn recommendations(out: &mut String, report: &Report) {
    out.push_str(
        "## Recommendation\n\n| use | model | figures | how sure | rule |\n|---|---|---|---|---|\n",
    );
    for r in &report.recommendations {
        let tied: Vec<_> = r.tied.iter().map(|(name, _)| format!("**{}**", text(name))).collect();
        let model = match &r.variant {
            Some(variant) => format!("**{}**", text(variant)),
            None if tied.is_empty() => "none".to_owned(),
            None => tied.join(" or "),
        };
        let caveats = if r.caveats.is_empty() {
            String::new()
        } else {
            format!(" ({})", text(&r.caveats.join(", ")))
        };
        let figures: Vec<_> =
            r.figures.iter().map(|f| format!("{} {}", f.label, text(&f.value))).collect();
        let _ = writeln!(
            out,
            "| {} | {model}{caveats} | {} | {} | {} |",
            r.use_case,
            figures.join("; "),
            text(&r.because),
            text(&r.rule)
        );
    }
    out.push('\n');
}

fn warnings(out: &mut String, report: &Report) {
    if report.warnings.is_empty() {
        return;
    }
    out.push_str("## Before you trust these numbers\n\n");
    for warning in &report.warnings {
        let _ = writeln!(out, "- {}", text(&warning.text));
    }
    out.push('\n');
}

fn matrix(out: &mut String, report: &Report) {
    out.push_str(
        "## Quality and performance\n\n| model | quality | tok/s | usable | readiness | \
    best use |\n|---|---|--:|--:|---|---|\n",
    );
    for v in &report.variants {
        let quality = match (v.invalid, v.quality) {
            (Some(invalid), _) => format!("not judged: {}", invalid.words()),
            (None, Some(quality)) => report.measure.show(quality.mean),
            (None, None) => "–".to_owned(),
        };
        let usable = match v.invalid {
            Some(_) => "–".to_owned(),
            None => format!("{} of {}", v.passing, v.done),
        };
        let pass: Vec<_> =
            v.pass_at_k.iter().map(|(k, s)| format!("pass@{k} {:.0} %", s.mean * 100.0)).collect();
        let pass = if pass.is_empty() { String::new() } else { format!(", {}", pass.join(", ")) };
        let _ = writeln!(
            out,
            "| {} | {quality}{pass} | {} | {usable} | {} | {} |",
            text(&v.name),
            stat(v.tok_per_s, 1),
            v.readiness.map_or("–", |r| r.as_str()),
            text(&v.best_use.join("; "))
        );
    }
    out.push('\n');
}

fn metrics(out: &mut String, report: &Report) {
    out.push_str(
        "## Metrics\n\n| model | flash attn | tokens | tok/s | time s | model GB | GPU free GB | \
        TTFT ms | TPOT ms | decode tok/s | of bound % | J/token | finish | per M tokens | per \
        usable output |\n|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|--:|--:|\n",
    );
    for v in &report.variants {
        let _ = writeln!(out, "| {} |", metrics_row(report, v).join(" | "));
    }
    out.push_str("\nMeans with 95 % intervals where there are repeats. GB is 10^9 bytes.\n\n");
}

fn metrics_row(report: &Report, v: &Variant) -> Vec<String> {
    let number = |value: Option<f64>, digits: usize| {
        value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
    };
    let currency = &report.rules.currency;
    let finish = match (v.done, v.truncated) {
        (0, _) => "–".to_owned(),
        (done, 0) => format!("{done} stop"),
        (done, cut) => format!("{} stop, {cut} length", done - cut),
    };
    vec![
        text(&v.name),
        v.flash_attn.map_or("–", |on| if on { "yes" } else { "no" }).to_owned(),
        stat(v.tokens, 0),
        stat(v.tok_per_s, 1),
        stat(v.time_s, 2),
        number(v.model_memory_gb, if v.model_memory_gb.is_some_and(|gb| gb < 1.0) { 3 } else { 1 }),
        number(v.gpu_free_gb, 1),
        stat(v.ttft_ms, 0),
        stat(v.tpot_ms, 2),
        stat(v.decode_tok_s, 1),
        number(v.roofline_pct, 0),
        number(v.energy_j_per_token, 2),
        finish,
        v.cost_per_million_tokens.map_or_else(|| "–".to_owned(), |c| format!("{c:.2} {currency}")),
        match (v.cost_per_passing, v.gpu_s_per_passing) {
            (Some(cost), _) => format!("{cost:.4} {currency}"),
            (None, Some(seconds)) => format!("{seconds:.2} s"),
            (None, None) => "–".to_owned(),
        },
    ]
}

fn insights(out: &mut String, report: &Report) {
    if report.insights.is_empty() {
        return;
    }
    out.push_str("## Key insights\n\n");
    for i in &report.insights {
        let names: Vec<_> = i.rests_on.iter().map(|(name, _)| text(name)).collect();
        let _ =
            writeln!(out, "- **{}.** {} (rests on {})", i.title, text(&i.text), names.join(", "));
    }
    out.push('\n');
}

fn sizing(out: &mut String, report: &Report) {
    if report.variants.iter().all(|v| v.sizing.is_empty()) {
        return;
    }
    out.push_str(
        "## Sizing (predicted)\n\n| model | GPU | fits | sequences of 4,096 tokens | one \
    user, tok/s at most | all users, tok/s at most | price an hour \
    |\n|---|---|---|--:|--:|--:|--:|\n",
    );
    for v in &report.variants {
        for fit in &v.sizing {
            let number =
                |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |v| format!("{v:.0}"));
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {} | {} | {:.2} {} |",
                text(&v.name),
                fit.gpu,
                if fit.fits { "yes" } else { "no" },
                fit.sequences,
                number(fit.decode_tok_s),
                number(fit.total_tok_s),
                fit.price_per_hour,
                fit.currency
            );
        }
    }
    out.push_str(
        "\nPrices are assumptions until you have put your own into deploy/gpus.toml; \
    theirs are:\n\n",
    );
    for fit in report.variants.iter().find(|v| !v.sizing.is_empty()).iter().flat_map(|v| &v.sizing)
    {
        let _ = writeln!(
            out,
            "- {}: {:.2} {} an hour, {}",
            fit.gpu,
            fit.price_per_hour,
            fit.currency,
            text(&fit.price_source)
        );
    }
    out.push('\n');
}

fn cells(out: &mut String, report: &Report) {
    out.push_str(
        "## Generations\n\n| model | prompt | run | status | tokens | tok/s | finish | \
    complete | parses | rubric | usable | file or failure \
    |\n|---|---|--:|---|--:|--:|---|---|---|--:|---|---|\n",
    );
    let yes = |flag: Option<bool>| flag.map_or("–", |flag| if flag { "yes" } else { "no" });
    for c in &report.cells {
        let analysis = c.analysis.as_ref();
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            text(&c.variant),
            text(&c.prompt),
            c.run,
            c.status.as_str(),
            c.metrics.as_ref().map_or_else(|| "–".to_owned(), |m| m.tokens_generated.to_string()),
            c.metrics.as_ref().map_or_else(|| "–".to_owned(), |m| format!("{:.1}", m.tok_per_s)),
            c.finish.map_or("–", |f| f.as_str()),
            yes(analysis.map(|a| a.complete)),
            yes(analysis.and_then(|a| a.parses)),
            analysis
                .and_then(|a| a.coverage)
                .map_or_else(|| "–".to_owned(), |c| format!("{:.0} %", c * 100.0)),
            yes(c.passes),
            text(c.failure.as_deref().or(c.document.as_deref()).unwrap_or("–"))
        );
    }
    out.push('\n');
}

fn environment(out: &mut String, report: &Report) {
    if report.environment.is_empty() {
        return;
    }
    out.push_str("## Environment\n\n| | |\n|---|---|\n");
    for fact in &report.environment {
        let _ = writeln!(out, "| {} | {} |", fact.name, text(&fact.values.join(", ")));
    }
    out.push('\n');
}

fn formulas(report: &Report) -> String {
    format!(
        "## Formulas\n\n\
         - tok/s: tokens generated over the time from the prompt's tokens at the engine to the last token on the host, prefill included.\n\
         - TTFT: time to the first token. TPOT: (time − TTFT) / (tokens − 1), or 1000 / (tok/s) where no step was timed. decode tok/s: 1000 / TPOT.\n\
         - of bound: decode tok/s over its bound, read bandwidth measured in the same process / bytes read for a token.\n\
         - intervals: 95 %, the wider of the percentile bootstrap (2,000 resamples, fixed seed) and Student's t, of shares Wilson's; differences are paired by prompt and run; a single pair counts beyond {:.0} %.\n\
         - usable: fails no check, and passes its tests where there are tests; else reaches {:.1} stars; else is complete, parses and shows {:.0} % of the rubric.\n\
         - cost: price of a GPU-hour × generation time; loading is left out.\n\
         - sizing: bandwidth / weight bytes read for a token; memory − 4.5 GB − weights, over the keys and values of 4,096 tokens.\n",
        report.rules.margin_pct,
        report.rules.min_stars,
        report.rules.min_evidence * 100.0
    )
}

fn stat(stat: Option<Stat>, digits: usize) -> String {
    match stat {
        None => "–".to_owned(),
        Some(Stat { mean, low: Some(low), high: Some(high), .. }) if high > low => {
            // What is measured is never below zero; an interval of few repeats may reach there.
            let low = low.max(0.0);
            format!("{mean:.digits$} ({low:.digits$}–{high:.digits$})")
        }
        Some(stat) => format!("{:.digits$}", stat.mean),
    }
}
