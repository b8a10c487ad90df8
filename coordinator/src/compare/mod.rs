//! Two sweeps cell by cell: paired differences with intervals, and a refusal where the cells are not
//! alike. Pure.

use std::collections::BTreeMap;
use std::fmt::Write;

use bakeoff_proto::MetricsRecord;
use serde::Serialize;

use crate::collect::{Collected, Row};
use crate::report::model::{CellFacts, Measure};
use crate::report::{self, markdown_text};
use crate::stats::{Ratio, bootstrap, mean};

/// What must be alike in both sweeps unless `--across` names it.
pub const FIELDS: [&str; 14] = [
    "model",
    "engine",
    "generation",
    "weights",
    "tokenizer",
    "template",
    "build",
    "dtype",
    "device",
    "driver",
    "flash_attn",
    "tf32",
    "reduced_precision_reduction",
    "cuda_graph",
];

/// Why two sweeps are not compared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("`{found}` is no field that sweeps can differ in; there are {}", FIELDS.join(", "))]
    UnknownField { found: String },
    #[error(
        "the sweeps differ in {field}: {a} against {b} ({cell}); compare like with like, or say `--across {field}`"
    )]
    Unlike { field: &'static str, a: String, b: String, cell: String },
    #[error(
        "no finished cell of {a} has a partner in {b}: they share no model, prompt and run (compare other models with `--across model`)"
    )]
    NothingPaired { a: String, b: String },
}

/// One measured difference of one model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    pub variant: String,
    pub metric: &'static str,
    pub a: f64,
    pub b: f64,
    /// Change from A to B in percent; for quality in points of its measure.
    pub change: f64,
    pub low: Option<f64>,
    pub high: Option<f64>,
    pub pairs: usize,
    pub significant: bool,
    /// Significant, for the worse, and beyond the threshold.
    pub regression: bool,
}

/// The comparison of two sweeps.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    pub a: String,
    pub b: String,
    pub across: Vec<String>,
    pub threshold_pct: f64,
    pub pairs: usize,
    /// Finished cells of either sweep without a partner.
    pub unpaired: usize,
    pub differences: Vec<Difference>,
}

impl Comparison {
    pub fn regressed(&self) -> bool {
        self.differences.iter().any(|difference| difference.regression)
    }
}

struct Metric {
    name: &'static str,
    higher_is_better: bool,
    of: fn(&MetricsRecord) -> Option<f64>,
}

const METRICS: [Metric; 6] = [
    Metric { name: "tok/s", higher_is_better: true, of: |r| Some(r.metrics.tok_per_s) },
    Metric { name: "decode tok/s", higher_is_better: true, of: |r| r.metrics.decode_tok_s },
    Metric { name: "TTFT ms", higher_is_better: false, of: |r| Some(r.metrics.ttft_ms) },
    Metric { name: "p99 gap ms", higher_is_better: false, of: |r| r.metrics.itl_p99_ms },
    Metric { name: "peak memory GB", higher_is_better: false, of: |r| r.metrics.peak_memory_gb },
    Metric { name: "J/token", higher_is_better: false, of: |r| r.metrics.energy_j_per_token },
];

type Key = (String, String, String, u32);

/// Compares B with A. `threshold_pct`: a regression is worse by more than this.
pub fn compare(
    a: &Collected,
    b: &Collected,
    across: &[String],
    threshold_pct: f64,
) -> Result<Comparison, Refused> {
    if let Some(found) = across.iter().find(|field| !FIELDS.contains(&field.as_str())) {
        return Err(Refused::UnknownField { found: found.clone() });
    }
    let free = |field: &str| across.iter().any(|f| f == field);
    let key = |row: &Row| -> Key {
        (
            if free("model") { String::new() } else { row.model.clone() },
            if free("engine") { String::new() } else { row.engine.as_str().to_owned() },
            row.prompt_id.clone(),
            row.run,
        )
    };
    let of_b: BTreeMap<Key, (usize, &MetricsRecord)> =
        done(b).map(|(i, row, r)| (key(row), (i, r))).collect();
    let mut pairs = Vec::new();
    for (index, row, record) in done(a) {
        let Some((other, partner)) = of_b.get(&key(row)) else { continue };
        check_alike(row, record, partner, &free)?;
        pairs.push((report::build::variant_name(a, row), index, record, *other, *partner));
    }
    if pairs.is_empty() {
        let name = |c: &Collected| c.plan.sweep.name.to_string();
        return Err(Refused::NothingPaired { a: name(a), b: name(b) });
    }

    let (report_a, report_b) = (report::build(a, &[]), report::build(b, &[]));
    let mut variants: Vec<&str> = Vec::new();
    for (name, ..) in &pairs {
        if !variants.contains(&name.as_str()) {
            variants.push(name);
        }
    }
    let mut differences = Vec::new();
    for variant in variants {
        let mine: Vec<_> = pairs.iter().filter(|pair| pair.0 == variant).collect();
        for metric in &METRICS {
            let values: Vec<(f64, f64)> = mine
                .iter()
                .filter_map(|(_, _, x, _, y)| Some(((metric.of)(x)?, (metric.of)(y)?)))
                .collect();
            differences.extend(ratio(variant, metric, &values, threshold_pct));
        }
        let measure =
            if report_a.measure == report_b.measure { report_a.measure } else { Measure::Evidence };
        let values: Vec<(f64, f64)> = mine
            .iter()
            .filter_map(|(_, i, _, j, _)| {
                Some((
                    quality(&report_a.cells[*i], measure)?,
                    quality(&report_b.cells[*j], measure)?,
                ))
            })
            .collect();
        differences.extend(shift(variant, measure, &values, threshold_pct));
    }
    let finished = done(a).count() + done(b).count();
    Ok(Comparison {
        a: a.plan.sweep.name.to_string(),
        b: b.plan.sweep.name.to_string(),
        across: across.to_vec(),
        threshold_pct,
        unpaired: finished.saturating_sub(2 * pairs.len()),
        pairs: pairs.len(),
        differences,
    })
}

fn done(collected: &Collected) -> impl Iterator<Item = (usize, &Row, &MetricsRecord)> {
    let rows = collected.rows.iter().enumerate();
    rows.filter_map(|(index, row)| Some((index, row, collected.record(row)?)))
}

/// Refuses a pair that differs in a field nobody named.
fn check_alike(
    row: &Row,
    a: &MetricsRecord,
    b: &MetricsRecord,
    free: &impl Fn(&str) -> bool,
) -> Result<(), Refused> {
    let (x, y) = (&a.fingerprint, &b.fingerprint);
    let json = |r: &MetricsRecord| {
        serde_json::to_string(&r.generation_settings).expect("settings serialise to JSON")
    };
    let values: [(&'static str, String, String); 13] = [
        ("engine", x.engine.clone(), y.engine.clone()),
        ("generation", json(a), json(b)),
        ("weights", x.weights_sha256.clone(), y.weights_sha256.clone()),
        ("tokenizer", x.tokenizer_sha256.clone(), y.tokenizer_sha256.clone()),
        ("template", x.template_sha256.clone(), y.template_sha256.clone()),
        ("build", x.build.clone(), y.build.clone()),
        ("dtype", x.dtype.clone(), y.dtype.clone()),
        ("device", x.device.clone(), y.device.clone()),
        ("driver", x.driver.clone(), y.driver.clone()),
        ("flash_attn", x.flash_attn.clone(), y.flash_attn.clone()),
        ("tf32", x.tf32.clone(), y.tf32.clone()),
        (
            "reduced_precision_reduction",
            x.reduced_precision_reduction.clone(),
            y.reduced_precision_reduction.clone(),
        ),
        ("cuda_graph", x.cuda_graph.clone(), y.cuda_graph.clone()),
    ];
    // Another model has other weights: naming the model names what comes with it.
    let of_model = |field: &str| matches!(field, "weights" | "tokenizer" | "template");
    for (field, x, y) in values {
        if x != y && !free(field) && !(free("model") && of_model(field)) {
            let cell = format!("{} {} run {}", row.model, row.prompt_id, row.run);
            return Err(Refused::Unlike { field, a: x, b: y, cell });
        }
    }
    Ok(())
}

fn quality(cell: &CellFacts, measure: Measure) -> Option<f64> {
    match measure {
        Measure::Stars => report::build::stars(cell),
        Measure::PassRate => cell.passes.map(|passes| f64::from(u8::from(passes))),
        Measure::Evidence => report::build::evidence(cell),
        Measure::None => None,
    }
}

fn ratio(
    variant: &str,
    metric: &Metric,
    values: &[(f64, f64)],
    threshold_pct: f64,
) -> Option<Difference> {
    let ratio = Ratio::of(values, threshold_pct)?;
    let percent = |ratio: f64| (ratio - 1.0) * 100.0;
    let change = percent(ratio.ratio);
    let worse = if metric.higher_is_better { -change } else { change };
    Some(Difference {
        variant: variant.to_owned(),
        metric: metric.name,
        a: mean(&values.iter().map(|v| v.0).collect::<Vec<_>>()),
        b: mean(&values.iter().map(|v| v.1).collect::<Vec<_>>()),
        change,
        low: ratio.low.map(percent),
        high: ratio.high.map(percent),
        pairs: ratio.n,
        significant: ratio.significant,
        regression: ratio.significant && worse > threshold_pct,
    })
}

/// Quality can be zero, so it is compared by difference, in hundredths of its scale.
fn shift(
    variant: &str,
    measure: Measure,
    values: &[(f64, f64)],
    threshold_pct: f64,
) -> Option<Difference> {
    if values.is_empty() {
        return None;
    }
    let scale = if measure == Measure::Stars { 5.0 } else { 1.0 };
    let shifts: Vec<f64> = values.iter().map(|(a, b)| (b - a) / scale * 100.0).collect();
    let change = mean(&shifts);
    let interval = bootstrap(&shifts);
    let significant = match interval {
        Some((low, high)) => low > 0.0 || high < 0.0,
        None => change.abs() > threshold_pct,
    };
    Some(Difference {
        variant: variant.to_owned(),
        metric: "quality, points of 100",
        a: mean(&values.iter().map(|v| v.0).collect::<Vec<_>>()) / scale * 100.0,
        b: mean(&values.iter().map(|v| v.1).collect::<Vec<_>>()) / scale * 100.0,
        change,
        low: interval.map(|i| i.0),
        high: interval.map(|i| i.1),
        pairs: shifts.len(),
        significant,
        regression: significant && -change > threshold_pct,
    })
}

/// Markdown for a pull request.
pub fn render(comparison: &Comparison) -> String {
    let mut out = format!(
        "## {} → {}\n\n{} pairs of cells{}{}. A regression is significant and worse by more than {} %.\n\n| model | metric | A | B | change | 95 % interval | |\n|---|---|--:|--:|--:|---|---|\n",
        markdown_text(&comparison.a),
        markdown_text(&comparison.b),
        comparison.pairs,
        match comparison.unpaired {
            0 => String::new(),
            n => format!(", {n} cells without a partner"),
        },
        match comparison.across.as_slice() {
            [] => String::new(),
            fields => format!(", across {}", fields.join(", ")),
        },
        comparison.threshold_pct,
    );
    for d in &comparison.differences {
        let interval = match (d.low, d.high) {
            (Some(low), Some(high)) => format!("{low:+.1} … {high:+.1}"),
            _ => "single pair".to_owned(),
        };
        let verdict = match (d.regression, d.significant) {
            (true, _) => "**regression**",
            (false, true) => "significant",
            (false, false) => "not significant",
        };
        let _ = writeln!(
            out,
            "| {} | {} | {:.2} | {:.2} | {:+.1} | {interval} | {verdict} |",
            markdown_text(&d.variant),
            d.metric,
            d.a,
            d.b,
            d.change
        );
    }
    out
}
