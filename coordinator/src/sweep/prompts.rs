//! `[[prompts]]`: inline or from a file beside the sweep.

use std::collections::HashSet;
use std::path::Path;

use super::file::PromptEntry;
use super::problem::SweepProblem;
use super::problem::check_id;
use super::suite;
use super::types::Prompt;
use crate::quality::{Compiled, Rubric};
use crate::toml_file::{At, KeyPath};

pub fn read(entries: Vec<PromptEntry>, folder: &Path) -> Result<Vec<Prompt>, At<SweepProblem>> {
    let list = KeyPath::top("prompts");
    if entries.is_empty() {
        let add = "add a [[prompts]] with `id` and `text`";
        return Err(list.refuse(SweepProblem::Missing { add }));
    }
    let mut prompts = Vec::new();
    let mut seen = HashSet::new();
    for (index, entry) in entries.into_iter().enumerate() {
        let path = list.index(index);
        check_id(&entry.id, path.key("id"))?;
        if !seen.insert(entry.id.clone()) {
            return Err(path.key("id").refuse(SweepProblem::RepeatedId(entry.id)));
        }
        prompts.extend(read_one(entry, &path, folder)?);
    }
    Ok(prompts)
}

fn read_one(
    entry: PromptEntry,
    path: &KeyPath,
    folder: &Path,
) -> Result<Vec<Prompt>, At<SweepProblem>> {
    let text = text(&entry, path, folder)?;
    if entry.suite.is_none() && entry.instruction.is_some() {
        let problem = SweepProblem::OnlyFor { to: "a `suite`, before each of its tasks" };
        return Err(path.key("instruction").refuse(problem));
    }
    let language = entry.language.unwrap_or_else(|| "python".to_owned());
    check_id(&language, path.key("language"))?;
    let prompt = Prompt {
        id: entry.id,
        text,
        system: entry.system,
        code_hint: entry.code_hint.unwrap_or_else(|| default_hint(&language)),
        rubric: rubric(entry.rubric.as_deref(), &language, path.key("rubric"), folder)?,
        language,
        task: None,
    };
    match entry.suite {
        Some(file) => {
            let instruction = entry.instruction.as_deref().unwrap_or(suite::INSTRUCTION);
            suite::read(&folder.join(file), instruction, &prompt)
                .map_err(|problem| path.key("suite").refuse(problem))
        }
        None => Ok(vec![prompt]),
    }
}

/// A shipped rubric by name, or a file beside the sweep; frozen whole, so that the report does not
/// change when the file does. `none` switches it off.
fn rubric(
    name: Option<&str>,
    language: &str,
    at: KeyPath,
    folder: &Path,
) -> Result<Option<Rubric>, At<SweepProblem>> {
    let Some(name) = name else {
        let python = language.eq_ignore_ascii_case("python");
        return Ok(Rubric::shipped("python-code").filter(|_| python));
    };
    if name == "none" {
        return Ok(None);
    }
    if let Some(rubric) = Rubric::shipped(name) {
        return Ok(Some(rubric));
    }
    if !name.ends_with(".toml") {
        let known = [&Rubric::SHIPPED[..], &["none", "FILE.toml"]].concat();
        return Err(at.refuse(SweepProblem::unknown("rubric", name, &known)));
    }
    let path = folder.join(name);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(source) => return Err(at.refuse(SweepProblem::UnreadableFile { path, source })),
    };
    let compiled = Rubric::parse(&text).and_then(Compiled::new);
    match compiled {
        Ok(compiled) => Ok(Some(compiled.rubric)),
        Err(source) => Err(at.refuse(SweepProblem::BadRubric { path, source })),
    }
}

/// A base model for code continues a file: the hint is the comment that such a file starts with.
fn default_hint(language: &str) -> String {
    match language.to_lowercase().as_str() {
        "python" | "ruby" | "bash" | "shell" | "r" | "perl" => format!("# Language: {language}\n"),
        _ => format!("// Language: {language}\n"),
    }
}

/// The prompt's text; empty for a suite, whose tasks have their own.
fn text(entry: &PromptEntry, at: &KeyPath, folder: &Path) -> Result<String, At<SweepProblem>> {
    let rule = "a prompt has one of `text`, `file` and `suite`";
    let (key, text) = match (&entry.text, &entry.file, &entry.suite) {
        (None, None, Some(_)) => return Ok(String::new()),
        (Some(text), None, None) => ("text", text.clone()),
        (None, Some(file), None) => ("file", read_text(folder.join(file), at.key("file"))?),
        (Some(_), Some(_), _) => {
            return Err(at.key("file").refuse(SweepProblem::Exclusive { other: "text", rule }));
        }
        (Some(_), None, Some(_)) => {
            return Err(at.key("suite").refuse(SweepProblem::Exclusive { other: "text", rule }));
        }
        (None, Some(_), Some(_)) => {
            return Err(at.key("suite").refuse(SweepProblem::Exclusive { other: "file", rule }));
        }
        (None, None, None) => {
            let add = "give the prompt as `text` or as a `file`";
            return Err(at.key("text").refuse(SweepProblem::Missing { add }));
        }
    };
    if text.trim().is_empty() {
        return Err(at.key(key).refuse(SweepProblem::Empty { add: "write the prompt" }));
    }
    Ok(text)
}

fn read_text(path: std::path::PathBuf, at: KeyPath) -> Result<String, At<SweepProblem>> {
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(source) => return Err(at.refuse(SweepProblem::UnreadableFile { path, source })),
    };
    String::from_utf8(bytes).map_err(|source| at.refuse(SweepProblem::NotUtf8 { path, source }))
}
