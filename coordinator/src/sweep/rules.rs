//! `[report]`: by which rules the report recommends. The section and what the plan freezes are one
//! type, so a new rule is one field and its default.

use std::ops::Bound::{Excluded, Included, Unbounded};

use bakeoff_model::GpuTable;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::problem::SweepProblem;
use crate::toml_file::bounds::{Maybe, Within, bounds};
use crate::toml_file::{At, KeyPath};

bounds! {
    Price: f64 = (Excluded(0.0), Unbounded);
    Milliseconds: f64 = (Excluded(0.0), Unbounded);
    Stars: f64 = (Included(1.0), Included(5.0));
    Share: f64 = (Included(0.0), Included(1.0));
    StarsApart: f64 = (Included(0.0), Included(4.0));
    Percent: f64 = (Included(0.0), Excluded(100.0));
}

/// The rules of the recommendations; each is quoted in the report beside what it led to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ReportRules {
    /// What one GPU costs for an hour; costs are left out without it.
    #[serde(with = "Maybe::<Price>")]
    pub price_per_gpu_hour: Option<f64>,
    /// Currency of the price: 1 to 8 letters.
    pub currency: String,
    /// The GPU that is to be recommended for, by its short name: `l4`, `h100`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_gpu: Option<String>,
    /// A real-time answer streams at least this fast: time per output token, in ms.
    #[serde(with = "Within::<Milliseconds>")]
    pub realtime_max_tpot_ms: f64,
    /// A real-time answer starts within this time, in ms.
    #[serde(with = "Within::<Milliseconds>")]
    pub realtime_max_ttft_ms: f64,
    /// Quality floor where people gave stars, 1 to 5.
    #[serde(with = "Within::<Stars>")]
    pub min_stars: f64,
    /// Quality floor where outputs were executed: share of cells that pass.
    #[serde(with = "Within::<Share>")]
    pub min_pass_rate: f64,
    /// Quality floor where only machine evidence exists: share of the rubric.
    #[serde(with = "Within::<Share>")]
    pub min_evidence: f64,
    /// Batch work takes models this close to the best: in stars, or in fifths of a rate.
    #[serde(with = "Within::<StarsApart>")]
    pub batch_within_stars: f64,
    /// Differences of a single run count beyond this margin, in percent.
    #[serde(with = "Within::<Percent>")]
    pub margin_pct: f64,
}

impl Default for ReportRules {
    fn default() -> Self {
        Self {
            price_per_gpu_hour: None,
            currency: "USD".to_owned(),
            target_gpu: None,
            realtime_max_tpot_ms: 50.0,
            realtime_max_ttft_ms: 1000.0,
            min_stars: 3.5,
            min_pass_rate: 0.5,
            min_evidence: 0.5,
            batch_within_stars: 0.5,
            margin_pct: 5.0,
        }
    }
}

/// What the types of the fields do not check.
pub fn check(rules: &ReportRules) -> Result<(), At<SweepProblem>> {
    let currency = &rules.currency;
    if currency.is_empty() || currency.len() > 8 || !currency.chars().all(char::is_alphabetic) {
        let problem = SweepProblem::NotACurrency(currency.clone());
        return Err(KeyPath::top("report").key("currency").refuse(problem));
    }
    let gpus = GpuTable::shipped();
    if let Some(name) = rules.target_gpu.as_ref().filter(|name| gpus.find(name).is_err()) {
        let known: Vec<_> = gpus.as_slice().iter().map(|gpu| gpu.name.as_str()).collect();
        let problem = SweepProblem::unknown("GPU", name, &known);
        return Err(KeyPath::top("report").key("target_gpu").refuse(problem));
    }
    Ok(())
}
