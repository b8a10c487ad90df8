//! All checks of one output, and what their ends mean for the code.

use bakeoff_proto::{MetricsRecord, SCHEMA_VERSION};

use super::sandbox::{Action, Ended, Exit, Sandbox, SandboxError};
use super::{Check, CheckReport, Verdict, extract};
use crate::quality;
use crate::sweep::{CheckSettings, Prompt};

/// File name of the code inside the sandbox.
const SOLUTION: &str = "solution.py";

/// Runs the checks that `settings` ask for on one output; a suite's task is always put to its test.
pub fn run(
    sandbox: &Sandbox,
    settings: &CheckSettings,
    prompt: &Prompt,
    record: &MetricsRecord,
    output: &str,
) -> Result<CheckReport, SandboxError> {
    let program = match &prompt.task {
        Some(task) => extract::task_program(output, task),
        None => extract::solution(output, &prompt.language),
    };
    let mut checks = Vec::new();
    for (name, action) in actions(settings, prompt) {
        let check = match &program {
            Some(code) => {
                let mut files = settings.files.clone();
                files.insert(SOLUTION.to_owned(), code.clone());
                let ended = sandbox.run(&action, &files)?;
                judge(name, &ended, sandbox, settings)
            }
            None => without_code(name, prompt),
        };
        let failed = check.verdict == Verdict::Fail;
        checks.push(check);
        if failed && name == "compile" {
            // What does not compile neither imports nor passes: said once.
            break;
        }
    }
    Ok(CheckReport {
        schema_version: SCHEMA_VERSION,
        cell: record.cell.clone(),
        document_sha256: record.document.sha256.clone(),
        sandboxed: sandbox.is_isolated(),
        python: sandbox.python.version.clone(),
        checks,
    })
}

/// Name and action of each check, the cheapest first.
fn actions(settings: &CheckSettings, prompt: &Prompt) -> Vec<(&'static str, Action)> {
    let mut actions = Vec::new();
    if settings.compile {
        actions.push(("compile", Action::Compile));
    }
    match &prompt.task {
        Some(task) => actions.push((
            "test",
            Action::Task { entry_point: task.entry_point.clone(), test: task.test.clone() },
        )),
        None => {
            if settings.import {
                actions.push(("import", Action::Import));
            }
            if let Some(argv) = &settings.command {
                actions.push(("command", Action::Command { argv: argv.clone() }));
            }
        }
    }
    actions
}

/// An answer without a program is a failed one; where none was asked for, nothing is known.
fn without_code(name: &str, prompt: &Prompt) -> Check {
    let (verdict, detail) = if quality::is_python(&prompt.language) {
        (Verdict::Fail, "the answer holds no Python code".to_owned())
    } else {
        let language = &prompt.language;
        (Verdict::NotRun, format!("checks run Python; the prompt asks for {language}"))
    };
    Check { name: name.to_owned(), verdict, detail }
}

fn judge(name: &str, ended: &Ended, sandbox: &Sandbox, settings: &CheckSettings) -> Check {
    let check = |verdict, detail: String| Check { name: name.to_owned(), verdict, detail };
    let third_party = |module: &str| {
        let top = module.split('.').next().unwrap_or(module);
        let own = top == "solution" || settings.files.contains_key(&format!("{top}.py"));
        !own && !sandbox.python.standard.iter().any(|known| known == top)
    };
    let missing = |module: &str| {
        check(
            Verdict::NotRun,
            format!("module `{module}` is not installed for {}", settings.python),
        )
    };
    match (&ended.report, ended.exit) {
        (_, Exit::Bound(_) | Exit::Signal(_)) => check(Verdict::Fail, ended.exit.words(settings)),
        (Some(report), _) => match (&report.missing_module, &report.missing_command) {
            (Some(module), _) if third_party(module) => missing(module),
            (_, Some(command)) => {
                check(Verdict::NotRun, format!("`{command}` cannot be run: {}", report.detail))
            }
            _ if report.passed => check(Verdict::Pass, String::new()),
            _ => check(Verdict::Fail, report.detail.clone()),
        },
        (None, Exit::Code(code)) if name == "command" => {
            if code == 0 {
                return check(Verdict::Pass, String::new());
            }
            match missing_module(&ended.stderr).or_else(|| missing_module(&ended.stdout)) {
                Some(module) if third_party(module) => missing(module),
                _ => check(Verdict::Fail, format!("exit code {code}{}", last_words(ended))),
            }
        }
        (None, Exit::Code(_)) => {
            check(Verdict::Fail, "the code ended the interpreter before its check was over".into())
        }
    }
}

/// The module that a traceback or `python -m` misses, in the interpreter's own words.
fn missing_module(text: &str) -> Option<&str> {
    const WORDS: &str = "No module named ";
    text.lines().rev().find_map(|line| {
        let at = line.find(WORDS)? + WORDS.len();
        let name = line[at..].trim_start_matches('\'');
        let end =
            name.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '.').unwrap_or(name.len());
        (end > 0).then_some(&name[..end])
    })
}

/// The end of what a command wrote, on one line.
fn last_words(ended: &Ended) -> String {
    const KEPT: usize = 400;
    let text = if ended.stderr.trim().is_empty() { &ended.stdout } else { &ended.stderr };
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.is_empty() {
        return String::new();
    }
    let skipped = line.chars().count().saturating_sub(KEPT);
    let kept: String = line.chars().skip(skipped).collect();
    format!(": {}{kept}", if skipped > 0 { "…" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_module_is_read_from_a_traceback_and_from_dash_m() {
        let traceback = "Traceback (most recent call last):\n  File \"x\"\nModuleNotFoundError: \
        No module named 'a.b'\n";
        assert_eq!(missing_module(traceback), Some("a.b"));
        assert_eq!(missing_module("/usr/bin/python3: No module named pytest\n"), Some("pytest"));
        assert_eq!(missing_module("AssertionError"), None);
    }
}
