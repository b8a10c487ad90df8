//! Two sweeps cell by cell: paired differences with intervals, and a refusal where the cells are
//! not alike. Pure.
//!
//! - [`alike`]: partners, and what must be equal in them
//! - `sample`: the changes of one figure, and what they prove
//! - `render`: markdown for a pull request

pub mod alike;
mod render;
mod sample;

use std::collections::BTreeMap;

use bakeoff_proto::MetricsRecord;
use serde::Serialize;

use crate::collect::{Collected, Row};
use crate::report::build::measures;
use crate::report::model::{CellFacts, Measure, Variant};
use crate::report::{self, Report};
use alike::{Across, Cell, FIELDS, Key};
pub use render::render;
use sample::{Rules, Sample, Scale};

/// Why two sweeps are not compared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("unknown field `{found}`: expected {}", FIELDS.join(", "))]
    UnknownField { found: String },
    #[error(
        "the sweeps differ in {field}: {a} against {b} ({cell}); compare like with like, or add \
        `--across {field}`"
    )]
    Unlike { field: &'static str, a: String, b: String, cell: String },
    #[error(
        "in {sweep}, {first} and {second} would both be the partner for {cell}: across models or \
        engines, each sweep may have only one"
    )]
    Ambiguous { sweep: String, first: String, second: String, cell: String },
    #[error(
        "no finished cell of {a} has a partner in {b}: they share no model, prompt and run \
        (compare other models with `--across model`)"
    )]
    NothingPaired { a: String, b: String },
}

/// By what a difference is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// The interval excludes no change.
    Interval,
    /// A single pair has no interval: the change is beyond the margin of the sweep's rules.
    Margin,
}

/// One measured difference of one model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Model, and engine where several ran.
    pub variant: String,
    /// Name and unit.
    pub metric: String,
    /// Means over the pairs.
    pub a: f64,
    /// As [`Self::a`], of the second sweep.
    pub b: f64,
    /// Change from A to B in percent, or in points of 100 of the quality's scale.
    pub change: f64,
    /// The change is in points, not in percent.
    pub points: bool,
    /// Lower end of the 95 % interval; `None` for a single pair.
    pub low: Option<f64>,
    /// Upper end of it.
    pub high: Option<f64>,
    /// Pairs of cells.
    pub pairs: usize,
    /// By what it is judged.
    pub basis: Basis,
    /// It is not noise, by [`Self::basis`].
    pub significant: bool,
    /// Significant, for the worse, and beyond the threshold.
    pub regression: bool,
}

/// A cell that is finished in one sweep only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// Model, engine, prompt and run.
    pub cell: String,
    /// The sweep in which it is finished.
    pub done_in: String,
    /// The sweep in which it is not.
    pub missing_in: String,
    /// `failed`, `cancelled`, `pending`, or `not planned`.
    pub status: &'static str,
}

/// The comparison of two sweeps.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The sweep compared with.
    pub a: String,
    /// As [`Self::a`], of the second sweep.
    pub b: String,
    /// Fields in which the sweeps may differ.
    pub across: Vec<String>,
    /// A regression is worse by more than this, in percent.
    pub threshold_pct: f64,
    /// A single pair counts beyond this, in percent.
    pub margin_pct: f64,
    /// Pairs of cells.
    pub pairs: usize,
    /// Cells without a partner.
    pub missing: Vec<Missing>,
    /// By model, then metric.
    pub differences: Vec<Difference>,
}

impl Comparison {
    /// Whether any difference is a regression.
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

/// Two cells that belong together.
struct Pair<'a> {
    variant: String,
    a: Cell<'a>,
    b: Cell<'a>,
}

/// Compares B with A. `threshold_pct`: a regression is worse by more than this.
pub fn compare(
    a: &Collected,
    b: &Collected,
    across: &[String],
    threshold_pct: f64,
) -> Result<Comparison, Refused> {
    let named = Across::new(across)?;
    let (of_a, of_b) = (alike::by_key(a, named)?, alike::by_key(b, named)?);
    let mut pairs = Vec::new();
    for (key, x) in &of_a {
        let Some(y) = of_b.get(key) else { continue };
        alike::check(key, (a, *x), (b, *y), named)?;
        pairs.push(Pair { variant: a.variant_name(x.row), a: *x, b: *y });
    }
    // In the order of A's sweep, not of names.
    pairs.sort_by_key(|pair| pair.a.index);
    let name = |c: &Collected| c.plan.sweep.name.to_string();
    if pairs.is_empty() {
        return Err(Refused::NothingPaired { a: name(a), b: name(b) });
    }
    let mut missing = missing(a, &of_a, b, &of_b, named);
    missing.extend(self::missing(b, &of_b, a, &of_a, named));
    let rules = Rules { threshold_pct, margin_pct: a.plan.sweep.report.margin_pct };
    Ok(Comparison {
        a: name(a),
        b: name(b),
        across: across.to_vec(),
        threshold_pct,
        margin_pct: rules.margin_pct,
        pairs: pairs.len(),
        missing,
        differences: differences(a, b, &pairs, rules),
    })
}

/// Cells finished in `x` that have no finished partner in `y`.
fn missing(
    x: &Collected,
    of_x: &BTreeMap<Key, Cell<'_>>,
    y: &Collected,
    of_y: &BTreeMap<Key, Cell<'_>>,
    across: Across<'_>,
) -> Vec<Missing> {
    let planned = |key: &Key, row: &Row| {
        (across.has("model") || row.model == key.model)
            && (across.has("engine") || row.engine.as_str() == key.engine)
            && row.prompt_id == key.prompt
            && row.run == key.run
    };
    of_x.keys()
        .filter(|key| !of_y.contains_key(key))
        .map(|key| Missing {
            cell: key.to_string(),
            done_in: x.plan.sweep.name.to_string(),
            missing_in: y.plan.sweep.name.to_string(),
            status: y
                .rows
                .iter()
                .find(|row| planned(key, row))
                .map_or("not planned", |row| row.status.as_str()),
        })
        .collect()
}

fn differences(a: &Collected, b: &Collected, pairs: &[Pair<'_>], rules: Rules) -> Vec<Difference> {
    let (report_a, report_b) = (report::build(a, &[]), report::build(b, &[]));
    // Unlike measures do not compare; evidence there is for every output.
    let measure =
        if report_a.measure == report_b.measure { report_a.measure } else { Measure::Evidence };
    let mut variants: Vec<&str> = Vec::new();
    for pair in pairs {
        if !variants.contains(&pair.variant.as_str()) {
            variants.push(&pair.variant);
        }
    }
    let mut differences = Vec::new();
    for variant in variants {
        let mine = || pairs.iter().filter(|pair| pair.variant == variant);
        for metric in &METRICS {
            let values = mine().filter_map(|pair| {
                let (x, y) = ((metric.of)(pair.a.record)?, (metric.of)(pair.b.record)?);
                // A ratio needs both; a zero stands for "not measured".
                (x > 0.0 && y > 0.0 && x.is_finite() && y.is_finite()).then_some((
                    pair.a.row.prompt_id.as_str(),
                    x,
                    y,
                ))
            });
            let scale = Scale::Percent { higher_is_better: metric.higher_is_better };
            let sample = Sample::new(values, |x, y| (y / x).ln());
            differences.extend(sample.map(|s| s.difference(variant, metric.name, scale, rules)));
        }
        let judged = |report: &Report, cell: &CellFacts| {
            let of = |v: &&Variant| v.name == cell.variant;
            report.variants.iter().find(of).is_some_and(|v| v.invalid.is_none())
        };
        let values = mine().filter_map(|pair| {
            let (cell_a, cell_b) = (&report_a.cells[pair.a.index], &report_b.cells[pair.b.index]);
            if !judged(&report_a, cell_a) || !judged(&report_b, cell_b) {
                return None;
            }
            let x = quality(cell_a, measure)?;
            let y = quality(cell_b, measure)?;
            Some((pair.a.row.prompt_id.as_str(), x, y))
        });
        let (full, name) = match measure {
            Measure::Stars => (5.0, "quality: stars, 5 are 100"),
            Measure::PassRate => (1.0, "quality: outputs that pass, of 100"),
            Measure::Evidence | Measure::None => (1.0, "quality: evidence, of 100"),
        };
        let scale = Scale::Points { full };
        let sample = Sample::new(values, |x, y| (y - x) / full * 100.0);
        differences.extend(sample.map(|s| s.difference(variant, name, scale, rules)));
    }
    differences
}

fn quality(cell: &CellFacts, measure: Measure) -> Option<f64> {
    match measure {
        Measure::Stars => measures::stars(cell),
        Measure::PassRate => cell.behaviour.map(|passes| f64::from(u8::from(passes))),
        Measure::Evidence => measures::evidence(cell),
        Measure::None => None,
    }
}

#[cfg(test)]
mod tests;
