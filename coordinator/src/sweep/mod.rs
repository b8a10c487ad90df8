//! The sweep file: what to run, written by a person, read and validated as a whole.
//!
//! [`load`] turns a TOML file into a [`Sweep`] in which every default is filled in and every value
//! has been checked. Nothing below this module sees an invalid sweep.

pub mod files;
mod models;
mod prompts;
pub mod rules;
pub mod section;
mod settings;
mod suite;

use std::path::{Path, PathBuf};

use bakeoff_model::{EngineSettings, Format, GenerationSettings, ModelSource, Thinking};
use bakeoff_proto::{SweepName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::de::DeTable;

use crate::quality::Rubric;
pub use rules::{CheckSettings, ReportRules};
use section::Source;
pub use section::{Section, nearest, shorten};

/// The demo: three tiny models that are inside the engine.
pub const DEMO: &str = include_str!("../demo.toml");

/// What to run. Complete and valid; the frozen plan holds it as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Sweep {
    pub name: SweepName,
    /// File name of the CSV.
    pub summary: String,
    pub seed: u64,
    /// How often each model answers each prompt.
    pub runs: u32,
    /// `None`: all cells of a model in one job, so that its weights are loaded once.
    pub cells_per_job: Option<u32>,
    pub prompts: Vec<Prompt>,
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
    pub id: String,
    pub text: String,
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
    pub label: Option<String>,
    /// With the revision as the sweep names it; the plan resolves it to a commit.
    pub source: ModelSource,
    pub format: Format,
    pub thinking: Thinking,
    pub gpu_class: String,
    pub generation: GenerationSettings,
    /// One job (or more) for each: several engines stand side by side in the report.
    pub engines: Vec<EngineSettings>,
}

/// What is wrong with a sweep file: where, which key, which value, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SweepError {
    pub origin: String,
    /// Counted from 1.
    pub line: Option<usize>,
    pub message: String,
}

impl std::fmt::Display for SweepError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.origin, self.message),
            None => write!(f, "{}: {}", self.origin, self.message),
        }
    }
}

impl std::error::Error for SweepError {}

/// Reads and validates a sweep file. Prompt files are looked for beside it.
pub fn load(path: &Path) -> Result<Sweep, SweepError> {
    let origin = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| SweepError {
        origin: origin.clone(),
        line: None,
        message: format!("cannot read the sweep file: {error}"),
    })?;
    let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
    parse(&text, &origin, &folder)
}

/// The demo sweep.
pub fn demo() -> Sweep {
    parse(DEMO, "demo.toml", Path::new("")).expect("a test parses the demo sweep")
}

/// Validates a sweep given as text. Relative files are looked for in `folder`.
pub fn parse(text: &str, origin: &str, folder: &Path) -> Result<Sweep, SweepError> {
    let source = Source { origin, text };
    let table = DeTable::parse(text)
        .map_err(|error| source.error(error.span(), format!("not TOML: {}", error.message())))?;
    let mut top = Section::top(source, &table);

    let name = top.required_string("name")?;
    let name = SweepName::try_from(name).map_err(|error| {
        let span = table.get_ref().get("name").map(|value| value.span());
        source.error(span, error.to_string())
    })?;
    let summary = summary(&mut top, &name)?;
    let base = settings::read_base(&mut top)?;
    let prompts = prompts::read(&mut top, folder)?;
    let models = models::read(&mut top, &base, &absolute(folder))?;
    let report = rules::read_report(&mut top)?;
    let checks = rules::read_checks(&mut top, folder)?;
    top.finish()?;

    let sweep = Sweep {
        name,
        summary,
        seed: base.seed,
        runs: base.runs,
        cells_per_job: base.cells_per_job,
        prompts,
        models,
        report,
        checks,
    };
    let cells = sweep.cell_count();
    if cells > MAX_CELLS {
        return Err(source.error(
            None,
            format!("the sweep has {cells} cells, at most {MAX_CELLS} are allowed: split it"),
        ));
    }
    Ok(sweep)
}

/// More than a queue, a store listing and a report can sensibly hold.
const MAX_CELLS: usize = 100_000;

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

fn absolute(folder: &Path) -> PathBuf {
    std::path::absolute(folder)
        .or_else(|_| std::env::current_dir())
        .unwrap_or_else(|_| folder.to_path_buf())
}

fn default_summary(name: &SweepName) -> String {
    format!("{name}_summary.csv")
}

/// Names in the sweep's folder that are taken.
const RESERVED: [&str; 4] = ["sweep.json", "reviews.toml", "report.md", "report.html"];

fn summary(top: &mut Section<'_>, name: &SweepName) -> Result<String, SweepError> {
    let Some(summary) = top.string("summary")? else {
        return Ok(default_summary(name));
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let fine = summary.len() <= 128
        && summary.chars().all(allowed)
        && summary.starts_with(|c: char| c.is_ascii_alphanumeric())
        && summary.ends_with(".csv")
        && !RESERVED.contains(&summary.as_str());
    if fine {
        return Ok(summary);
    }
    Err(top.error_at(
        "summary",
        format!(
            "must be a file name of letters, digits, `.`, `_` and `-` that ends in `.csv`, found \"{}\"",
            shorten(&summary)
        ),
    ))
}

/// An id that becomes part of a file name.
fn check_id(section: &Section<'_>, key: &str, id: &str) -> Result<(), SweepError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if !id.is_empty()
        && id.len() <= 64
        && id.chars().all(allowed)
        && id.starts_with(|c: char| c.is_ascii_alphanumeric())
    {
        return Ok(());
    }
    Err(section.error_at(
        key,
        format!(
            "must be 1 to 64 letters, digits, `.`, `_` or `-`, starting with a letter or a digit, found \"{}\"",
            shorten(id)
        ),
    ))
}

#[cfg(test)]
mod tests;
