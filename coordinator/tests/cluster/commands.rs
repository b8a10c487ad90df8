//! The commands around a sweep, between processes: submit, watch, status, cancel, retry, export, delete.

use std::time::{Duration, Instant};

use bakeoff_proto::JobPhase;
use bakeoff_test_servers::{Program, wait_until};
use serde_json::json;

use super::bench::Bench;
use super::events::{decoding, events, files, wait_for};
use super::programs::{LIMIT, ended};

/// Two jobs of one cell each, so hot that an end-of-sequence token is rare: a second or more a cell.
const LONG: &str = r#"
name = "long"
[generation]
runs = 2
max_new_tokens = 900
temperature = 5.0
top_p = 1.0
[engine]
dtype = "f32"
[queue]
cells_per_job = 1
[[prompts]]
id = "p"
text = "Write a Python function that returns the factorial of n."
[[models]]
id = "builtin:tiny-qwen2"
"#;

#[test]
fn two_coordinators_that_submit_at_once_make_one_sweep() {
    let bench = Bench::new();
    bench.sweep("long.toml", LONG);
    let submit = || Program::start(&mut bench.coordinator(&["submit", "long.toml", "--json"]));
    let both = [submit(), submit()].map(|program| ended(program).expect(0).json());
    let sum =
        |field: &str| both.iter().map(|one| one["jobs"][field].as_u64().unwrap()).sum::<u64>();
    assert_eq!((sum("published"), sum("already_queued")), (2, 2), "{both:?}");
    assert!(both.iter().any(|one| one["resumed"] == false), "{both:?}");
    let again = bench.run(&["submit", "long.toml"]).expect(0).stdout;
    assert!(again.contains("2 cells in 2 jobs: 0 published, 2 queued before"), "{again}");

    // The same name with another plan, whoever asks.
    bench.sweep("changed.toml", &LONG.replace("runs = 2", "runs = 3"));
    for command in ["submit", "run", "plan"] {
        let refused = bench.run(&[command, "changed.toml"]).expect(2);
        assert!(refused.stderr.contains("runs: was 2, now 3"), "{}", refused.stderr);
        assert!(refused.stderr.contains("--as NAME"), "{}", refused.stderr);
    }
    let other = bench.run(&["submit", "changed.toml", "--as", "other", "--json"]).expect(0).json();
    assert_eq!(other["jobs"]["published"], 3);
}

#[test]
fn a_sweep_that_nobody_works_on_says_so_and_can_be_cancelled_retried_and_deleted() {
    let bench = Bench::new();
    bench.sweep("long.toml", LONG);
    bench.run(&["submit", "long.toml"]).expect(0);
    let started = Instant::now();
    let watching = Program::start(&mut bench.coordinator(&["watch", "long"]));
    watching.wait_for_stderr("2 jobs are waiting and no worker is pulling", LIMIT);
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    watching.interrupt();
    let stopped = ended(watching).expect(1);
    assert!(stopped.stderr.contains("coordinator watch long"), "{}", stopped.stderr);

    let status = bench.run(&["status", "long", "--json"]).expect(0).json();
    assert_eq!(status["counts"]["pending"], 2);
    assert_eq!(status["queue"]["pending"], 2);
    assert_eq!(status["jobs"][0]["in_queue"], true);
    let refused = bench.run(&["delete", "long", "--yes"]).expect(2);
    assert!(refused.stderr.contains("coordinator cancel long"), "{}", refused.stderr);

    assert_eq!(bench.run(&["cancel", "long", "--json"]).expect(0).json()["cancelled"], 2);
    let status = bench.run(&["status", "long"]).expect(0).stdout;
    assert!(status.starts_with("long: 0 of 2 done, 2 cancelled\n"), "{status}");
    assert!(!status.contains("in the queue"), "{status}");
    // A sweep that has ended is collected at once, and not all of it was done.
    let watched = bench.run(&["watch", "long"]).expect(3);
    assert!(watched.stdout.contains("coordinator retry long"), "{}", watched.stdout);

    let retried = bench.run(&["retry", "long", "--json"]).expect(0).json();
    assert_eq!(retried["jobs"]["published"], 2);
    assert_eq!(bench.run(&["cancel", "long", "--json"]).expect(0).json()["cancelled"], 2);
    // The history of both generations is kept.
    assert_eq!(files(&bench.results().join("long/failed"), ".1.json"), 2);
    assert_eq!(files(&bench.results().join("long/failed"), ".2.json"), 2);

    let deleted = bench.run(&["delete", "long", "--yes", "--json"]).expect(0).json();
    assert_eq!(deleted["sweep"], "long");
    let none = bench.run(&["status"]).expect(0).stdout;
    assert_eq!(none, "the store holds no sweep\n");
    let missing = bench.run(&["watch", "long"]).expect(2);
    assert!(missing.stderr.contains("`long`"), "{}", missing.stderr);
}

/// A worker that waits for other jobs is none for these; and one that has died holds its job for as
/// long as nobody else asks for it.
#[tokio::test(flavor = "multi_thread")]
async fn workers_of_another_class_and_dead_ones_do_not_count() {
    let bench = Bench::new();
    bench.sweep("gpu.toml", &LONG.replace("[queue]", "[queue]\ngpu_class = \"NVIDIA H100\""));
    bench.run(&["submit", "gpu.toml", "--as", "gpu", "--ack-wait", "1"]).expect(0);
    let mut worker = bench.worker("w");
    let watching = Program::start(&mut bench.coordinator(&["watch", "gpu"]));
    watching.wait_for_stderr("no worker of class nvidia-h100 is pulling", LIMIT);
    drop(watching);
    bench.run(&["cancel", "gpu"]).expect(0);

    bench.sweep("long.toml", LONG);
    bench.run(&["submit", "long.toml", "--ack-wait", "1"]).expect(0);
    let queue = bench.queue().await;
    let mut events = events(&queue, "long").await;
    wait_for(&mut events, "that a cell is generated", decoding(900)).await;
    worker.kill();
    let watching = Program::start(&mut bench.coordinator(&["watch", "long"]));
    watching.wait_for_stderr("no worker is pulling (one was taken, and nothing was heard", LIMIT);
    let _next = bench.worker("next");
    let watched = ended(watching).expect(0);
    assert!(watched.stdout.starts_with("long: 2 of 2 done\n"), "{}", watched.stdout);
}

/// The broker dies while a sweep is watched; worker and coordinator wait for it and go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_outlives_its_brokers_death_and_return() {
    let mut bench = Bench::new();
    bench.sweep("long.toml", LONG);
    let _worker = bench.worker("w");
    let args = ["run", "long.toml", "--ack-wait", "1", "--json"];
    let run = Program::start(&mut bench.coordinator(&args));
    let queue = bench.queue().await;
    let mut events = events(&queue, "long").await;
    wait_for(&mut events, "that a cell is generated", decoding(900)).await;
    bench.server.kill();
    let metrics = bench.results().join("long/metrics");
    wait_until("a cell is recorded without a broker", LIMIT, || files(&metrics, ".json") > 0);
    bench.server.restart();
    let ended = ended(run).expect(0);
    assert_eq!(ended.json()["counts"]["done"], 2);
    // Told by an event that came after the return.
    assert!(ended.stderr.contains("p run 2 done, "), "{}", ended.stderr);
}

/// Killed while it watches: the same command goes on where the other stopped.
#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_killed_in_the_middle_is_taken_over_by_the_next() {
    let bench = Bench::new();
    bench.sweep("long.toml", LONG);
    let _worker = bench.worker("w");
    let mut first = Program::start(&mut bench.coordinator(&["run", "long.toml"]));
    let queue = bench.queue().await;
    let mut events = events(&queue, "long").await;
    wait_for(&mut events, "that a cell is generated", decoding(900)).await;
    first.kill();
    let second = bench.run(&["run", "long.toml", "--json"]).expect(0).json();
    assert_eq!(second["counts"]["done"], 2);
    let csv = std::fs::read(bench.results().join("long/long_summary.csv")).unwrap();
    let third = bench.run(&["run", "long.toml"]).expect(0).stdout;
    assert!(third.starts_with("2 of 2 already done; "), "{third}");
    assert_eq!(std::fs::read(bench.results().join("long/long_summary.csv")).unwrap(), csv);

    // What no record names is shown, and goes when it is asked for.
    let orphan = bench.results().join("long/tiny-qwen2__p__r1__20200101_000000.md");
    std::fs::write(&orphan, "left behind").unwrap();
    let shown = bench.run(&["collect", "long"]).expect(0).stderr;
    assert!(shown.contains(orphan.to_str().unwrap()) && shown.contains("--prune"), "{shown}");
    let pruned = bench.run(&["collect", "long", "--prune", "--json"]).expect(0).json();
    assert_eq!(pruned["orphans"], json!([]));
    assert!(!orphan.exists());
    assert_eq!(files(&bench.results().join("long"), ".md"), 3, "two outputs and the report");
}

/// One job at work, one in the queue.
#[tokio::test(flavor = "multi_thread")]
async fn cancelling_stops_a_running_job_and_a_retry_does_what_is_left() {
    let bench = Bench::new();
    bench.sweep("long.toml", &LONG.replace("runs = 2", "runs = 6").replace("= 1\n[[", "= 4\n[["));
    bench.run(&["submit", "long.toml"]).expect(0);
    let queue = bench.queue().await;
    let mut events = events(&queue, "long").await;
    let mut worker = bench.worker("w");
    wait_for(&mut events, "that a cell is generated", decoding(900)).await;
    bench.run(&["cancel", "long"]).expect(0);
    wait_for(&mut events, "the cancellation", |phase| *phase == JobPhase::Cancelled).await;
    let status = bench.run(&["status", "long", "--json"]).expect(0).json();
    let count = |field: &str| status["counts"][field].as_u64().unwrap();
    assert_eq!(count("done") + count("cancelled"), 6, "{status}");
    // The running job stopped before its end: it has more than one cell to be stopped in.
    assert!(count("cancelled") > 2, "{status}");
    assert_eq!(
        (&status["queue"]["pending"], &status["queue"]["in_flight"]),
        (&json!(0), &json!(0))
    );

    bench.run(&["retry", "long"]).expect(0);
    let watched = bench.run(&["watch", "long", "--json"]).expect(0).json();
    let all = json!({"cells": 6, "done": 6, "failed": 0, "cancelled": 0, "pending": 0});
    assert_eq!(watched["counts"], all);
    worker.terminate();
    assert_eq!(worker.wait(LIMIT).code(), Some(0), "{}", worker.stderr());
}

/// One model that is there and one that no worker has.
#[test]
fn failed_cells_end_a_run_with_3_and_the_results_can_be_exported() {
    let bench = Bench::new();
    let sweep = r#"
name = "half"
[generation]
runs = 1
max_new_tokens = 16
[engine]
dtype = "f32"
[[prompts]]
id = "p"
text = "def f():"
[[models]]
id = "builtin:tiny-qwen2"
[[models]]
path = "/no/such/model"
"#;
    bench.sweep("half.toml", sweep);
    let _worker = bench.worker("w");
    let run = bench.run(&["run", "half.toml"]).expect(3);
    assert!(run.stdout.starts_with("half: 1 of 2 done, 1 failed\n"), "{}", run.stdout);
    assert!(run.stdout.contains("failed (model_not_found): "), "{}", run.stdout);
    assert!(run.stdout.contains("/no/such/model"), "{}", run.stdout);
    // Log lines, since nobody looks at a terminal.
    assert!(
        run.stderr.contains("builtin:tiny-qwen2: taken by w, 1 of 1 cells open"),
        "{}",
        run.stderr
    );
    assert!(run.stderr.contains("p run 1 done, "), "{}", run.stderr);

    let again = bench.run(&["run", "half.toml", "--json"]).expect(3).json();
    assert_eq!(again["counts"]["failed"], 1);
    let retried = bench.run(&["run", "half.toml", "--retry", "--json"]).expect(3).json();
    assert_eq!(retried["counts"]["failed"], 1);
    assert_eq!(files(&bench.results().join("half/failed"), ".2.json"), 1);

    let list = bench.run(&["status", "--json"]).expect(0).json();
    assert_eq!((&list[0]["sweep"], &list[0]["counts"]["done"]), (&json!("half"), &json!(1)));
    let exported = bench.run(&["export", "half", "out", "--json"]).expect(0).json();
    let out = bench.folder.path().join("out");
    for file in ["sweep.json", "half_summary.csv", "report.md", "report.html", "report.json"] {
        let stored = std::fs::read(bench.results().join("half").join(file)).unwrap();
        assert_eq!(std::fs::read(out.join(file)).unwrap(), stored, "{file}");
    }
    let copied: usize = ["", "metrics", "failed", "telemetry"]
        .iter()
        .map(|folder| {
            std::fs::read_dir(out.join(folder))
                .unwrap()
                .filter(|e| e.as_ref().unwrap().path().is_file())
                .count()
        })
        .sum();
    assert_eq!(exported["files"], copied);
}
