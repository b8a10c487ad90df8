//! `[[models]]`: which models, from where, and where they differ from the rest of the sweep.

use std::collections::HashMap;
use std::path::Path;

use bakeoff_model::spec::BUILTIN_MODELS;
use bakeoff_model::{EngineSettings, Format, GenerationSettings, ModelSource, ModelSpec, Thinking};

use super::file::ModelEntry;
use super::problem::SweepProblem;
use super::problem::check_id;
use super::settings;
use super::types::Model;
use crate::toml_file::{At, KeyPath};

/// What the sweep says for all its models.
#[derive(Debug)]
pub struct Base {
    pub generation: GenerationSettings,
    pub engines: Vec<EngineSettings>,
    pub gpu_class: String,
}

pub fn read(
    entries: Vec<ModelEntry>,
    base: &Base,
    folder: &Path,
) -> Result<Vec<Model>, At<SweepProblem>> {
    let list = KeyPath::top("models");
    if entries.is_empty() {
        let add = "add a [[models]] with `id` or `path`";
        return Err(list.refuse(SweepProblem::Missing { add }));
    }
    let mut models = Vec::new();
    let mut seen: HashMap<String, usize> = HashMap::new();
    for (index, entry) in entries.into_iter().enumerate() {
        let path = list.index(index);
        let name_key = if entry.label.is_some() {
            "label"
        } else if entry.id.is_some() {
            "id"
        } else {
            "path"
        };
        let model = read_one(entry, &path, base, folder)?;
        if let Some(earlier) = seen.insert(model.name.clone(), index + 1) {
            let problem = SweepProblem::RepeatedModel { name: model.name, earlier };
            return Err(path.key(name_key).refuse(problem));
        }
        models.push(model);
    }
    Ok(models)
}

fn read_one(
    entry: ModelEntry,
    path: &KeyPath,
    base: &Base,
    folder: &Path,
) -> Result<Model, At<SweepProblem>> {
    let source = source(&entry, path, folder)?;
    if let Some(label) = &entry.label {
        check_id(label, path.key("label"))?;
    }
    let gpu_class = settings::gpu_class(entry.gpu_class.as_deref(), path)?
        .unwrap_or_else(|| base.gpu_class.clone());
    let overrides = path.key("generation");
    for (key, given) in
        [("seed", entry.generation.seed.is_some()), ("runs", entry.generation.runs.is_some())]
    {
        if given {
            return Err(overrides.key(key).refuse(SweepProblem::WholeSweepOnly));
        }
    }
    let mut generation = base.generation.clone();
    settings::apply_generation(&entry.generation, &mut generation);
    let generation = generation.settled();
    let engines = settings::engines(&entry.engine, &path.key("engine"), &base.engines)?;
    let name = entry.label.clone().unwrap_or_else(|| display_id(&source));
    Ok(Model {
        name,
        label: entry.label,
        source,
        format: entry.format,
        thinking: entry.thinking.map(|word| word.0).unwrap_or_default(),
        gpu_class,
        generation,
        engines,
    })
}

fn display_id(source: &ModelSource) -> String {
    ModelSpec { source: source.clone(), format: Format::Auto, thinking: Thinking::Auto }
        .display_id()
}

fn source(
    entry: &ModelEntry,
    at: &KeyPath,
    folder: &Path,
) -> Result<ModelSource, At<SweepProblem>> {
    let source = match (&entry.id, &entry.path) {
        (Some(id), None) => match id.strip_prefix("builtin:") {
            Some(name) => builtin(name, at)?,
            None => hub(id, entry.revision.as_deref(), at)?,
        },
        (None, Some(path)) => {
            if path.is_empty() {
                let add = "name the model's folder";
                return Err(at.key("path").refuse(SweepProblem::Empty { add }));
            }
            ModelSource::Path { path: folder.join(path).display().to_string() }
        }
        (Some(_), Some(_)) => {
            let rule = "a model has one of the two";
            return Err(at.key("path").refuse(SweepProblem::Exclusive { other: "id", rule }));
        }
        (None, None) => {
            let add = "name a model of the hub (`owner/name`), a built-in one (`builtin:…`), or a \
            folder as `path`";
            return Err(at.key("id").refuse(SweepProblem::Missing { add }));
        }
    };
    if entry.revision.is_some() && !matches!(source, ModelSource::Hub { .. }) {
        let problem = SweepProblem::OnlyFor { to: "a model of the hub" };
        return Err(at.key("revision").refuse(problem));
    }
    Ok(source)
}

fn builtin(name: &str, at: &KeyPath) -> Result<ModelSource, At<SweepProblem>> {
    if BUILTIN_MODELS.contains(&name) {
        return Ok(ModelSource::Builtin { name: name.to_owned() });
    }
    Err(at.key("id").refuse(SweepProblem::unknown("built-in model", name, &BUILTIN_MODELS)))
}

fn hub(id: &str, revision: Option<&str>, at: &KeyPath) -> Result<ModelSource, At<SweepProblem>> {
    let fine = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && !part.contains("..")
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
    };
    if id.len() > 128 || id.split('/').count() > 2 || !id.split('/').all(fine) {
        return Err(at.key("id").refuse(SweepProblem::NotAHubId(id.to_owned())));
    }
    let revision = revision.unwrap_or("main");
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/');
    if revision.is_empty()
        || revision.len() > 128
        || !revision.chars().all(fine)
        || revision.contains("..")
    {
        let problem = SweepProblem::NotARevision(revision.to_owned());
        return Err(at.key("revision").refuse(problem));
    }
    Ok(ModelSource::Hub { id: id.to_owned(), revision: revision.to_owned() })
}
