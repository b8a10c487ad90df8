//! `coordinator compare` as a user runs it: verdicts by exit code, refusals, and what a pull request
//! gets to read.

mod common;
mod edit;

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use bakeoff_proto::{Cell, Job, MetricsRecord, names};
use bakeoff_transport::args::StoreArgs;
use bakeoff_transport::store;
use object_store::ObjectStore;
use serde_json::Value;

async fn open(folder: &Path) -> Arc<dyn ObjectStore> {
    let place = folder.join("results").display().to_string();
    store::open(&StoreArgs { store: Some(place), ..StoreArgs::default() }).await.expect("a store")
}

fn compare(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_coordinator"))
        .args(["compare", "--store", "results"])
        .args(args)
        .current_dir(folder)
        .env_clear()
        .output()
        .expect("the coordinator starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The markdown, once the exit code is as expected.
fn told(output: &Output, code: i32) -> String {
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(code), "{shown}{}", text(&output.stderr));
    shown
}

fn refused(output: &Output) -> String {
    assert_eq!(told(output, 2), "");
    text(&output.stderr)
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

const MODEL: &str = "[[models]]\nid = \"builtin:tiny-qwen2\"\n";

/// A sweep of `prompts` (p1, p2, …) by `runs`.
fn sweep(name: &str, prompts: usize, runs: u32, models: &str) -> String {
    let prompts: String = (1..=prompts)
        .map(|n| format!("[[prompts]]\nid = \"p{n}\"\ntext = \"Write program {n}.\"\n"))
        .collect();
    format!("name = \"{name}\"\n[generation]\nruns = {runs}\n{prompts}{models}")
}

type Edit = fn(&Job, &Cell, &mut MetricsRecord) -> Option<String>;

/// Stores a finished sweep.
async fn store_sweep(folder: &Path, sweep: &str, edit: Edit) {
    let objects = open(folder).await;
    edit::finished(objects.as_ref(), sweep, folder, edit).await;
}

/// 50 tok/s, give or take what differs between runs.
fn steady(_: &Job, cell: &Cell, record: &mut MetricsRecord) -> Option<String> {
    record.metrics.tok_per_s = 50.0 + f64::from(cell.run % 3) * 0.2;
    record.metrics.ttft_ms = 30.0;
    None
}

fn scaled(cell: &Cell, record: &mut MetricsRecord, factor: f64) {
    let noise = 1.0 + f64::from((cell.run * 7 + cell.prompt.len() as u32) % 5) * 0.002;
    record.metrics.tok_per_s = (50.0 + f64::from(cell.run % 3) * 0.2) * factor * noise;
    record.metrics.ttft_ms = 30.0;
}

fn difference<'j>(json: &'j Value, metric: &str) -> &'j Value {
    json["comparison"]["differences"]
        .as_array()
        .unwrap()
        .iter()
        .find(|d| d["metric"].as_str().unwrap().starts_with(metric))
        .unwrap_or_else(|| panic!("no {metric} in {json:#}"))
}

#[tokio::test]
async fn the_same_sweep_twice_differs_in_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    store_sweep(folder, &sweep("a", 2, 3, MODEL), steady).await;
    store_sweep(folder, &sweep("b", 2, 3, MODEL), steady).await;
    let shown = told(&compare(folder, &["a", "b"]), 0);
    insta::assert_snapshot!("compare_same", shown);
    // Even to the last digit.
    told(&compare(folder, &["a", "b", "--threshold", "0"]), 0);
    let found = json(&compare(folder, &["a", "b", "--json"]));
    assert_eq!(found["regressed"], false);
    assert_eq!(found["comparison"]["pairs"], 6);
    for d in found["comparison"]["differences"].as_array().unwrap() {
        assert_eq!((d["change"].as_f64(), d["significant"].as_bool()), (Some(0.0), Some(false)));
    }
}

#[tokio::test]
async fn a_slowdown_beyond_the_threshold_ends_with_1() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    store_sweep(folder, &sweep("before", 2, 3, MODEL), steady).await;
    store_sweep(folder, &sweep("after", 2, 3, MODEL), |_, cell, record| {
        scaled(cell, record, 0.9);
        None
    })
    .await;
    let shown = told(&compare(folder, &["before", "after"]), 1);
    insta::assert_snapshot!("compare_regression", shown);
    let found = json(&compare(folder, &["before", "after", "--json"]));
    let speed = difference(&found, "tok/s");
    assert_eq!(
        (speed["regression"].as_bool(), speed["basis"].as_str()),
        (Some(true), Some("interval"))
    );
    assert!(
        speed["low"].as_f64().unwrap() < -9.0 && speed["high"].as_f64().unwrap() < 0.0,
        "{speed}"
    );
    assert_eq!(difference(&found, "TTFT")["regression"], false);

    // Significant, but less than asked for; and the other way round it is a gain.
    let shown = told(&compare(folder, &["before", "after", "--threshold", "20"]), 0);
    assert!(shown.contains("| significant |"), "{shown}");
    let shown = told(&compare(folder, &["after", "before"]), 0);
    assert!(shown.starts_with("## after → before\n\nNo regression."), "{shown}");
}

#[tokio::test]
async fn noise_is_no_regression() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    store_sweep(folder, &sweep("a", 1, 4, MODEL), steady).await;
    store_sweep(folder, &sweep("b", 1, 4, MODEL), |_, cell, record| {
        // On average 8 % slower, but as often faster.
        record.metrics.tok_per_s = [54.0, 38.0, 56.0, 37.0][cell.run as usize - 1];
        record.metrics.ttft_ms = 30.0;
        None
    })
    .await;
    let shown = told(&compare(folder, &["a", "b"]), 0);
    assert!(shown.contains("| not significant |"), "{shown}");
    // Two runs that agree prove little: Student's t knows, the bootstrap does not.
    store_sweep(folder, &sweep("c", 1, 2, MODEL), steady).await;
    store_sweep(folder, &sweep("d", 1, 2, MODEL), |_, cell, record| {
        record.metrics.tok_per_s = [48.0, 43.0][cell.run as usize - 1];
        None
    })
    .await;
    let found = json(&compare(folder, &["c", "d", "--json"]));
    assert_eq!(difference(&found, "tok/s")["significant"], false, "{found:#}");
}

#[tokio::test]
async fn with_many_prompts_the_prompts_are_the_sample() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    store_sweep(folder, &sweep("a", 6, 20, MODEL), steady).await;
    // Prompts differ, their runs do not: 120 pairs are only six facts.
    store_sweep(folder, &sweep("b", 6, 20, MODEL), |_, cell, record| {
        let prompt: f64 = cell.prompt_id[1..].parse().unwrap();
        let factor = [1.1, 0.8, 1.05, 0.82, 0.95, 0.9][prompt as usize - 1];
        record.metrics.tok_per_s = (50.0 + f64::from(cell.run % 3) * 0.2) * factor;
        record.metrics.ttft_ms = 30.0;
        None
    })
    .await;
    let found = json(&compare(folder, &["a", "b", "--json"]));
    let speed = difference(&found, "tok/s");
    assert_eq!((speed["pairs"].as_u64(), speed["significant"].as_bool()), (Some(120), Some(false)));
    assert!(speed["change"].as_f64().unwrap() < -5.0, "{speed}");
}

#[tokio::test]
async fn a_single_run_is_judged_by_the_margin_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    store_sweep(folder, &sweep("a", 1, 1, MODEL), |_, cell, record| {
        scaled(cell, record, 1.0);
        None
    })
    .await;
    for (name, factor, code, words) in [
        ("slower", 0.96, 0, "| none: single pair | single run, within 5 % |"),
        ("slow", 0.92, 1, "**regression** (single run, beyond 5 %)"),
        ("fast", 1.1, 0, "single run, beyond 5 %"),
    ] {
        let objects = open(folder).await;
        edit::finished(objects.as_ref(), &sweep(name, 1, 1, MODEL), folder, |_, cell, record| {
            scaled(cell, record, factor);
            None
        })
        .await;
        let shown = told(&compare(folder, &["a", name]), code);
        assert!(shown.contains(words), "{shown}");
        assert!(!shown.contains("| significant |"), "{shown}");
    }
    // The margin is a rule of the sweep.
    let strict = sweep("strict", 1, 1, MODEL) + "[report]\nmargin_pct = 2\n";
    store_sweep(folder, &strict, |_, cell, record| {
        scaled(cell, record, 1.0);
        None
    })
    .await;
    let shown = told(&compare(folder, &["strict", "slower"]), 1);
    assert!(shown.contains("**regression** (single run, beyond 2 %)"), "{shown}");
}

#[tokio::test]
async fn worse_answers_are_a_regression_too() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let good = |_: &Job, _: &Cell, _: &mut MetricsRecord| {
        Some(
            "```python\ndef f(x: int) -> int:\n    \"\"\"Double.\"\"\"\n    return 2 * x\n```\n"
                .to_owned(),
        )
    };
    store_sweep(folder, &sweep("a", 2, 2, MODEL), good).await;
    store_sweep(folder, &sweep("b", 2, 2, MODEL), |_, _, _| Some("I would rather not.".into()))
        .await;
    let found = compare(folder, &["a", "b", "--json"]);
    assert_eq!(found.status.code(), Some(1));
    let quality = json(&found);
    let quality = difference(&quality, "quality: evidence");
    assert_eq!((quality["b"].as_f64(), quality["regression"].as_bool()), (Some(0.0), Some(true)));
    assert_eq!(quality["points"], true);
}

#[tokio::test]
async fn unlike_fingerprints_are_refused_by_name_and_compared_when_named() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    store_sweep(folder, &sweep("a", 1, 2, MODEL), steady).await;
    let edits: [(&str, Edit); 13] = [
        ("engine", |_, _, r| {
            r.fingerprint.engine = "fused".into();
            None
        }),
        ("format", |_, _, r| {
            r.resolved.thinking = bakeoff_model::Thinking::Off;
            None
        }),
        ("generation", |_, _, r| {
            r.resolved.repetition_penalty = 1.05;
            None
        }),
        ("weights", |_, _, r| {
            r.fingerprint.weights_sha256 = "w2".into();
            None
        }),
        ("tokenizer", |_, _, r| {
            r.fingerprint.tokenizer_sha256 = "t2".into();
            None
        }),
        ("template", |_, _, r| {
            r.fingerprint.template_sha256 = "c2".into();
            None
        }),
        ("build", |_, _, r| {
            r.fingerprint.build = "test-2".into();
            None
        }),
        ("dtype", |_, _, r| {
            r.fingerprint.dtype = "f64".into();
            None
        }),
        ("device", |_, _, r| {
            r.fingerprint.device = "NVIDIA L4".into();
            None
        }),
        ("driver", |_, _, r| {
            r.fingerprint.driver = "999".into();
            None
        }),
        ("flash_attn", |_, _, r| {
            r.fingerprint.flash_attn = "on".into();
            None
        }),
        ("tf32", |_, _, r| {
            r.fingerprint.tf32 = "on".into();
            None
        }),
        ("cuda_graph", |_, _, r| {
            r.fingerprint.cuda_graph = "on".into();
            None
        }),
    ];
    for (field, edit) in edits {
        let name = format!("b-{}", field.replace('_', "-"));
        store_sweep(folder, &sweep(&name, 1, 2, MODEL), edit).await;
        let message = refused(&compare(folder, &["a", &name]));
        assert!(message.contains(&format!("differ in {field}: ")), "{message}");
        assert!(message.contains(&format!("`--across {field}`")), "{message}");
        assert!(message.contains("tiny-qwen2 auto p1 run 1"), "{message}");
        let shown = told(&compare(folder, &["a", &name, "--across", field]), 0);
        assert!(shown.contains(&format!("across {field}")), "{shown}");
    }
    let other = sweep("other", 1, 2, MODEL).replace("Write program 1.", "Write programme 1.");
    store_sweep(folder, &other, steady).await;
    let message = refused(&compare(folder, &["a", "other"]));
    assert!(message.contains("differ in prompt: Write program 1.⏎"), "{message}");
    told(&compare(folder, &["a", "other", "--across", "prompt"]), 0);
    let several = ["--across", "prompt,build", "a", "other"];
    assert!(told(&compare(folder, &several), 0).contains("across prompt, build"));
}

#[tokio::test]
async fn models_are_compared_one_with_one() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let other = "[[models]]\nid = \"builtin:tiny-qwen3\"\n";
    store_sweep(folder, &sweep("a", 1, 2, MODEL), steady).await;
    store_sweep(folder, &sweep("b", 1, 2, other), |_, _, record| {
        record.fingerprint.weights_sha256 = "of another model".into();
        record.metrics.tok_per_s = 60.0;
        None
    })
    .await;
    let message = refused(&compare(folder, &["a", "b"]));
    assert!(message.contains("no finished cell of a has a partner in b"), "{message}");
    assert!(message.contains("--across model"), "{message}");
    told(&compare(folder, &["a", "b", "--across", "model"]), 0);
    store_sweep(folder, &sweep("both", 1, 2, &format!("{MODEL}{other}")), steady).await;
    let message = refused(&compare(folder, &["a", "both", "--across", "model"]));
    assert!(message.contains("in both, ") && message.contains("may have only one"), "{message}");
    // Without it each finds its own.
    assert!(told(&compare(folder, &["a", "both"]), 0).contains("tiny-qwen3"));
}

#[tokio::test]
async fn cells_without_a_partner_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    store_sweep(folder, &sweep("a", 2, 2, MODEL), steady).await;
    store_sweep(folder, &sweep("b", 3, 1, MODEL), steady).await;
    let objects = open(folder).await;
    let name = "b".parse().unwrap();
    let plan = bakeoff_coordinator::collect::read::plan(objects.as_ref(), &name).await.unwrap();
    let job = &plan.jobs[0].job;
    let lost = &job.cells[1];
    store::remove(objects.as_ref(), &names::record_key(&name, &lost.id)).await.unwrap();
    common::fail(objects.as_ref(), job, lost, "out of memory").await;
    let shown = told(&compare(folder, &["a", "b"]), 0);
    assert!(shown.contains("1 pair of cells"), "{shown}");
    for line in [
        "4 cells have no partner",
        "- builtin:tiny-qwen2 auto p1 run 2: done in a, not planned in b",
        "- builtin:tiny-qwen2 auto p2 run 1: done in a, failed in b",
        "- builtin:tiny-qwen2 auto p2 run 2: done in a, not planned in b",
        "- builtin:tiny-qwen2 auto p3 run 1: done in b, not planned in a",
    ] {
        assert!(shown.replace('\\', "").contains(line), "{line}:\n{shown}");
    }
    let found = json(&compare(folder, &["a", "b", "--json"]));
    assert_eq!(found["comparison"]["missing"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn what_cannot_be_compared_is_refused_with_the_next_step() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    store_sweep(folder, &sweep("a", 1, 1, MODEL), steady).await;
    let message = refused(&compare(folder, &["a", "a", "--across", "gpu"]));
    assert!(message.contains("`gpu` is no field") && message.contains("device"), "{message}");
    let message = refused(&compare(folder, &["a", "missing"]));
    assert!(message.contains("no sweep `missing`; it holds a"), "{message}");
    let message = refused(&compare(folder, &["a", "a", "--threshold", "some"]));
    assert!(message.contains("must be a percentage from 0 to below 1000"), "{message}");
    let message = refused(&compare(folder, &["a", "a", "--threshold", "-1"]));
    assert!(message.contains("--threshold") || message.contains("-1"), "{message}");
}
