//! `[[models]]`: which models, from where, and where they differ from the rest of the sweep.

use std::collections::HashMap;
use std::path::Path;

use bakeoff_model::spec::BUILTIN_MODELS;
use bakeoff_model::{Format, ModelSource, Thinking};

use super::settings::{self, Base};
use super::{Model, Section, SweepError, check_id, nearest, shorten};

const FORMATS: [(&str, Format); 4] = [
    ("auto", Format::Auto),
    ("instruct", Format::Instruct),
    ("base", Format::Base),
    ("code", Format::Code),
];
const THINKING: [(&str, Thinking); 3] =
    [("auto", Thinking::Auto), ("on", Thinking::On), ("off", Thinking::Off)];

pub fn read(top: &mut Section<'_>, base: &Base, folder: &Path) -> Result<Vec<Model>, SweepError> {
    let sections = top.sections("models")?;
    if sections.is_empty() {
        return Err(top.error_at("models", "is missing: add a [[models]] with `id` or `path`"));
    }
    let mut models = Vec::new();
    let mut seen: HashMap<String, usize> = HashMap::new();
    for (index, section) in sections.into_iter().enumerate() {
        let model = read_one(section, base, folder, &mut seen, index + 1)?;
        models.push(model);
    }
    Ok(models)
}

fn read_one(
    mut section: Section<'_>,
    base: &Base,
    folder: &Path,
    seen: &mut HashMap<String, usize>,
    number: usize,
) -> Result<Model, SweepError> {
    let source = source(&mut section, folder)?;
    let label = section.string("label")?;
    if let Some(label) = &label {
        check_id(&section, "label", label)?;
    }
    let format = section.choice("format", &FORMATS)?.unwrap_or_default();
    let thinking = section.choice("thinking", &THINKING)?.unwrap_or_default();
    let gpu_class =
        settings::read_gpu_class(&mut section)?.unwrap_or_else(|| base.gpu_class.clone());
    let mut generation = base.generation.clone();
    if let Some(mut overrides) = section.section("generation")? {
        settings::read_generation(&mut overrides, &mut generation)?;
        overrides.finish()?;
    }
    settings::settle(&mut generation);
    let mut engines = base.engines.clone();
    if let Some(mut overrides) = section.section("engine")? {
        engines = settings::read_engines(&mut overrides, &engines)?;
        overrides.finish()?;
    }

    let id = display_id(&source);
    let name = label.clone().unwrap_or_else(|| id.clone());
    if let Some(earlier) = seen.insert(name.clone(), number) {
        let key = if label.is_some() {
            "label"
        } else if section.has("id") {
            "id"
        } else {
            "path"
        };
        return Err(section.error_at(
            key,
            format!(
                "is \"{name}\" as in models[{earlier}]: give one of them a `label` of its own, or remove it"
            ),
        ));
    }
    section.finish()?;
    Ok(Model { name, label, source, format, thinking, gpu_class, generation, engines })
}

fn display_id(source: &ModelSource) -> String {
    bakeoff_model::ModelSpec {
        source: source.clone(),
        format: Format::Auto,
        thinking: Thinking::Auto,
    }
    .display_id()
}

fn source(section: &mut Section<'_>, folder: &Path) -> Result<ModelSource, SweepError> {
    let id = section.string("id")?;
    let path = section.string("path")?;
    let revision = section.string("revision")?;
    let source = match (id, path) {
        (Some(id), None) => match id.strip_prefix("builtin:") {
            Some(name) => builtin(section, name)?,
            None => hub(section, id, revision.as_deref())?,
        },
        (None, Some(path)) => {
            if path.is_empty() {
                return Err(section.error_at("path", "is empty: name the model's folder"));
            }
            ModelSource::Path { path: folder.join(path).display().to_string() }
        }
        (Some(_), Some(_)) => {
            return Err(section.error_at("path", "stands beside `id`: a model has one of the two"));
        }
        (None, None) => {
            return Err(section.error_at(
                "id",
                "is missing: name a model of the hub (`owner/name`), a built-in one (`builtin:…`), or a folder as `path`",
            ));
        }
    };
    if revision.is_some() && !matches!(source, ModelSource::Hub { .. }) {
        return Err(section.error_at("revision", "only applies to a model of the hub: remove it"));
    }
    Ok(source)
}

fn builtin(section: &Section<'_>, name: &str) -> Result<ModelSource, SweepError> {
    if BUILTIN_MODELS.contains(&name) {
        return Ok(ModelSource::Builtin { name: name.to_owned() });
    }
    let hint = nearest(name, &BUILTIN_MODELS)
        .map(|near| format!("did you mean `builtin:{near}`?"))
        .unwrap_or_else(|| format!("there are {}", BUILTIN_MODELS.join(", ")));
    Err(section
        .error_at("id", format!("names no built-in model: `builtin:{}`; {hint}", shorten(name))))
}

fn hub(
    section: &Section<'_>,
    id: String,
    revision: Option<&str>,
) -> Result<ModelSource, SweepError> {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && !part.contains("..")
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
    };
    let parts: Vec<_> = id.split('/').collect();
    if id.len() > 128 || parts.len() > 2 || !parts.iter().all(|p| part(p)) {
        return Err(section.error_at(
            "id",
            format!(
                "must be `owner/name` as the hub has it, found \"{}\"; for a folder use `path`",
                shorten(&id)
            ),
        ));
    }
    let revision = revision.unwrap_or("main");
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/');
    if revision.is_empty()
        || revision.len() > 128
        || !revision.chars().all(fine)
        || revision.contains("..")
    {
        return Err(section.error_at(
            "revision",
            format!("must be a commit, a branch or a tag, found \"{}\"", shorten(revision)),
        ));
    }
    Ok(ModelSource::Hub { id, revision: revision.to_owned() })
}
