//! Suites in the manner of HumanEval: a JSONL file of tasks becomes one prompt each.

use std::path::Path;

use serde::Deserialize;

use super::{Prompt, Section, SweepError, Task, shorten};

#[derive(Deserialize)]
struct Line {
    task_id: String,
    prompt: String,
    test: String,
    entry_point: String,
}

/// Put before each task's text unless the sweep says otherwise.
pub const INSTRUCTION: &str =
    "Complete the following Python function. Answer with the whole function in one code block.\n\n";

/// Most tasks of one suite.
const MAX_TASKS: usize = 10_000;

/// The prompts of a suite. `template` holds what they have in common; its id is their prefix.
pub fn read(
    section: &Section<'_>,
    folder: &Path,
    file: &str,
    instruction: &str,
    template: &Prompt,
) -> Result<Vec<Prompt>, SweepError> {
    let path = folder.join(file);
    let text = std::fs::read_to_string(&path)
        .map_err(|error| section.error_at("suite", format!("names {}: {error}", path.display())))?;
    let mut prompts: Vec<Prompt> = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = |what: String| {
            section
                .error_at("suite", format!("names {}, line {}: {what}", path.display(), index + 1))
        };
        let task: Line = serde_json::from_str(line).map_err(|error| {
            wrong(format!("not a task with `task_id`, `prompt`, `test` and `entry_point`: {error}"))
        })?;
        let identifier = |c: char| c == '_' || c.is_alphanumeric();
        if task.entry_point.is_empty() || !task.entry_point.chars().all(identifier) {
            return Err(wrong(format!(
                "`entry_point` must name a function, found \"{}\"",
                shorten(&task.entry_point)
            )));
        }
        let id = format!("{}-{}", template.id, bakeoff_proto::names::file_token(&task.task_id));
        if prompts.iter().any(|prompt| prompt.id == id) {
            return Err(wrong(format!("task \"{}\" is there twice", shorten(&task.task_id))));
        }
        prompts.push(Prompt {
            id,
            text: format!("{instruction}{}", task.prompt),
            task: Some(Task {
                task_id: task.task_id,
                prompt: task.prompt,
                test: task.test,
                entry_point: task.entry_point,
            }),
            ..template.clone()
        });
        if prompts.len() > MAX_TASKS {
            return Err(wrong(format!("more than {MAX_TASKS} tasks: split the suite")));
        }
    }
    if prompts.is_empty() {
        return Err(
            section.error_at("suite", format!("names {}, which has no tasks", path.display()))
        );
    }
    Ok(prompts)
}
