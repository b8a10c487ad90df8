//! `report.md`: the metrics table, what was truncated and what failed, and the formulas below it.

use std::fmt::Write;

use bakeoff_proto::FinishReason;

use crate::collect::{Collected, Row};

/// The whole report.
pub fn render_markdown(collected: &Collected) -> String {
    let sweep = &collected.plan.sweep;
    let mut out = format!("# {}\n\n{}.\n\n", sweep.name, collected.counts());
    metrics_table(&mut out, collected);
    truncations(&mut out, collected);
    failures(&mut out, collected);
    notes(&mut out, collected);
    out.push_str(FORMULAS);
    out
}

fn metrics_table(out: &mut String, collected: &Collected) {
    out.push_str(
        "## Metrics\n\n\
         | model | prompt | run | status | flash attn | tokens | tok/s | time s | model GB | GPU free GB | TTFT ms | TPOT ms | decode tok/s | roofline % | finish |\n\
         |---|---|--:|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|\n",
    );
    for row in &collected.rows {
        let fields = match collected.record(row) {
            Some(record) => {
                let m = &record.metrics;
                let optional = |value: Option<f64>, digits: usize| {
                    value.map_or_else(|| "–".to_owned(), |v| format!("{v:.digits$}"))
                };
                vec![
                    if m.flash_attn { "yes" } else { "no" }.to_owned(),
                    m.tokens_generated.to_string(),
                    format!("{:.1}", m.tok_per_s),
                    format!("{:.2}", m.time_s),
                    format!("{:.3}", m.model_memory_gb),
                    optional(m.gpu_free_gb, 1),
                    format!("{:.1}", m.ttft_ms),
                    optional(m.tpot_ms, 2),
                    optional(m.decode_tok_s, 1),
                    optional(m.roofline_pct, 0),
                    record.output.finish_reason.as_str().to_owned(),
                ]
            }
            None => vec!["–".to_owned(); 11],
        };
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} |",
            cell(&model_name(collected, row)),
            cell(&row.prompt_id),
            row.run,
            row.status.as_str(),
            fields.join(" | ")
        );
    }
    out.push('\n');
}

/// The model, with the engine where one model has several.
fn model_name(collected: &Collected, row: &Row) -> String {
    let engines = |name: &str| {
        collected.plan.sweep.models.iter().find(|m| m.name == name).map_or(1, |m| m.engines.len())
    };
    match engines(&row.model) {
        0 | 1 => row.model.clone(),
        _ => format!("{} ({})", row.model, row.engine.as_str()),
    }
}

fn truncations(out: &mut String, collected: &Collected) {
    let truncated: Vec<_> = collected
        .rows
        .iter()
        .filter_map(|row| Some((row, collected.record(row)?)))
        .filter(|(_, record)| record.output.finish_reason == FinishReason::Length)
        .collect();
    if truncated.is_empty() {
        return;
    }
    out.push_str("## Truncated\n\nThese reached `max_new_tokens`: their output is cut off, and their quality cannot be judged from it.\n\n");
    for (row, record) in truncated {
        let thinking = match record.output.think_closed {
            Some(false) => ", while still thinking",
            Some(true) | None => "",
        };
        let _ = writeln!(
            out,
            "- {}, prompt {}, run {}: {} tokens{thinking}",
            inline(&row.model),
            row.prompt_id,
            row.run,
            record.metrics.tokens_generated
        );
    }
    out.push('\n');
}

fn failures(out: &mut String, collected: &Collected) {
    let failed: Vec<_> =
        collected.rows.iter().filter_map(|row| Some((row, collected.failure(row)?))).collect();
    if failed.is_empty() {
        return;
    }
    out.push_str("## Failed and cancelled\n\n");
    for (row, failure) in failed {
        let _ = writeln!(
            out,
            "- {}, prompt {}, run {}: `{}` after {} attempts: {}",
            inline(&row.model),
            row.prompt_id,
            row.run,
            failure.kind.as_str(),
            failure.attempts,
            inline(&failure.message)
        );
    }
    out.push('\n');
}

fn notes(out: &mut String, collected: &Collected) {
    let mismatches = collected.records.values().flat_map(|record| &record.mismatches);
    let lines: Vec<_> = collected.problems.iter().chain(mismatches).collect();
    if lines.is_empty() {
        return;
    }
    out.push_str("## To be looked at\n\n");
    for line in lines {
        let _ = writeln!(out, "- {}", inline(line));
    }
    out.push('\n');
}

const FORMULAS: &str = "\
## How the figures are made

- time: from the prompt's token ids handed to the engine to the last token on the host; the device is synchronised first.
- tok/s: tokens generated / time, prefill included. Tokens count the end-of-sequence token.
- TTFT: the same start to the first token on the host. TPOT: (time − TTFT) / (tokens − 1), undefined for one token. Decode tok/s: 1000 / TPOT.
- roofline: decode tok/s over its bound, which is the read bandwidth measured in the same process / bytes read per token.
- GB is 10^9 bytes. Each job warms up with one generation of 32 tokens that is not counted.
";

fn inline(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect::<String>()
        .replace('<', "&lt;")
}

fn cell(text: &str) -> String {
    inline(text).replace('|', "\\|")
}
