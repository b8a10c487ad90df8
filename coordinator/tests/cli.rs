//! The program as a user runs it: output, messages and exit codes.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bakeoff_coordinator::plan::{Plan, Revisions};
use bakeoff_coordinator::publish;
use bakeoff_transport::args::StoreArgs;
use bakeoff_transport::store;

fn coordinator(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_coordinator"))
        .args(args)
        .current_dir(folder)
        .env_clear()
        .env("HF_HUB_OFFLINE", "1")
        .env("COLUMNS", "100")
        .output()
        .expect("the coordinator starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Exit code 2, nothing on stdout, and the message.
fn refused(folder: &Path, args: &[&str]) -> String {
    let output = coordinator(folder, args);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "");
    text(&output.stderr)
}

#[test]
fn every_command_explains_itself_with_an_example() {
    let folder = tempfile::tempdir().unwrap();
    let top = coordinator(folder.path(), &["--help"]);
    assert!(top.status.success());
    insta::assert_snapshot!("help", text(&top.stdout));
    let mut all = String::new();
    for command in [
        "run",
        "plan",
        "submit",
        "watch",
        "status",
        "cancel",
        "retry",
        "collect",
        "check",
        "review",
        "compare",
        "export",
        "delete",
        "k8s-job",
        "completions",
    ] {
        let help = coordinator(folder.path(), &[command, "--help"]);
        let shown = text(&help.stdout);
        assert!(help.status.success() && shown.contains("Example"), "{command}: {shown}");
        all.push_str(&format!("### {command}\n{shown}\n"));
    }
    insta::assert_snapshot!("help_of_each_command", all);
}

#[test]
fn the_default_sweep_is_planned_offline_with_its_ledgers() {
    let folder = tempfile::tempdir().unwrap();
    let sweep = repository().join("deploy/sweeps/qwen-codegen.toml");
    let sweep = sweep.to_str().unwrap();
    let planned =
        coordinator(folder.path(), &["plan", sweep, "--gpu", "h100", "--price-per-gpu-hour", "3"]);
    assert!(planned.status.success(), "{}", text(&planned.stderr));
    insta::assert_snapshot!("plan_qwen_codegen", text(&planned.stdout));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "a dry run leaves nothing");

    let json = coordinator(folder.path(), &["plan", sweep, "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    let weights: Vec<String> = json["jobs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|job| format!("{:.1}", job["ledger"]["weight_bytes"].as_f64().unwrap() / 1e9))
        .collect();
    assert_eq!(weights, ["15.2", "65.5", "65.5", "61.1", "61.1"]);

    let small = coordinator(folder.path(), &["plan", sweep, "--gpu", "l4"]);
    assert_eq!(small.status.code(), Some(1), "four of five do not fit an L4");
}

#[test]
fn bad_input_ends_with_2_and_the_next_step() {
    let folder = tempfile::tempdir().unwrap();
    let sweep = folder.path().join("sweep.toml");
    let valid = "name = \"s\"\n[[prompts]]\nid = \"p\"\ntext = \"x\"\n[[models]]\nid = \
    \"builtin:tiny-qwen2\"\n";
    std::fs::write(&sweep, valid).unwrap();
    let unknown = valid.replace("[[models]]", "[[models]]\nformt = \"auto\"");
    std::fs::write(folder.path().join("unknown.toml"), unknown).unwrap();
    let folder = folder.path();
    let broker = ["--nats", "nats://127.0.0.1:1", "--nats-connect-s", "1"];
    let messages = [
        refused(folder, &["plan", "missing.toml"]),
        refused(folder, &["plan", "unknown.toml"]),
        refused(folder, &["submit", "sweep.toml", "--store", "./r"]),
        refused(folder, &[&["submit", "sweep.toml", "--store", "./r"], &broker[..]].concat()),
        refused(folder, &["plan", "sweep.toml", "--gpu", "h1000"]),
        refused(folder, &["collect", "nothing", "--store", "./r"]),
        refused(folder, &["collect", "nothing"]),
        refused(folder, &["status", "--store", "ftp://x"]),
        refused(folder, &["cancel", "../x", "--store", "./r"]),
    ];
    insta::assert_snapshot!("bad_input", messages.join("---\n"));
}

/// What the commands refuse in a store that holds the demo, of which one cell is done.
#[tokio::test]
async fn every_refusal_of_a_command_names_the_next_step() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let place = folder.join("r").display().to_string();
    let args = StoreArgs { store: Some(place), ..StoreArgs::default() };
    let objects = store::open(&args).await.unwrap();
    let mut plan = Plan::build(bakeoff_coordinator::sweep::demo(), Revisions::new()).unwrap();
    publish::freeze(objects.as_ref(), &mut plan).await.unwrap();
    let other = "name = \"demo\"\n[[prompts]]\nid = \"p\"\ntext = \"x\"\n[[models]]\nid = \"builtin:tiny-qwen2\"\n";
    std::fs::write(folder.join("other.toml"), other).unwrap();
    std::fs::write(
        folder.join("folder.toml"),
        other.replace("id = \"builtin:tiny-qwen2\"", "path = \"nowhere\""),
    )
    .unwrap();
    std::fs::write(folder.join("reviews.toml"), "sweep = \"other\"\nseed = 1\n").unwrap();
    let refused = |args: &[&str]| refused(folder, args);
    let mut messages = vec![
        refused(&["review", "demo", "--reviewer", "Ana", "--store", "r"]),
        refused(&["run", "other.toml", "--store", "r"]),
        refused(&["run", "folder.toml", "--as", "fresh", "--store", "r"]),
        refused(&["collect", "demo", "--prune", "--store", "r"]),
        refused(&["check", "demo", "--store", "r"]),
        refused(&["compare", "demo", "demo", "--store", "r"]),
        refused(&["compare", "demo", "demo", "--across", "devise", "--store", "r"]),
        refused(&["compare", "demo", "other", "--store", "r"]),
        refused(&["delete", "demo", "--store", "r"]),
        refused(&["watch", "demo", "--store", "r"]),
        refused(&["retry", "demo", "--store", "nowhere"]),
        refused(&["run", "--retry", "--store", "r"]),
        refused(&["plan", "other.toml", "--price-per-gpu-hour=-1"]),
        refused(&["run", "--device", "tpu"]),
        refused(&["status", "--store", "s3:/results"]),
    ];
    let job = &plan.jobs[0].job;
    common::finish(objects.as_ref(), job, &job.cells[0]).await;
    messages.push(refused(&["review", "demo", "--push", "--file", "none.toml", "--store", "r"]));
    messages.push(refused(&["review", "demo", "--push", "--store", "r"]));
    let name = folder.display().to_string();
    insta::assert_snapshot!("refusals", messages.join("---\n").replace(&name, "FOLDER"));
}

#[test]
#[cfg(not(feature = "cuda"))]
fn a_device_that_the_build_cannot_use_is_refused_once_before_anything_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let message = refused(folder.path(), &["run", "--device", "cuda:7"]);
    assert!(message.contains("the device `cuda:7` needs"), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn commands_that_read_create_no_folder_and_say_where_they_looked() {
    let folder = tempfile::tempdir().unwrap();
    for words in [
        &["status"][..],
        &["status", "--store", "bakeoff-results"],
        &["collect", "s"],
        &["watch", "s"],
        &["retry", "s"],
        &["cancel", "s"],
        &["check", "s"],
        &["review", "s"],
        &["compare", "s", "t"],
        &["export", "s", "out"],
        &["delete", "s", "--yes"],
    ] {
        let message = refused(folder.path(), words);
        assert!(message.contains("bakeoff-results: the folder does not exist"), "{message}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// Cancelled, collected, taken up again and watched in ./bakeoff-results, with neither `--store`
/// nor `--nats`.
#[tokio::test]
async fn a_sweep_of_this_machine_needs_neither_store_nor_broker() {
    let folder = tempfile::tempdir().unwrap();
    let text_of_sweep = "name = \"s\"\n[generation]\nruns = 3\nmax_new_tokens = 4\n[engine]\n\
        dtype = \"f32\"\n[[prompts]]\nid = \"p\"\ntext = \"x\"\n[[models]]\n\
        id = \"builtin:tiny-qwen2\"\n";
    let place = folder.path().join("bakeoff-results").display().to_string();
    let args = StoreArgs { store: Some(place), ..StoreArgs::default() };
    let objects = store::open(&args).await.unwrap();
    let sweep = bakeoff_coordinator::sweep::parse(text_of_sweep, "s.toml", folder.path()).unwrap();
    let mut plan = Plan::build(sweep, Revisions::new()).unwrap();
    publish::freeze(objects.as_ref(), &mut plan).await.unwrap();
    let run = |args: &[&str]| coordinator(folder.path(), args);

    let unwatched = refused(folder.path(), &["watch", "s"]);
    assert!(unwatched.contains("`coordinator run SWEEP.toml`"), "{unwatched}");
    let cancelled = run(&["cancel", "s"]);
    assert!(cancelled.status.success(), "{}", text(&cancelled.stderr));
    assert!(text(&cancelled.stdout).starts_with("s: 3 cells cancelled\n"));

    for command in ["collect", "watch"] {
        let collected = run(&[command, "s"]);
        let shown = text(&collected.stdout);
        assert_eq!(collected.status.code(), Some(3), "{shown}");
        assert_eq!(shown.matches("cancelled").count(), 2, "a count and a line: {shown}");
        assert!(shown.contains("  3 cells cancelled\n"), "{shown}");
    }
    let again = run(&["retry", "s", "--device", "cpu"]);
    assert!(again.status.success(), "{}", text(&again.stderr));
    assert!(text(&again.stdout).starts_with("s: 3 of 3 done\n"), "{}", text(&again.stdout));
    assert!(run(&["watch", "s"]).status.success());
    assert_eq!(text(&run(&["status"]).stdout), "s  3 of 3 done\n");
}

#[test]
fn a_bad_rubric_is_refused_with_its_item_and_position() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let sweep = "name = \"s\"\n[[prompts]]\nid = \"p\"\ntext = \"x\"\nrubric = \"mine.toml\"\n[[models]]\nid = \"builtin:tiny-qwen2\"\n";
    std::fs::write(folder.join("sweep.toml"), sweep).unwrap();
    let rubric = |query: &str| {
        let item = "id = \"good\"\ntitle = \"Good\"\ngroup = \"g\"\nquery = '(class_definition) @evidence'\n";
        let mine =
            format!("id = \"mine\"\ntitle = \"Mine\"\ngroup = \"g\"\nquery = '''\n{query}'''\n");
        let text = format!("name = \"r\"\n[[items]]\n{item}[[items]]\n{mine}");
        std::fs::write(folder.join("mine.toml"), text).unwrap();
    };
    rubric("(function_definition\n  nam: (identifier)) @evidence\n");
    let message = refused(folder, &["plan", "sweep.toml"]);
    assert!(message.contains("sweep.toml:5: `prompts[1].rubric` names "), "{message}");
    assert!(
        message.contains("the query of item `mine` of rubric `r` is wrong in its line 2, column "),
        "{message}"
    );
    rubric("(function_definition)\n");
    let message = refused(folder, &["plan", "sweep.toml"]);
    assert!(message.contains("item `mine` of rubric `r` has no capture `@evidence`"), "{message}");
    rubric("(function_definition name: (identifier) @name (#match? @name \"(\")) @evidence\n");
    let message = refused(folder, &["plan", "sweep.toml"]);
    assert!(message.contains("item `mine`"), "{message}");
    rubric("(function_definition) @evidence\n");
    let planned = coordinator(folder, &["plan", "sweep.toml"]);
    assert!(planned.status.success(), "{}", text(&planned.stderr));
}

#[test]
fn a_folder_that_is_no_sweep_is_not_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("src/main.rs");
    std::fs::create_dir(folder.path().join("src")).unwrap();
    std::fs::write(&source, "fn main() {}").unwrap();
    let message = refused(folder.path(), &["delete", "src", "--store", ".", "--yes"]);
    assert!(message.contains("src/sweep.json"), "{message}");
    assert!(source.exists());
}

#[tokio::test]
async fn collect_export_and_delete_work_from_the_store_alone() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("results");
    let args = StoreArgs { store: Some(place.display().to_string()), ..StoreArgs::default() };
    let objects = store::open(&args).await.unwrap();
    let mut plan = Plan::build(bakeoff_coordinator::sweep::demo(), Revisions::new()).unwrap();
    publish::freeze(objects.as_ref(), &mut plan).await.unwrap();
    for planned in &plan.jobs {
        for cell in &planned.job.cells {
            common::finish(objects.as_ref(), &planned.job, cell).await;
        }
    }
    let run = |args: &[&str]| coordinator(folder.path(), args);
    let collected = run(&["collect", "demo", "--store", "results"]);
    assert!(collected.status.success(), "{}", text(&collected.stderr));
    assert!(text(&collected.stdout).starts_with("demo: 12 of 12 done\n"));
    let csv = std::fs::read(place.join("demo/demo_summary.csv")).unwrap();
    let report = std::fs::read(place.join("demo/report.md")).unwrap();
    assert!(run(&["collect", "demo", "--store", "results", "--json"]).status.success());
    assert_eq!(std::fs::read(place.join("demo/demo_summary.csv")).unwrap(), csv);
    assert_eq!(std::fs::read(place.join("demo/report.md")).unwrap(), report);

    // A run of a sweep that is done already says so, and needs no worker.
    let rerun = run(&["run", "--store", "results"]);
    assert!(rerun.status.success());
    assert!(text(&rerun.stdout).starts_with("12 of 12 already done"), "{}", text(&rerun.stdout));

    assert!(run(&["export", "demo", "out", "--store", "results"]).status.success());
    assert_eq!(std::fs::read(folder.path().join("out/demo_summary.csv")).unwrap(), csv);
    std::fs::write(folder.path().join("out/report.md"), "mine").unwrap();
    refused(folder.path(), &["export", "demo", "out", "--store", "results"]);

    refused(folder.path(), &["delete", "demo", "--store", "results"]);
    assert!(run(&["delete", "demo", "--store", "results", "--yes"]).status.success());
    refused(folder.path(), &["collect", "demo", "--store", "results"]);
}
