//! The sweep file: what to run, written by a person, read and validated as a whole.
//!
//! [`load`] turns a TOML file into a [`Sweep`] in which every default is filled in and every value
//! has been checked. Nothing below this module sees an invalid sweep.
//!
//! - `types`: what to run, complete and valid
//! - [`file`](mod@file): the file's keys, types and ranges
//! - `settings`, `models`, `prompts`, `suite`, `checks`, [`rules`]: from what is written
//!   to what is meant
//! - `problem`: what can be wrong, each with its text

mod checks;
pub mod file;
pub mod files;
mod models;
mod problem;
mod prompts;
pub mod rules;
mod settings;
mod suite;
mod types;

use std::path::{Path, PathBuf};

use bakeoff_model::{EngineSettings, GenerationSettings};
use bakeoff_proto::{SweepName, names};

use crate::toml_file::shapes::CountOrAll;
use crate::toml_file::words::is_file_word;
use crate::toml_file::{At, FileError, KeyPath, Problem, TomlFile};
pub use checks::CheckSettings;
use file::SweepFile;
pub use problem::{SweepProblem, TaskProblem};
pub use rules::ReportRules;
use types::default_summary;
pub use types::{Model, Prompt, Sweep, Task};

/// The demo: three tiny models that are inside the engine.
pub const DEMO: &str = include_str!("../demo.toml");

/// Reads and validates a sweep file. Prompt files are looked for beside it.
///
/// # Errors
/// What is wrong with the file, with line and key.
pub fn load(path: &Path) -> Result<Sweep, FileError> {
    let origin = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| FileError::whole(&origin, Problem::Unreadable(error)))?;
    let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
    parse(&text, &origin, &folder)
}

/// The demo sweep.
pub fn demo() -> Sweep {
    parse(DEMO, "demo.toml", Path::new("")).expect("a test parses the demo sweep")
}

/// Validates a sweep given as text. Relative files are looked for in `folder`.
///
/// # Errors
/// As [`load`].
pub fn parse(text: &str, origin: &str, folder: &Path) -> Result<Sweep, FileError> {
    let toml = TomlFile::parse(origin, text)?;
    let file: SweepFile = toml.read()?;
    validate(file, folder).map_err(|at| toml.refuse(at))
}

fn validate(file: SweepFile, folder: &Path) -> Result<Sweep, At<SweepProblem>> {
    let summary = summary(file.summary, &file.name)?;
    let mut generation = GenerationSettings::default();
    settings::apply_generation(&file.generation, &mut generation);
    let defaults = [EngineSettings::default()];
    let base = models::Base {
        generation,
        engines: settings::engines(&file.engine, &KeyPath::top("engine"), &defaults)?,
        gpu_class: settings::gpu_class(file.queue.gpu_class.as_deref(), &KeyPath::top("queue"))?
            .unwrap_or_else(|| names::ANY_CLASS.to_owned()),
    };
    rules::check(&file.report)?;
    let sweep = Sweep {
        name: file.name,
        summary,
        seed: file.generation.seed.unwrap_or_default(),
        runs: file.generation.runs.unwrap_or(settings::DEFAULT_RUNS),
        cells_per_job: match file.queue.cells_per_job {
            Some(CountOrAll::Count(cells)) => Some(cells),
            Some(CountOrAll::All) | None => None,
        },
        prompts: prompts::read(file.prompts, folder)?,
        models: models::read(file.models, &base, &absolute(folder))?,
        report: file.report,
        checks: file.checks.map(|section| checks::read(section, folder)).transpose()?,
    };
    let cells = sweep.cell_count();
    if cells > MAX_CELLS {
        return Err(KeyPath::default().refuse(SweepProblem::TooManyCells { cells, max: MAX_CELLS }));
    }
    Ok(sweep)
}

/// More than a queue, a store listing and a report can sensibly hold.
const MAX_CELLS: usize = 100_000;

fn absolute(folder: &Path) -> PathBuf {
    std::path::absolute(folder)
        .or_else(|_| std::env::current_dir())
        .unwrap_or_else(|_| folder.to_path_buf())
}

fn summary(summary: Option<String>, name: &SweepName) -> Result<String, At<SweepProblem>> {
    match summary {
        None => Ok(default_summary(name)),
        Some(summary) if is_file_word(&summary, 128) && summary.ends_with(".csv") => Ok(summary),
        Some(other) => Err(KeyPath::top("summary").refuse(SweepProblem::NotACsvName(other))),
    }
}

#[cfg(test)]
mod tests;
