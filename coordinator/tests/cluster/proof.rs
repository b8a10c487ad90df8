//! The whole way: one sweep over broker, S3 and two workers, of which one is killed in the middle;
//! then the results once more, with broker and workers gone.

use std::sync::Arc;

use bakeoff_proto::{CellId, JobPhase, names};
use bakeoff_transport::store;
use bakeoff_test_servers::{Program, S3Server};
use object_store::ObjectStore;

use super::bench::Bench;
use super::events::{decoding, events, wait_for};
use super::programs::{coordinator, ended, run, worker};

const STORE: &str = "s3://results/cluster";

/// The demo's twelve cells, so hot that they take a second each: there must be a middle to be killed in.
fn hot_demo() -> String {
    let mut sweep = include_str!("../../src/demo.toml").to_owned();
    for (line, hot) in [
        ("max_new_tokens = 256", "max_new_tokens = 900"),
        ("temperature = 0.7", "temperature = 5.0"),
        ("top_p = 0.9", "top_p = 1.0"),
    ] {
        assert!(sweep.contains(line), "the demo has no line `{line}` any more");
        sweep = sweep.replace(line, hot);
    }
    sweep
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_over_broker_and_s3_survives_a_killed_worker_and_then_its_own_servers() {
    let bench = Bench::new();
    let s3 = S3Server::start();
    let objects = store::open(&s3.args("cluster")).await.unwrap();
    let mut workers: Vec<Program> = ["one", "two"]
        .iter()
        .map(|name| {
            let mut command = worker();
            command.args(["run", "--name", name, "--heartbeat", "0.25", "--store", STORE]);
            Program::start(command.env("NATS_URL", bench.server.url()).envs(s3.env()))
        })
        .collect();
    bench.sweep("demo.toml", &hot_demo());
    let sweep = Program::start(
        coordinator()
            .args([
                "run",
                "demo.toml",
                "--nats",
                &bench.server.url(),
                "--store",
                STORE,
                "--ack-wait",
                "1",
            ])
            .current_dir(bench.folder.path())
            .envs(s3.env()),
    );

    let queue = bench.queue().await;
    let (victim, cell) = kill_in_the_middle_of_a_cell(&queue, &objects, &mut workers).await;
    let finished = ended(sweep).expect(0);
    assert!(finished.stdout.starts_with("demo: 12 of 12 done\n"), "{}", finished.stdout);
    assert!(finished.stdout.contains("s3://results/cluster/demo/report.html"));

    let before = results(objects.as_ref()).await;
    let csv = String::from_utf8(before[0].clone()).unwrap();
    let rows: Vec<_> = csv.lines().skip(1).collect();
    assert_eq!(rows.len(), 12, "{csv}");
    assert!(rows.iter().all(|row| row.contains(",done,")), "{csv}");
    let survivor = if victim == "one" { ",two," } else { ",one," };
    let redone = rows.iter().find(|row| row.contains(cell.as_str())).unwrap();
    assert!(redone.contains(survivor), "{redone}");
    assert!(finished.stderr.contains("attempt 2"), "{victim} was killed: {}", finished.stderr);

    // Broker and workers are gone; the store alone gives the same.
    drop((queue, bench, workers));
    let mut collect = coordinator();
    collect.args(["collect", "demo", "--json", "--store", STORE]).envs(s3.env());
    let collected = run(&mut collect).expect(0).json();
    assert_eq!(collected["counts"]["done"], 12);
    assert_eq!(collected["orphans"], serde_json::json!([]));
    assert_eq!(collected["problems"], serde_json::json!([]));
    assert_eq!(results(objects.as_ref()).await, before);
    let listed = store::list(objects.as_ref(), "demo").await.unwrap();
    let count = |folder: &str| {
        listed.iter().filter(|meta| meta.location.as_ref().starts_with(folder)).count()
    };
    assert_eq!((count("demo/metrics/"), count("demo/failed/")), (12, 0));
}

/// Freezes whichever worker tells first that it generates, makes sure that the cell has no record
/// yet, and kills it.
async fn kill_in_the_middle_of_a_cell(
    queue: &bakeoff_transport::queue::nats::NatsQueue,
    objects: &Arc<dyn ObjectStore>,
    workers: &mut [Program],
) -> (String, CellId) {
    let mut events = events(queue, "demo").await;
    loop {
        let event = wait_for(&mut events, "that a cell is generated", decoding(900)).await;
        let JobPhase::Decoding { cell, .. } = event.phase else { unreachable!() };
        let victim = &mut workers[usize::from(event.worker == "two")];
        victim.freeze();
        let record = names::record_key(&event.sweep, &cell);
        if !store::exists(objects.as_ref(), &record).await.unwrap() {
            victim.kill();
            return (event.worker, cell);
        }
        victim.thaw();
    }
}

/// The files that collecting makes.
async fn results(objects: &dyn ObjectStore) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for file in ["demo_summary.csv", "report.md", "report.html", "report.json"] {
        let bytes = store::read(objects, &format!("demo/{file}")).await.unwrap();
        found.push(bytes.unwrap_or_else(|| panic!("{file} is missing")).to_vec());
    }
    found
}
