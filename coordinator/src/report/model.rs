//! What the report says, as data: the JSON export, and what both documents are written from.

use std::collections::BTreeMap;

use bakeoff_proto::{CellId, FinishReason, Metrics};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::check::Check;
use crate::check::score::CheckCount;
use crate::collect::Status;
use crate::quality::Analysis;
use crate::review::{Readiness, Review};
use crate::sizing::{Fit, ModelSize};
use crate::stats::Stat;
use crate::sweep::ReportRules;

/// `report.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    pub schema_version: u32,
    pub sweep: String,
    pub cells_planned: usize,
    pub cells_done: usize,
    /// By what the outputs are judged, and so the recommendations made.
    pub measure: Measure,
    /// In the order of the sweep.
    pub variants: Vec<Variant>,
    pub recommendations: Vec<Recommendation>,
    pub insights: Vec<Insight>,
    pub warnings: Vec<Warning>,
    pub rules: ReportRules,
    /// Facts of the machine and of the settings, each with the values that occurred.
    pub environment: Vec<Fact>,
    pub prompts: Vec<PromptFacts>,
    /// One per planned cell, in the order of the sweep.
    pub cells: Vec<CellFacts>,
}

/// Where the quality figures come from. One measure for all variants: unlike ones do not compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// People's stars, 1 to 5.
    Stars,
    /// Share of executed outputs that pass, 0 to 1.
    PassRate,
    /// Share of the rubric with evidence, 0 to 1; an output that is cut off or does not parse is 0.
    Evidence,
    /// Nothing to judge by.
    None,
}

impl Measure {
    pub fn words(self) -> &'static str {
        match self {
            Self::Stars => "stars of the reviewers (1 to 5)",
            Self::PassRate => "share of outputs that pass their checks",
            Self::Evidence => {
                "machine evidence: share of the rubric found in complete, parsing answers"
            }
            Self::None => "nothing: there are no outputs to judge",
        }
    }

    /// A value as people read it.
    pub fn show(self, value: f64) -> String {
        match self {
            Self::Stars => format!("{value:.1} ★"),
            Self::PassRate | Self::Evidence => format!("{:.0} %", value * 100.0),
            Self::None => "–".to_owned(),
        }
    }
}

/// A model on an engine: what is compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Variant {
    /// Name for people: the model, and the engine where several ran.
    pub name: String,
    /// Anchor in the documents: `v1`, `v2`, …
    pub anchor: String,
    pub model: String,
    pub engine: String,
    pub cells: usize,
    pub done: usize,
    pub failed: usize,
    /// At most one run of each prompt: nothing is known of the spread.
    pub single_run: bool,
    pub flash_attn: Option<bool>,
    pub tokens: Option<Stat>,
    pub tok_per_s: Option<Stat>,
    pub time_s: Option<Stat>,
    pub model_memory_gb: Option<f64>,
    pub gpu_free_gb: Option<f64>,
    pub kv_memory_gb: Option<f64>,
    pub peak_memory_gb: Option<f64>,
    pub host_rss_peak_gb: Option<f64>,
    pub ttft_ms: Option<Stat>,
    /// Time per output token; derived from `tok_per_s` where no step was timed.
    pub tpot_ms: Option<Stat>,
    pub decode_tok_s: Option<Stat>,
    pub bound_tok_s: Option<f64>,
    pub roofline_pct: Option<f64>,
    pub energy_j_per_token: Option<f64>,
    pub gpu_util_mean_pct: Option<f64>,
    pub load_s: Option<f64>,
    /// Percentiles of the pooled gaps between tokens: 1, 5, 25, 50, 75, 95, 99.
    pub itl_ms: Option<[f64; 7]>,
    pub truncated: usize,
    pub think_unclosed: usize,
    pub no_code: usize,
    pub throttled: usize,
    pub thinking_share: f64,
    /// In terms of the report's measure.
    pub quality: Option<Stat>,
    pub stars: Option<Stat>,
    pub evidence: Option<Stat>,
    pub pass_rate: Option<Stat>,
    /// How the checks ended, in the order in which they run.
    #[serde(default)]
    pub checks: Vec<CheckCount>,
    /// pass@k of the suite's tasks by k, when the sweep has a suite.
    pub pass_at_k: BTreeMap<usize, Stat>,
    pub complete: usize,
    pub parses: usize,
    /// The lowest that a reviewer gave.
    pub readiness: Option<Readiness>,
    pub strengths: Vec<String>,
    pub limitations: Vec<String>,
    pub best_use: Vec<String>,
    /// Outputs that can be used as they are, see the formulas.
    pub passing: usize,
    pub gpu_s_per_passing: Option<f64>,
    pub cost_per_million_tokens: Option<f64>,
    pub cost_per_passing: Option<f64>,
    pub mixture_of_experts: bool,
    /// Made for code, by its name.
    pub specialised: bool,
    pub size: Option<ModelSize>,
    pub sizing: Vec<Fit>,
    /// Another variant that is at least as good and as fast, and better in one of the two.
    pub dominated_by: Option<String>,
}

/// One use and the variant for it, with the rule that chose it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Recommendation {
    pub use_case: String,
    /// `None`: no variant qualifies, or the difference is not significant.
    pub variant: Option<String>,
    pub anchor: Option<String>,
    pub rule: String,
    /// What sets it apart from the next, and how sure that is; without a variant, why there is none.
    pub because: String,
    /// The numbers to decide by, the most telling first.
    pub figures: Vec<Figure>,
    /// What limits the trust in it: single runs, no review yet.
    pub caveats: Vec<String>,
}

/// A number as people read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Figure {
    pub label: String,
    pub value: String,
}

/// Something the numbers show, and where they stand.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Insight {
    pub title: String,
    pub text: String,
    /// Names and anchors of the rows it rests on.
    pub rests_on: Vec<(String, String)>,
}

/// Something a reader must know before trusting a number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Warning {
    /// A stable word: `truncated`, `throttled`, `mixed_fingerprints`, …
    pub kind: String,
    pub text: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Fact {
    pub name: String,
    pub values: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PromptFacts {
    pub id: String,
    pub text: String,
    pub rubric: Option<String>,
    /// Titles of the rubric's items by id, in order.
    pub items: Vec<(String, String)>,
}

/// One cell with everything known of it but its text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CellFacts {
    pub cell: CellId,
    pub variant: String,
    pub prompt: String,
    pub run: u32,
    pub status: String,
    pub document: Option<String>,
    pub finish: Option<FinishReason>,
    pub metrics: Option<Metrics>,
    pub analysis: Option<Analysis>,
    pub checks: Vec<Check>,
    /// Names revealed; the blinded name is gone.
    pub reviews: Vec<Review>,
    pub passes: Option<bool>,
    pub failure: Option<String>,
    pub mismatches: Vec<String>,
}

impl CellFacts {
    pub fn is_done(&self) -> bool {
        self.status == Status::Done.as_str()
    }
}
