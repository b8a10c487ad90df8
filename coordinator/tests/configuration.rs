//! Documents that must agree with the code: `deploy/CONFIGURATION.md`, made from the programs' own
//! definitions, and the tests that SECURITY.md names.
//!
//! `BAKEOFF_UPDATE_REFERENCE=1 cargo test -p bakeoff-coordinator --test configuration` writes it
//! anew.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bakeoff_coordinator::commands::Cli;
use bakeoff_transport::env::STANDARD;
use bakeoff_worker::observe::Meters;
use bakeoff_worker::telemetry::Gpu;
use clap::{Arg, Command, CommandFactory, Parser};
use regex::Regex;

const HEAD: &str = "\
# Configuration

Every option, environment variable and metric of both programs. Made from their definitions; do not edit
(CONTRIBUTING.md says how it is written anew). An option on the command line wins over its variable.
Variables marked (secret) never show in logs, records or `--help`.
";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Options with a heading are shared: told once, with the commands that take them.
type Shared = BTreeMap<String, (Vec<String>, Vec<String>)>;

fn reference() -> String {
    let mut text = HEAD.to_owned();
    let mut shared = Shared::new();
    for program in [Cli::command(), bakeoff_worker::commands::command_line()] {
        let name = program.get_name().to_owned();
        write!(text, "\n## {name}\n\n{}.\n", about(&program)).unwrap();
        table(&mut text, program.get_arguments().filter(|arg| !is_builtin(arg)).map(row).collect());
        for command in program.get_subcommands().filter(|command| command.get_name() != "help") {
            let full = format!("{name} {}", command.get_name());
            write!(text, "\n### {full}\n\n{}.\n", about(command)).unwrap();
            table(&mut text, own_rows(command, &full, &mut shared));
            text.push_str(&exit_codes(command));
        }
    }
    for (heading, (rows, commands)) in shared {
        write!(text, "\n## {heading}\n\nTaken by `{}`.\n", commands.join("`, `")).unwrap();
        table(&mut text, rows);
    }
    for (heading, variables) in STANDARD {
        write!(text, "\n## {heading}: standard variables\n").unwrap();
        let row =
            |(name, what): &(&str, &str)| format!("| `{}` | {what} |", name.replace(", ", "`, `"));
        write!(text, "\n| variable | what |\n|---|---|\n").unwrap();
        text.push_str(&(variables.iter().map(row).collect::<Vec<_>>().join("\n") + "\n"));
    }
    text.push_str("\n## Metrics of `worker run --health-addr`\n\n| metric | what |\n|---|---|\n");
    for (name, help) in Meters::new(Arc::new(Gpu::open(None))).catalogue() {
        writeln!(text, "| `{name}` | {help} |").unwrap();
    }
    text
}

fn about(command: &Command) -> String {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    about.trim_end_matches('.').to_owned()
}

/// What the help says of exit codes that are the command's own.
fn exit_codes(command: &Command) -> String {
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let paragraph = help.split("\n\n").find(|paragraph| paragraph.starts_with("Exit code"));
    paragraph.map(|text| format!("\n```text\n{text}\n```\n")).unwrap_or_default()
}

fn is_builtin(arg: &Arg) -> bool {
    matches!(arg.get_id().as_str(), "help" | "version")
}

fn own_rows(command: &Command, full: &str, shared: &mut Shared) -> Vec<String> {
    let mut own = Vec::new();
    for arg in command.get_arguments().filter(|arg| !is_builtin(arg)) {
        let Some(heading) = arg.get_help_heading() else {
            own.push(row(arg));
            continue;
        };
        let (rows, commands) = shared.entry(heading.to_owned()).or_default();
        if !rows.contains(&row(arg)) {
            rows.push(row(arg));
        }
        if !commands.iter().any(|command| command == full) {
            commands.push(full.to_owned());
        }
    }
    own
}

fn table(text: &mut String, rows: Vec<String>) {
    if rows.is_empty() {
        return;
    }
    text.push_str("\n| option | variable | default | what |\n|---|---|---|---|\n");
    text.push_str(&(rows.join("\n") + "\n"));
}

fn row(arg: &Arg) -> String {
    let values: Vec<String> =
        arg.get_value_names().unwrap_or_default().iter().map(|name| format!(" {name}")).collect();
    let takes_value = arg.get_action().takes_values();
    let option = match arg.get_long() {
        // Only its variable is meant to be used: a process list shows options to everybody.
        Some(_) if arg.is_hide_set() => String::new(),
        Some(long) if takes_value => format!("`--{long}{}`", values.concat()),
        Some(long) => format!("`--{long}`"),
        None => format!("`{}`", values.concat().trim()),
    };
    let variable = arg.get_env().map(|name| format!("`{}`", name.display())).unwrap_or_default();
    let defaults: Vec<_> =
        arg.get_default_values().iter().map(|value| value.display().to_string()).collect();
    let default = match defaults.join(",") {
        _ if !takes_value => String::new(),
        text if text.is_empty() => String::new(),
        text => format!("`{text}`"),
    };
    let mut what = arg.get_help().map(ToString::to_string).unwrap_or_default().replace('\n', " ");
    let choices: Vec<String> =
        arg.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
    if takes_value && !choices.is_empty() {
        what = format!("{what} ({})", choices.join(", "));
    }
    if arg.is_hide_set() {
        what = format!("{what} (secret)");
    }
    format!("| {option} | {variable} | {default} | {} |", what.trim().replace('|', "\\|"))
}

#[test]
fn the_reference_is_what_the_programs_say() {
    let path = repository().join("deploy/CONFIGURATION.md");
    let made = reference();
    if std::env::var_os("BAKEOFF_UPDATE_REFERENCE").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let differing = made.lines().zip(committed.lines()).find(|(made, committed)| made != committed);
    assert!(
        made == committed,
        "deploy/CONFIGURATION.md is not what the programs say; write it anew with \
         `BAKEOFF_UPDATE_REFERENCE=1 cargo test -p bakeoff-coordinator --test configuration`: {differing:?}"
    );
}

#[test]
fn every_variable_that_the_sources_name_is_in_the_reference() {
    let name = Regex::new(r#""((?:BAKEOFF|NATS|AWS|HF|OTEL)_[A-Z0-9_]+)""#).unwrap();
    let reference = reference();
    let mut seen = 0;
    for folder in ["coordinator/src", "worker/src", "worker/engine/src", "proto/transport/src"] {
        for (path, text) in sources(&repository().join(folder)) {
            // The tests' cache is no user's.
            for found in name.captures_iter(&text).map(|captures| captures[1].to_owned()) {
                if found == "BAKEOFF_TEST_CACHE" {
                    continue;
                }
                seen += 1;
                assert!(
                    reference.contains(&format!("`{found}`")),
                    "{} reads {found}, which is in no option and not in transport/src/env.rs",
                    path.display()
                );
            }
        }
    }
    assert!(seen > 20, "{seen} variables were found in the sources");
}

fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
    found
}

#[test]
fn no_secret_shows_in_the_parsed_command_line() {
    let broker = ["--nats", "nats://u:hunter2@b", "--nats-password", "hunter2"];
    let store = ["--s3-endpoint", "http://u:hunter2@s", "--store", "s3://results"];
    let words = [&["coordinator", "submit", "sweep.toml"][..], &broker, &store].concat();
    let shown = format!("{:?}", Cli::try_parse_from(words).unwrap());
    assert!(shown.contains("nats://b") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn both_programs_complete_in_every_shell() {
    use clap_complete::Shell;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::PowerShell, Shell::Elvish] {
        for (mut command, word) in [
            (Cli::command(), "collect"),
            (bakeoff_worker::commands::command_line(), "--health-addr"),
        ] {
            let mut script = Vec::new();
            let name = command.get_name().to_owned();
            clap_complete::generate(shell, &mut command, name, &mut script);
            let script = String::from_utf8(script).unwrap();
            let word = if shell == Shell::Fish { word.trim_start_matches('-') } else { word };
            assert!(script.contains(word), "{shell}: no {word}");
        }
    }
}

#[test]
fn every_test_that_the_threat_model_names_exists() {
    let text = std::fs::read_to_string(repository().join("SECURITY.md")).unwrap();
    let named = Regex::new(r"`([a-z0-9_/-]+\.rs)::([a-z0-9_]+)`").unwrap();
    let mut seen = 0;
    for captures in named.captures_iter(&text) {
        let (path, test) = (&captures[1], &captures[2]);
        let source = std::fs::read_to_string(repository().join(path)).unwrap_or_default();
        assert!(source.contains(&format!("fn {test}(")), "SECURITY.md names {path}::{test}");
        seen += 1;
    }
    assert!(seen >= 12, "{seen} tests are named");
}
