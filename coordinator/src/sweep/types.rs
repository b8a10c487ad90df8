//! What to run: complete, valid, and frozen as it is in the plan.

use bakeoff_model::{EngineSettings, Format, GenerationSettings, ModelSource, Thinking};
use bakeoff_proto::SweepName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::checks::CheckSettings;
use super::rules::ReportRules;
use crate::quality::Rubric;

/// What to run. Complete and valid; the frozen plan holds it as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Sweep {
    /// Name and folder in the store.
    pub name: SweepName,
    /// File name of the CSV.
    pub summary: String,
    /// Each run of each prompt derives its own.
    pub seed: u64,
    /// How often each model answers each prompt.
    pub runs: u32,
    /// `None`: all cells of a model in one job, so that its weights are loaded once.
    pub cells_per_job: Option<u32>,
    /// In the order of the file.
    pub prompts: Vec<Prompt>,
    /// In the order of the file.
    pub models: Vec<Model>,
    /// How the report judges.
    #[serde(default)]
    pub report: ReportRules,
    /// What is executed; `None`: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checks: Option<CheckSettings>,
}

/// One prompt of a sweep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Prompt {
    /// Unique.
    pub id: String,
    /// What is sent, without template and hint.
    pub text: String,
    /// System message, if any.
    pub system: Option<String>,
    /// The language the answer should be in; the analysis of the code depends on it.
    pub language: String,
    /// Put before the prompt when a model's format is, or turns out to be, `code`.
    pub code_hint: String,
    /// What the analysis looks for in the answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rubric: Option<Rubric>,
    /// The test of a suite's task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Task>,
}

/// What decides whether an answer to a suite's prompt is right, in the manner of HumanEval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Task {
    /// The suite's own id.
    pub task_id: String,
    /// The beginning of the program, as the suite has it: needed when an answer only continues it.
    pub prompt: String,
    /// Defines `check(candidate)`.
    pub test: String,
    /// The function to be written.
    pub entry_point: String,
}

/// One model of a sweep with its own settings, overrides applied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Model {
    /// The name in the CSV and the report: the label if there is one, else the id. Unique.
    pub name: String,
    /// Name given in the sweep, if any.
    pub label: Option<String>,
    /// With the revision as the sweep names it; the plan resolves it to a commit.
    pub source: ModelSource,
    /// How the prompt becomes input.
    pub format: Format,
    /// Whether it thinks first.
    pub thinking: Thinking,
    /// Which workers may take its jobs.
    pub gpu_class: String,
    /// Sampling and length.
    pub generation: GenerationSettings,
    /// One job (or more) for each: several engines stand side by side in the report.
    pub engines: Vec<EngineSettings>,
}

impl Sweep {
    /// Gives the sweep another name; a summary file that was named after it follows.
    pub fn rename(&mut self, name: SweepName) {
        if self.summary == default_summary(&self.name) {
            self.summary = default_summary(&name);
        }
        self.name = name;
    }

    /// Models × engines × prompts × runs.
    pub fn cell_count(&self) -> usize {
        let engines: usize = self.models.iter().map(|model| model.engines.len()).sum();
        engines * self.prompts.len() * self.runs as usize
    }
}

/// The CSV's name where the sweep gives none.
pub fn default_summary(name: &SweepName) -> String {
    format!("{name}_summary.csv")
}
