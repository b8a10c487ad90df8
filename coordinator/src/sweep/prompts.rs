//! `[[prompts]]`: inline or from a file beside the sweep.

use std::collections::HashSet;
use std::path::Path;

use super::{Prompt, Section, SweepError, check_id};

pub fn read(top: &mut Section<'_>, folder: &Path) -> Result<Vec<Prompt>, SweepError> {
    let sections = top.sections("prompts")?;
    if sections.is_empty() {
        return Err(top.error_at("prompts", "is missing: add a [[prompts]] with `id` and `text`"));
    }
    let mut prompts = Vec::new();
    let mut seen = HashSet::new();
    for section in sections {
        let prompt = read_one(section, folder, &mut seen)?;
        prompts.push(prompt);
    }
    Ok(prompts)
}

fn read_one(
    mut section: Section<'_>,
    folder: &Path,
    seen: &mut HashSet<String>,
) -> Result<Prompt, SweepError> {
    let id = section.required_string("id")?;
    check_id(&section, "id", &id)?;
    if !seen.insert(id.clone()) {
        return Err(
            section.error_at("id", format!("is \"{id}\" for the second time: ids are unique"))
        );
    }
    let text = text(&mut section, folder)?;
    let system = section.string("system")?;
    let language = section.string("language")?.unwrap_or_else(|| "python".to_owned());
    check_id(&section, "language", &language)?;
    let code_hint = section.string("code_hint")?.unwrap_or_else(|| default_hint(&language));
    section.finish()?;
    Ok(Prompt { id, text, system, language, code_hint })
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
