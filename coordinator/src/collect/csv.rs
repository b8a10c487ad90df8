//! The summary file: one header row, one row per planned cell, RFC 4180.
//!
//! No field holds a line break, so that line-based tools can read it, and none that came from
//! outside starts like a spreadsheet's formula.

use bakeoff_model::{ModelSource};
use bakeoff_proto::{Failure, Metrics, MetricsRecord};

use super::{Collected, Row};
use crate::check::{self, Check, CheckReport};

/// What a column is made from.
struct Context<'a> {
    row: &'a Row,
    record: Option<&'a MetricsRecord>,
    failure: Option<&'a Failure>,
    /// What executing the output found.
    checks: Vec<Check>,
}

type Column = (&'static str, fn(&Context<'_>) -> Option<String>);

/// Every column in order. The first seven are the ones the report's readers know from before.
const COLUMNS: &[Column] = &[
    ("model", |c| Some(text(&c.row.model))),
    ("flash_attn", |c| metric(c, |m| Some(m.flash_attn.to_string()))),
    ("tokens_generated", |c| metric(c, |m| Some(m.tokens_generated.to_string()))),
    ("tok_per_s", |c| metric(c, |m| number(m.tok_per_s))),
    ("time_s", |c| metric(c, |m| number(m.time_s))),
    ("model_memory_gb", |c| metric(c, |m| number(m.model_memory_gb))),
    ("gpu_free_gb", |c| metric(c, |m| m.gpu_free_gb.and_then(number))),
    ("status", |c| Some(c.row.status.as_str().to_owned())),
    ("prompt", |c| Some(text(&c.row.prompt_id))),
    ("run", |c| Some(c.row.run.to_string())),
    ("engine", |c| {
        let asked = c.row.engine.as_str();
        Some(c.record.map_or_else(|| asked.to_owned(), |r| text(&r.resolved.engine)))
    }),
    ("finish_reason", |c| Some(c.record?.output.finish_reason.as_str().to_owned())),
    ("prompt_tokens", |c| metric(c, |m| Some(m.prompt_tokens.to_string()))),
    ("ttft_ms", |c| metric(c, |m| number(m.ttft_ms))),
    ("tpot_ms", |c| metric(c, |m| m.tpot_ms.and_then(number))),
    ("decode_tok_s", |c| metric(c, |m| m.decode_tok_s.and_then(number))),
    ("prefill_tok_s", |c| metric(c, |m| number(m.prefill_tok_s))),
    ("itl_p50_ms", |c| metric(c, |m| m.itl_p50_ms.and_then(number))),
    ("itl_p95_ms", |c| metric(c, |m| m.itl_p95_ms.and_then(number))),
    ("itl_p99_ms", |c| metric(c, |m| m.itl_p99_ms.and_then(number))),
    ("roofline_pct", |c| metric(c, |m| m.roofline_pct.and_then(number))),
    ("read_bandwidth_gb_s", |c| metric(c, |m| m.read_bandwidth_gb_s.and_then(number))),
    ("bytes_per_token", |c| metric(c, |m| m.bytes_per_token.and_then(number))),
    ("download_s", |c| metric(c, |m| m.download_s.and_then(number))),
    ("load_s", |c| metric(c, |m| number(m.load_s))),
    ("load_gb_s", |c| metric(c, |m| number(m.load_gb_s))),
    ("kv_memory_gb", |c| metric(c, |m| number(m.kv_memory_gb))),
    ("peak_memory_gb", |c| metric(c, |m| m.peak_memory_gb.and_then(number))),
    ("gpu_util_mean_pct", |c| metric(c, |m| m.gpu_util_mean_pct.and_then(number))),
    ("power_mean_w", |c| metric(c, |m| m.power_mean_w.and_then(number))),
    ("energy_j_per_token", |c| metric(c, |m| m.energy_j_per_token.and_then(number))),
    ("sm_clock_min_mhz", |c| metric(c, |m| m.sm_clock_min_mhz.map(|v| v.to_string()))),
    ("throttled", |c| metric(c, |m| m.throttled.map(|v| v.to_string()))),
    ("host_rss_peak_gb", |c| metric(c, |m| m.host_rss_peak_gb.and_then(number))),
    ("host_cpu_s", |c| metric(c, |m| m.host_cpu_s.and_then(number))),
    ("thinking_tokens", |c| Some(c.record?.output.thinking_tokens.to_string())),
    ("answer_tokens", |c| Some(c.record?.output.answer_tokens.to_string())),
    ("think_closed", |c| c.record?.output.think_closed.map(|v| v.to_string())),
    ("has_code", |c| Some(c.record?.output.has_code.to_string())),
    ("format", |c| Some(c.record?.resolved.format.as_str().to_owned())),
    ("dtype", |c| Some(text(&c.record?.fingerprint.dtype))),
    ("seed", |c| Some(c.record?.seed.to_string())),
    ("model_id", |c| Some(text(&c.record?.model))),
    ("revision", |c| match &c.record?.source {
        ModelSource::Hub { revision, .. } => Some(text(revision)),
        ModelSource::Builtin { .. } | ModelSource::Path { .. } => None,
    }),
    ("device", |c| Some(text(&c.record?.fingerprint.device))),
    ("driver", |c| Some(text(&c.record?.fingerprint.driver))),
    ("build", |c| Some(text(&c.record?.fingerprint.build))),
    ("worker", |c| Some(text(&c.record?.worker))),
    ("started_at", |c| Some(c.record?.started_at.to_string())),
    ("document", |c| Some(text(&c.record?.document.key))),
    ("cell", |c| Some(c.row.cell.to_string())),
    ("job", |c| Some(c.row.job.to_string())),
    ("failure", |c| Some(c.failure?.kind.as_str().to_owned())),
    ("failure_message", |c| Some(text(&c.failure?.message))),
    ("checks", |c| {
        let words = c.checks.iter().map(|k| format!("{} {}", k.name, k.verdict.as_str()));
        Some(text(&words.collect::<Vec<_>>().join("; ")))
    }),
    ("passes", |c| check::passes(&c.checks).map(|passes| passes.to_string())),
];

/// The names of all columns, in order.
pub fn header() -> String {
    COLUMNS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(",")
}

/// The whole file. Lines end in CR LF only where RFC 4180 allows a choice: here they end in LF.
pub fn render(collected: &Collected) -> String {
    let mut out = header();
    out.push('\n');
    for row in &collected.rows {
        let record = collected.record(row);
        let failure = collected.failure(row);
        let context = Context { row, record, failure, checks: checks(collected, row) };
        let fields: Vec<_> =
            COLUMNS.iter().map(|(_, value)| quote(&value(&context).unwrap_or_default())).collect();
        out.push_str(&fields.join(","));
        out.push('\n');
    }
    out
}

/// Checks of another output than the recorded one do not count; the report warns of them.
fn checks(collected: &Collected, row: &Row) -> Vec<Check> {
    collected
        .record(row)
        .zip(collected.checks.get(&row.cell))
        .and_then(|(record, json)| CheckReport::of_document(json, &record.document.sha256).ok())
        .map_or_else(Vec::new, |report| report.checks)
}

fn metric(c: &Context<'_>, value: impl Fn(&Metrics) -> Option<String>) -> Option<String> {
    value(&c.record?.metrics)
}

/// Up to six decimals, without trailing zeros; nothing for what is not a number.
fn number(value: f64) -> Option<String> {
    if !value.is_finite() {
        return None;
    }
    let text = format!("{value:.6}");
    Some(text.trim_end_matches('0').trim_end_matches('.').to_owned())
}

/// Text from outside: on one line, and never read as a formula by a spreadsheet.
fn text(value: &str) -> String {
    let line: String = value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.starts_with(['=', '+', '-', '@']) { format!("'{line}") } else { line }
}

fn quote(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_seven_columns_are_the_ones_readers_know() {
        assert!(header().starts_with(
            "model,flash_attn,tokens_generated,tok_per_s,time_s,model_memory_gb,gpu_free_gb,status,prompt,run,"
        ));
    }

    #[test]
    fn every_metric_of_a_record_has_its_column() {
        let metrics = serde_json::to_value(Metrics::default()).expect("it serialises");
        let columns: Vec<&str> = COLUMNS.iter().map(|(name, _)| *name).collect();
        for metric in metrics.as_object().expect("an object").keys() {
            assert!(columns.contains(&metric.as_str()), "{metric} has no column");
        }
        let distinct: std::collections::BTreeSet<_> = columns.iter().collect();
        assert_eq!(distinct.len(), columns.len());
    }

    #[test]
    fn text_stays_on_one_line_and_is_no_formula() {
        assert_eq!(text("a\r\nb\tc"), "a  b c");
        assert_eq!(text("=HYPERLINK(1)"), "'=HYPERLINK(1)");
        assert_eq!(quote("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(quote("plain"), "plain");
    }

    #[test]
    fn numbers_have_six_decimals_at_most() {
        assert_eq!(number(53.1).as_deref(), Some("53.1"));
        assert_eq!(number(0.000_000_1).as_deref(), Some("0"));
        assert_eq!(number(14_140_000_000.0).as_deref(), Some("14140000000"));
        assert_eq!(number(f64::NAN), None);
    }
}
