//! The commands around a sweep, between processes: submit, watch, status, cancel, retry, export, delete.

use std::time::{Duration, Instant};

use bakeoff_proto::JobPhase;
use bakeoff_transport::test_servers::Program;
use serde_json::json;

use super::bench::{Bench, LIMIT, decoding, ended, events, files, wait_for};

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

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_stops_a_running_job_at_a_token_and_a_retry_does_it_afresh() {
    let bench = Bench::new();
    bench.sweep("long.toml", LONG);
    bench.run(&["submit", "long.toml"]).expect(0);
    let queue = bench.queue().await;
    let mut events = events(&queue, "long").await;
    let mut worker = bench.worker("w");
    let event = wait_for(&mut events, "that a cell is generated", decoding(900)).await;
    let JobPhase::Decoding { cell, .. } = event.phase else { unreachable!() };
    bench.run(&["cancel", "long"]).expect(0);
    wait_for(&mut events, "the cancellation", |phase| *phase == JobPhase::Cancelled).await;
    assert!(!bench.results().join(format!("long/metrics/{cell}.json")).exists());
    let status = bench.run(&["status", "long", "--json"]).expect(0).json();
    assert_eq!((&status["counts"]["cancelled"], &status["counts"]["done"]), (&json!(2), &json!(0)));
    assert_eq!(
        (&status["queue"]["pending"], &status["queue"]["in_flight"]),
        (&json!(0), &json!(0))
    );

    bench.run(&["retry", "long"]).expect(0);
    let watched = bench.run(&["watch", "long", "--json"]).expect(0).json();
    assert_eq!(
        watched["counts"],
        json!({"cells": 2, "done": 2, "failed": 0, "cancelled": 0, "pending": 0})
    );
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
