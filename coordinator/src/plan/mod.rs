//! From a sweep to its cells and jobs. Pure and deterministic: the same sweep and the same
//! revisions give the same plan, which is frozen in the store as `sweep.json`.

mod difference;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bakeoff_model::{EngineSettings, Format, ModelSource, ModelSpec};
use bakeoff_proto::job::run_seed;
use bakeoff_proto::limits::MAX_JOB_BYTES;
use bakeoff_proto::{Cell, CellId, Incarnation, Job, SCHEMA_VERSION, SweepId, names, newer_schema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::sweep::{Model, Prompt, Sweep};
pub use difference::differences;

/// `sweep.json`: the frozen plan. Everything that collecting and reporting need is inside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Plan {
    /// Version of this document, see [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Which sweep of its name this is; made when the plan is frozen. `None` before that, and in
    /// plans of earlier versions. No part of what is planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<Incarnation>,
    /// The sweep, complete.
    pub sweep: Sweep,
    /// Commits of the hub's models by `id@revision`. A model without an entry runs at the revision
    /// as the sweep names it.
    pub revisions: Revisions,
    /// In the order of the sweep: model, engine, then prompt and run.
    pub jobs: Vec<PlannedJob>,
}

/// Commits by `id@revision`, see [`revision_key`].
pub type Revisions = BTreeMap<String, String>;

/// A job and the name its model has in the sweep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlannedJob {
    /// The model's name in the sweep.
    pub model_name: String,
    /// The job as the queue has it.
    pub job: Job,
}

/// One cell with what surrounds it.
#[derive(Debug, Clone, Copy)]
pub struct PlannedCell<'a> {
    /// The model's name in the sweep.
    pub model_name: &'a str,
    /// The job as the queue has it.
    pub job: &'a Job,
    /// The cell itself.
    pub cell: &'a Cell,
}

/// Why a valid sweep has no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error(
        "models `{first}` and `{second}` have a cell in common: they would overwrite each other; \
        let them differ in a setting, or remove one"
    )]
    SharedCell { first: String, second: String },
    #[error(
        "a job of model `{model}` is {bytes} bytes, a message holds at most {MAX_JOB_BYTES}: set \
        `cells_per_job` in [queue] to a smaller number, or shorten the prompts"
    )]
    TooLarge { model: String, bytes: usize },
    #[error(
        "the stored plan has schema version {found}, this coordinator reads up to \
        {SCHEMA_VERSION}: update it"
    )]
    TooNew { found: u64 },
    #[error("the stored plan does not parse")]
    Malformed(#[source] serde_json::Error),
}

/// What publishing adds to a job's JSON: its incarnation, and the digits of later generations.
const ADDED_BYTES: usize = 64;

/// Key of a hub model in [`Revisions`].
pub fn revision_key(id: &str, revision: &str) -> String {
    format!("{id}@{revision}")
}

/// Whether a revision already is a commit, and so needs no resolving.
pub fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

impl Plan {
    /// The cells and jobs of a sweep, with hub revisions replaced by the commits in `revisions`.
    pub fn build(sweep: Sweep, revisions: Revisions) -> Result<Self, PlanError> {
        let stems = file_stems(&sweep.models);
        let mut jobs = Vec::new();
        for (model, stem) in sweep.models.iter().zip(&stems) {
            let spec = model_spec(model, &revisions);
            for engine in &model.engines {
                let stem = match model.engines.len() {
                    1 => stem.clone(),
                    _ => format!("{stem}__{}", engine.engine.as_str()),
                };
                let cells = cells(&sweep, model, &spec, engine, &stem);
                let size = sweep.cells_per_job.map_or(cells.len(), |n| n as usize);
                for chunk in cells.chunks(size.max(1)) {
                    jobs.push(planned_job(&sweep, model, &spec, engine, chunk)?);
                }
            }
        }
        let plan =
            Self { schema_version: SCHEMA_VERSION, incarnation: None, sweep, revisions, jobs };
        plan.check_cells_are_distinct()?;
        Ok(plan)
    }

    /// The sweep as the queue knows it.
    pub fn sweep_id(&self) -> SweepId {
        SweepId { name: self.sweep.name.clone(), incarnation: self.incarnation.clone() }
    }

    /// Whether the same is planned, in whichever incarnation of the sweep.
    pub fn plans_the_same(&self, other: &Self) -> bool {
        let Self { schema_version, incarnation: _, sweep, revisions, jobs } = self;
        *schema_version == other.schema_version
            && *sweep == other.sweep
            && *revisions == other.revisions
            && *jobs == other.jobs
    }

    /// The bytes of `sweep.json`.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("a plan serialises to JSON");
        text.push('\n');
        text
    }

    /// Reads `sweep.json` back.
    pub fn from_json(bytes: &[u8]) -> Result<Self, PlanError> {
        if let Some(found) = newer_schema(bytes) {
            return Err(PlanError::TooNew { found });
        }
        serde_json::from_slice(bytes).map_err(PlanError::Malformed)
    }

    /// Every cell, in the order of the CSV.
    pub fn cells(&self) -> impl Iterator<Item = PlannedCell<'_>> {
        self.jobs.iter().flat_map(|planned| {
            planned.job.cells.iter().map(|cell| PlannedCell {
                model_name: &planned.model_name,
                job: &planned.job,
                cell,
            })
        })
    }

    /// How many cells the plan has.
    pub fn cell_count(&self) -> usize {
        self.jobs.iter().map(|planned| planned.job.cells.len()).sum()
    }

    /// The GPU classes that need a consumer.
    pub fn gpu_classes(&self) -> Vec<String> {
        let mut classes: BTreeSet<_> =
            self.jobs.iter().map(|planned| planned.job.gpu_class.clone()).collect();
        classes.insert(names::ANY_CLASS.to_owned());
        classes.into_iter().collect()
    }

    /// Hub models that stand at a branch or tag, because their commit is not known.
    pub fn unresolved(&self) -> Vec<String> {
        let mut keys: BTreeSet<String> = BTreeSet::new();
        for planned in &self.jobs {
            if let ModelSource::Hub { id, revision } = &planned.job.model.source
                && !is_commit(revision)
            {
                keys.insert(revision_key(id, revision));
            }
        }
        keys.into_iter().collect()
    }

    fn check_cells_are_distinct(&self) -> Result<(), PlanError> {
        let mut owners: HashMap<&CellId, &str> = HashMap::new();
        for planned in self.cells() {
            if let Some(first) = owners.insert(&planned.cell.id, planned.model_name) {
                return Err(PlanError::SharedCell {
                    first: first.to_owned(),
                    second: planned.model_name.to_owned(),
                });
            }
        }
        Ok(())
    }
}

fn model_spec(model: &Model, revisions: &Revisions) -> ModelSpec {
    let source = match &model.source {
        ModelSource::Hub { id, revision } => ModelSource::Hub {
            id: id.clone(),
            revision: revisions.get(&revision_key(id, revision)).unwrap_or(revision).clone(),
        },
        other => other.clone(),
    };
    ModelSpec { source, format: model.format, thinking: model.thinking }
}

fn cells(
    sweep: &Sweep,
    model: &Model,
    spec: &ModelSpec,
    engine: &EngineSettings,
    stem: &str,
) -> Vec<Cell> {
    let single = sweep.prompts.len() == 1 && sweep.runs == 1;
    let mut cells = Vec::new();
    for prompt in &sweep.prompts {
        for run in 1..=sweep.runs {
            let cell = Cell {
                id: Cell::unidentified(),
                prompt_id: prompt.id.clone(),
                prompt: prompt.text.clone(),
                system: prompt.system.clone(),
                code_hint: code_hint(model.format, prompt),
                run,
                seed: run_seed(sweep.seed, &prompt.id, run),
                generation: model.generation.clone(),
                file_stem: if single {
                    stem.to_owned()
                } else {
                    format!("{stem}__{}__r{run}", prompt.id)
                },
            };
            cells.push(cell.identified(spec, engine));
        }
    }
    cells
}

/// The hint is part of a cell only where the format may turn out to be `code`.
fn code_hint(format: Format, prompt: &Prompt) -> Option<String> {
    match format {
        Format::Auto | Format::Code if !prompt.code_hint.is_empty() => {
            Some(prompt.code_hint.clone())
        }
        Format::Auto | Format::Code | Format::Instruct | Format::Base => None,
    }
}

fn planned_job(
    sweep: &Sweep,
    model: &Model,
    spec: &ModelSpec,
    engine: &EngineSettings,
    cells: &[Cell],
) -> Result<PlannedJob, PlanError> {
    let job = Job::first(
        sweep.name.clone(),
        model.gpu_class.clone(),
        spec.clone(),
        engine.clone(),
        cells.to_vec(),
    );
    let bytes = serde_json::to_vec(&job).expect("a job serialises to JSON").len() + ADDED_BYTES;
    if bytes > MAX_JOB_BYTES {
        return Err(PlanError::TooLarge { model: model.name.clone(), bytes });
    }
    Ok(PlannedJob { model_name: model.name.clone(), job })
}

/// The file name of each model without stamp: its label or the last part of its id; the whole id
/// where the last parts are the same.
fn file_stems(models: &[Model]) -> Vec<String> {
    let short = |model: &Model| match &model.label {
        Some(label) => label.clone(),
        None => ModelSpec {
            source: model.source.clone(),
            format: model.format,
            thinking: model.thinking,
        }
        .file_stem(),
    };
    let mut uses: HashMap<String, usize> = HashMap::new();
    for model in models {
        *uses.entry(short(model).to_lowercase()).or_default() += 1;
    }
    models
        .iter()
        .map(|model| {
            let stem = short(model);
            match uses[&stem.to_lowercase()] {
                1 => stem,
                _ => bakeoff_model::spec::file_token(model.name.trim_start_matches(['/', '.'])),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests;
