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
        let id = format!("{}-{}", template.id, bakeoff_model::spec::file_token(&task.task_id));
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

#[cfg(test)]
mod tests {
    use super::super::{Sweep, parse};
    use super::*;

    const GOOD: &str = r#"{"task_id": "own/1", "prompt": "def f():\n", "test": "def check(c): c()", "entry_point": "f"}"#;

    /// A sweep whose suite has these lines.
    fn sweep(lines: &str, more: &str) -> Result<Sweep, SweepError> {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("suite.jsonl"), lines).expect("it is writable");
        let text = format!(
            "name = \"s\"\n[[prompts]]\nid = \"own\"\nsuite = \"suite.jsonl\"\n{more}\n[[models]]\nid = \"a/b\"\n"
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
        let message = |lines: &str| sweep(lines, "").expect_err(lines).to_string();
        let second = |line: &str| message(&format!("{GOOD}\n{line}\n"));
        assert!(second("{").contains("sweep.toml:4: `prompts[1].suite` names "));
        assert!(second("{").contains("suite.jsonl, line 2: not a task with `task_id`"));
        assert!(
            second(&GOOD.replace("entry_point", "entry")).contains("missing field `entry_point`")
        );
        assert!(second(GOOD).contains("task \"own/1\" is there twice"));
        let odd = GOOD.replace("\"f\"", "\"f; import os\"").replace("own/1", "own/3");
        assert!(
            second(&odd).contains("`entry_point` must name a function, found \"f; import os\"")
        );
        assert!(message("\n \n").contains("has no tasks"));
        let folder = Path::new("/nowhere");
        let text = "name = \"s\"\n[[prompts]]\nid = \"own\"\nsuite = \"x.jsonl\"\n[[models]]\nid = \"a/b\"\n";
        let missing = parse(text, "sweep.toml", folder).expect_err("no file").to_string();
        assert!(missing.contains("names /nowhere/x.jsonl: "), "{missing}");
        let alone = text.replace("suite = \"x.jsonl\"", "text = \"x\"\ninstruction = \"y\"");
        let alone = parse(&alone, "sweep.toml", folder).expect_err("no suite").to_string();
        assert!(alone.contains("only stands before the tasks of a `suite`"), "{alone}");
    }
}
