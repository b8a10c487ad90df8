//! `[[prompts]]`: inline or from a file beside the sweep.

use std::collections::HashSet;
use std::path::Path;

use super::{Prompt, Section, SweepError, check_id, suite};
use crate::quality::{Compiled, Rubric};

pub fn read(top: &mut Section<'_>, folder: &Path) -> Result<Vec<Prompt>, SweepError> {
    let sections = top.sections("prompts")?;
    if sections.is_empty() {
        return Err(top.error_at("prompts", "is missing: add a [[prompts]] with `id` and `text`"));
    }
    let mut prompts = Vec::new();
    let mut seen = HashSet::new();
    for section in sections {
        prompts.extend(read_one(section, folder, &mut seen)?);
    }
    Ok(prompts)
}

fn read_one(
    mut section: Section<'_>,
    folder: &Path,
    seen: &mut HashSet<String>,
) -> Result<Vec<Prompt>, SweepError> {
    let id = section.required_string("id")?;
    check_id(&section, "id", &id)?;
    if !seen.insert(id.clone()) {
        return Err(
            section.error_at("id", format!("is \"{id}\" for the second time: ids are unique"))
        );
    }
    let suite = section.string("suite")?;
    let instruction = section.string("instruction")?;
    let text = match &suite {
        Some(_) => String::new(),
        None => text(&mut section, folder)?,
    };
    if suite.is_none() && instruction.is_some() {
        return Err(section.error_at("instruction", "only stands before the tasks of a `suite`"));
    }
    let system = section.string("system")?;
    let language = section.string("language")?.unwrap_or_else(|| "python".to_owned());
    check_id(&section, "language", &language)?;
    let code_hint = section.string("code_hint")?.unwrap_or_else(|| default_hint(&language));
    let rubric = rubric(&mut section, folder, &language)?;
    let prompt = Prompt { id, text, system, language, code_hint, rubric, task: None };
    let prompts = match suite {
        Some(file) => {
            let instruction = instruction.as_deref().unwrap_or(suite::INSTRUCTION);
            suite::read(&section, folder, &file, instruction, &prompt)?
        }
        None => vec![prompt],
    };
    section.finish()?;
    Ok(prompts)
}

/// A shipped rubric by name, or a file beside the sweep; frozen whole, so that the report does not
/// change when the file does. `none` switches it off.
fn rubric(
    section: &mut Section<'_>,
    folder: &Path,
    language: &str,
) -> Result<Option<Rubric>, SweepError> {
    let Some(name) = section.string("rubric")? else {
        let python = language.eq_ignore_ascii_case("python");
        return Ok(Rubric::shipped("python-code").filter(|_| python));
    };
    if name == "none" {
        return Ok(None);
    }
    if let Some(rubric) = Rubric::shipped(&name) {
        return Ok(Some(rubric));
    }
    if !name.ends_with(".toml") {
        let hint = match super::nearest(&name, &Rubric::SHIPPED) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => {
                format!("there are {}, or a .toml file, or \"none\"", Rubric::SHIPPED.join(", "))
            }
        };
        return Err(section.error_at("rubric", format!("names no rubric: \"{name}\"; {hint}")));
    }
    let path = folder.join(&name);
    let wrong = |message: String| {
        section.error_at("rubric", format!("names {}: {message}", path.display()))
    };
    let text = std::fs::read_to_string(&path).map_err(|error| wrong(error.to_string()))?;
    let rubric = Rubric::parse(&text).map_err(|error| wrong(error.to_string()))?;
    Compiled::new(rubric.clone()).map_err(|error| wrong(error.to_string()))?;
    Ok(Some(rubric))
}

/// A base model for code continues a file: the hint is the comment that such a file starts with.
fn default_hint(language: &str) -> String {
    match language.to_lowercase().as_str() {
        "python" | "ruby" | "bash" | "shell" | "r" | "perl" => format!("# Language: {language}\n"),
        _ => format!("// Language: {language}\n"),
    }
}

fn text(section: &mut Section<'_>, folder: &Path) -> Result<String, SweepError> {
    let inline = section.string("text")?;
    let file = section.string("file")?;
    let (key, text) = match (inline, file) {
        (Some(text), None) => ("text", text),
        (None, Some(file)) => {
            let path = folder.join(&file);
            let bytes = std::fs::read(&path).map_err(|error| {
                section.error_at("file", format!("names {}: {error}", path.display()))
            })?;
            let text = String::from_utf8(bytes).map_err(|error| {
                section.error_at(
                    "file",
                    format!("names {}, which is not UTF-8: {error}", path.display()),
                )
            })?;
            ("file", text)
        }
        (Some(_), Some(_)) => {
            return Err(
                section.error_at("file", "stands beside `text`: a prompt has one of the two")
            );
        }
        (None, None) => {
            return Err(
                section.error_at("text", "is missing: give the prompt as `text` or as a `file`")
            );
        }
    };
    if text.trim().is_empty() {
        return Err(section.error_at(key, "gives an empty prompt"));
    }
    Ok(text)
}
