//! What the report says, as data: the JSON export, and what both documents are written from.

use std::collections::BTreeMap;

use bakeoff_proto::{CellId, CellStatus, FinishReason, Metrics};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::check::Check;
use crate::check::score::CheckCount;
use crate::quality::Analysis;
use crate::review::{Readiness, Review};
use crate::sizing::{Fit, ModelSize};
use crate::stats::Stat;
use crate::sweep::ReportRules;

/// `report.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// Version of this document, see [`bakeoff_proto::SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The sweep's name.
    pub sweep: String,
    /// All planned cells.
    pub cells_planned: usize,
    /// Cells with a record.
    pub cells_done: usize,
    /// By what the outputs are judged, and so the recommendations made.
    pub measure: Measure,
    /// In the order of the sweep.
    pub variants: Vec<Variant>,
    /// One for each use.
    pub recommendations: Vec<Recommendation>,
    /// What the numbers show.
    pub insights: Vec<Insight>,
    /// What limits the trust in them.
    pub warnings: Vec<Warning>,
    /// By which the recommendations were made.
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
    /// Behaviour: share of outputs that pass their tests, 0 to 1.
    PassRate,
    /// Share of the rubric with evidence, 0 to 1; an output that is cut off, does not parse, or
    /// fails to compile or import is 0.
    Evidence,
    /// Nothing to judge by.
    None,
}

impl Measure {
    /// The measure in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Stars => "review: stars of the reviewers (1 to 5)",
            Self::PassRate => "behaviour: share of outputs that pass their tests",
            Self::Evidence => {
                "evidence found by machine: share of the rubric in complete, parsing answers"
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

/// Why nothing is concluded about a variant: it has no quality, no rank, is in no insight, and
/// neither dominates nor is dominated.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Invalid {
    /// Its text is noise: the weights are random.
    RandomWeights,
    /// Every output ends inside the thinking.
    InsideThinking,
    /// No output is whole: each is cut off at the token limit or ends inside the thinking.
    Truncated,
    /// No cell is finished.
    NoOutput,
}

impl Invalid {
    /// Every reason, the weightiest first.
    pub const ALL: [Self; 4] =
        [Self::RandomWeights, Self::InsideThinking, Self::Truncated, Self::NoOutput];

    /// The reason in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::RandomWeights => "random weights",
            Self::InsideThinking => "every output ends inside the thinking",
            Self::Truncated => "every output is cut off",
            Self::NoOutput => "no finished output",
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
    /// The model's name in the sweep.
    pub model: String,
    /// The engine that ran.
    pub engine: String,
    /// Planned cells.
    pub cells: usize,
    /// Cells with a record.
    pub done: usize,
    /// Cells that failed.
    pub failed: usize,
    /// At most one run of each prompt: nothing is known of the spread.
    pub single_run: bool,
    /// Every prefill used FlashAttention 2.
    pub flash_attn: Option<bool>,
    /// Tokens generated, EOS included.
    pub tokens: Option<Stat>,
    /// Tokens over time, prefill included.
    pub tok_per_s: Option<Stat>,
    /// From prompt tokens to last token, in seconds.
    pub time_s: Option<Stat>,
    /// Weights on the device, GB of 10^9 bytes.
    pub model_memory_gb: Option<f64>,
    /// Free device memory after the generation, GB.
    pub gpu_free_gb: Option<f64>,
    /// Keys and values by formula, GB.
    pub kv_memory_gb: Option<f64>,
    /// Most device memory seen, GB.
    pub peak_memory_gb: Option<f64>,
    /// Most resident memory of the worker, GB.
    pub host_rss_peak_gb: Option<f64>,
    /// Time to first token, in ms.
    pub ttft_ms: Option<Stat>,
    /// Time per output token; derived from `tok_per_s` where no step was timed.
    pub tpot_ms: Option<Stat>,
    /// 1000 / TPOT.
    pub decode_tok_s: Option<Stat>,
    /// Read bandwidth over bytes read per token.
    pub bound_tok_s: Option<f64>,
    /// Decode speed in percent of its bound.
    pub roofline_pct: Option<f64>,
    /// Joules per token.
    pub energy_j_per_token: Option<f64>,
    /// Mean utilisation, percent.
    pub gpu_util_mean_pct: Option<f64>,
    /// Weights from storage to ready, in seconds.
    pub load_s: Option<f64>,
    /// Percentiles of the pooled gaps between tokens: 1, 5, 25, 50, 75, 95, 99.
    pub itl_ms: Option<[f64; 7]>,
    /// Why nothing is concluded about it; `None` where something may be.
    #[serde(default)]
    pub invalid: Option<Invalid>,
    /// Outputs cut off at the token limit.
    pub truncated: usize,
    /// Outputs that end inside the thinking.
    pub think_unclosed: usize,
    /// Outputs without code.
    pub no_code: usize,
    /// Generations during which the card throttled.
    pub throttled: usize,
    /// Share of all tokens spent on thinking, 0 to 1.
    pub thinking_share: f64,
    /// In terms of the report's measure; this and all figures of quality below are empty where
    /// nothing is concluded about the variant.
    pub quality: Option<Stat>,
    /// Mean stars, 1 to 5.
    pub stars: Option<Stat>,
    /// Share of the rubric, 0 to 1.
    pub evidence: Option<Stat>,
    /// Share of tested outputs that pass, 0 to 1.
    pub pass_rate: Option<Stat>,
    /// How the checks ended, in the order in which they run.
    #[serde(default)]
    pub checks: Vec<CheckCount>,
    /// pass@k of the suite's tasks by k, when the sweep has a suite.
    pub pass_at_k: BTreeMap<usize, Stat>,
    /// Outputs that are complete.
    pub complete: usize,
    /// Outputs whose code parses.
    pub parses: usize,
    /// The lowest that a reviewer gave.
    pub readiness: Option<Readiness>,
    /// Of the reviewers, each once.
    pub strengths: Vec<String>,
    /// Of the reviewers, each once.
    pub limitations: Vec<String>,
    /// Of the reviewers, each once.
    pub best_use: Vec<String>,
    /// Outputs that can be used as they are, see the formulas.
    pub passing: usize,
    /// GPU seconds of all judged outputs over those that pass.
    pub gpu_s_per_passing: Option<f64>,
    /// In the rules' currency.
    pub cost_per_million_tokens: Option<f64>,
    /// In the rules' currency.
    pub cost_per_passing: Option<f64>,
    /// By its shape or its name.
    pub mixture_of_experts: bool,
    /// Made for code, by its name.
    pub specialised: bool,
    /// For the sizing; `None` where unknown.
    pub size: Option<ModelSize>,
    /// One for each GPU of the table.
    pub sizing: Vec<Fit>,
    /// Another variant that is at least as good and as fast, and better in one of the two.
    pub dominated_by: Option<String>,
}

/// One use and the variant for it, with the rule that chose it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Recommendation {
    /// As people name it.
    pub use_case: String,
    /// `None`: no variant qualifies, or the difference is not significant.
    pub variant: Option<String>,
    /// The variant's anchor.
    pub anchor: Option<String>,
    /// Names and anchors of those that cannot be told apart, where that is the answer.
    #[serde(default)]
    pub tied: Vec<(String, String)>,
    /// The rule in words.
    pub rule: String,
    /// What sets it apart from the next, and how sure that is; of a tie, what would tell; else
    /// why there is no variant.
    pub because: String,
    /// The numbers to decide by, the most important first.
    pub figures: Vec<Figure>,
    /// What limits the trust in it: single runs, no review yet.
    pub caveats: Vec<String>,
}

/// A number as people read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Figure {
    /// What it is.
    pub label: String,
    /// With its unit.
    pub value: String,
}

/// Something the numbers show, and where they stand.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Insight {
    /// A few words.
    pub title: String,
    /// The sentence.
    pub text: String,
    /// Names and anchors of the rows it rests on.
    pub rests_on: Vec<(String, String)>,
}

/// Something a reader must know before trusting a number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Warning {
    /// For programs.
    pub kind: WarningKind,
    /// The sentence.
    pub text: String,
}

/// What a warning is about: a stable word.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum WarningKind {
    /// Nothing is concluded about some models.
    NotJudged,
    /// The stored reviews do not read.
    BadReviews,
    /// A prompt's rubric does not compile any more.
    BadRubric,
    /// Stored checks do not read, or are of another output.
    BadChecks,
    /// Outputs were cut off at the token limit.
    Truncated,
    /// Outputs end inside the thinking.
    ThinkingUnclosed,
    /// Outputs without code.
    NoCode,
    /// The card lowered its clocks for heat or power.
    Throttled,
    /// Faster than the memory's bandwidth allows.
    AboveBound,
    /// Cells without a record.
    Failed,
    /// One run of each prompt: the spread is unknown.
    SingleRun,
    /// Nobody has reviewed the outputs.
    NoReview,
    /// Some outputs have been reviewed.
    PartlyReviewed,
    /// Cells from unlike machines or builds.
    MixedFingerprints,
    /// Random weights.
    DummyWeights,
    /// Memory seen that differs from its plan.
    Mismatch,
    /// What the store holds does not fit together.
    Store,
}

/// A fact of the machine or of the settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Fact {
    /// What it is.
    pub name: String,
    /// Each value that occurred.
    pub values: Vec<String>,
}

/// One prompt of the sweep and what its rubric looks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PromptFacts {
    /// As in the sweep.
    pub id: String,
    /// The sentence.
    pub text: String,
    /// The rubric's name.
    pub rubric: Option<String>,
    /// Titles of the rubric's items by id, in order.
    pub items: Vec<(String, String)>,
}

/// One cell with everything known of it but its text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CellFacts {
    /// Its id.
    pub cell: CellId,
    /// Name of its [`Variant`].
    pub variant: String,
    /// The prompt's id.
    pub prompt: String,
    /// Counted from 1.
    pub run: u32,
    /// What became of it.
    pub status: CellStatus,
    /// Key of its markdown.
    pub document: Option<String>,
    /// Why the generation ended.
    pub finish: Option<FinishReason>,
    /// As recorded.
    pub metrics: Option<Metrics>,
    /// What reading the output found.
    pub analysis: Option<Analysis>,
    /// What executing it found.
    pub checks: Vec<Check>,
    /// What its tests say, compile and import being their preconditions; `None`: the sweep puts
    /// it to no test, or the test could not run.
    #[serde(default)]
    pub behaviour: Option<bool>,
    /// Names revealed; the blinded name is gone.
    pub reviews: Vec<Review>,
    /// It can be used as it is; `None`: nothing to judge by.
    pub passes: Option<bool>,
    /// Kind and message of the latest failure.
    pub failure: Option<String>,
    /// Where memory differed from its plan, as sentences.
    pub mismatches: Vec<String>,
}

impl CellFacts {
    /// It has a record.
    pub fn is_done(&self) -> bool {
        self.status == CellStatus::Done
    }
}
