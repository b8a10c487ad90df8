//! Suites in the manner of HumanEval: a JSONL file of tasks becomes one prompt each.

use std::path::Path;

use serde::Deserialize;

use super::problem::{SweepProblem, TaskProblem};
use super::types::{Prompt, Task};

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
    path: &Path,
    instruction: &str,
    template: &Prompt,
) -> Result<Vec<Prompt>, SweepProblem> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| SweepProblem::UnreadableFile { path: path.to_owned(), source })?;
    let mut prompts: Vec<Prompt> = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let prompt = read_task(line, instruction, template)
            .and_then(|prompt| {
                if prompts.len() == MAX_TASKS {
                    return Err(TaskProblem::TooMany(MAX_TASKS));
                }
                match prompts.iter().any(|earlier| earlier.id == prompt.id) {
                    true => Err(TaskProblem::Repeated(
                        prompt.task.map(|task| task.task_id).unwrap_or_default(),
                    )),
                    false => Ok(prompt),
                }
            })
            .map_err(|source| SweepProblem::BadTask {
                path: path.to_owned(),
                line: index + 1,
                source,
            })?;
        prompts.push(prompt);
    }
    if prompts.is_empty() {
        return Err(SweepProblem::NoTasks(path.to_owned()));
    }
    Ok(prompts)
}

fn read_task(line: &str, instruction: &str, template: &Prompt) -> Result<Prompt, TaskProblem> {
    let task: Line = serde_json::from_str(line).map_err(TaskProblem::NotATask)?;
    let identifier = |c: char| c == '_' || c.is_alphanumeric();
    if task.entry_point.is_empty() || !task.entry_point.chars().all(identifier) {
        return Err(TaskProblem::NotAFunction(task.entry_point));
    }
    Ok(Prompt {
        id: format!("{}-{}", template.id, bakeoff_model::spec::file_token(&task.task_id)),
        text: format!("{instruction}{}", task.prompt),
        task: Some(Task {
            task_id: task.task_id,
            prompt: task.prompt,
            test: task.test,
            entry_point: task.entry_point,
        }),
        ..template.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Sweep, parse};
    use super::*;
    use crate::toml_file::FileError;

    const GOOD: &str = r#"{"task_id": "own/1", "prompt": "def f():\n", "test": "def check(c): c()", "entry_point": "f"}"#;

    /// A sweep whose suite has these lines.
    fn sweep(lines: &str, more: &str) -> Result<Sweep, FileError> {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("suite.jsonl"), lines).expect("it is writable");
        let text = format!(
            "name = \"s\"\n[[prompts]]\nid = \"own\"\nsuite = \
            \"suite.jsonl\"\n{more}\n[[models]]\nid = \"a/b\"\n"
        );
        parse(&text, "sweep.toml", folder.path())
    }

    #[test]
    fn each_task_becomes_a_prompt() {
        let second = GOOD.replace("own/1", "own/2");
        let sweep = sweep(&format!("{GOOD}\n\n{second}\n"), "").expect("two tasks");
        let ids: Vec<_> = sweep.prompts.iter().map(|prompt| prompt.id.as_str()).collect();
        assert_eq!(ids, ["own-own_1", "own-own_2"]);
        assert_eq!(sweep.prompts[0].text, format!("{INSTRUCTION}def f():\n"));
        let task = sweep.prompts[0].task.as_ref().expect("a task");
        assert_eq!((task.entry_point.as_str(), task.task_id.as_str()), ("f", "own/1"));
    }

    #[test]
    fn a_sweep_may_say_what_stands_before_the_tasks() {
        let sweep = sweep(GOOD, "instruction = \"Go: \"").expect("a task");
        assert_eq!(sweep.prompts[0].text, "Go: def f():\n");
    }

    #[test]
    fn a_bad_suite_is_refused_with_its_line() {
        let message = |lines: &str| crate::error::chain(&sweep(lines, "").expect_err(lines));
        let second = |line: &str| message(&format!("{GOOD}\n{line}\n"));
        assert!(second("{").contains("sweep.toml:4: `prompts[1].suite` names "));
        assert!(second("{").contains("suite.jsonl, line 2: not a task with `task_id`"));
        assert!(
            second(&GOOD.replace("entry_point", "entry")).contains("missing field `entry_point`")
        );
        assert!(second(GOOD).contains("task \"own/1\" occurs twice"));
        let odd = GOOD.replace("\"f\"", "\"f; import os\"").replace("own/1", "own/3");
        assert!(
            second(&odd).contains("`entry_point` must name a function, found \"f; import os\"")
        );
        assert!(message("\n \n").contains("has no tasks"));
        let folder = Path::new("/nowhere");
        let text = "name = \"s\"\n[[prompts]]\nid = \"own\"\nsuite = \"x.jsonl\"\n[[models]]\nid \
        = \"a/b\"\n";
        let missing = parse(text, "sweep.toml", folder).expect_err("no file");
        let missing = crate::error::chain(&missing);
        assert!(missing.contains("names /nowhere/x.jsonl, which cannot be read: "), "{missing}");
        let alone = text.replace("suite = \"x.jsonl\"", "text = \"x\"\ninstruction = \"y\"");
        let alone = parse(&alone, "sweep.toml", folder).expect_err("no suite").to_string();
        assert!(alone.contains("only applies to a `suite`"), "{alone}");
    }
}
