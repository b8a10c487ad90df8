//! Sweeps of one name, one after the other on a real broker: what is left of one does not reach the
//! next.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bakeoff_proto::{Incarnation, Job, names};
use bakeoff_test_servers::NatsServer;
use bakeoff_transport::queue::JobQueue;
use bakeoff_transport::queue::nats::NatsQueue;
use bakeoff_transport::store;
use object_store::ObjectStore;

use crate::script::Script;
use crate::{RunningWorker, config, emptied, job, prepared, records, until};

struct Bench {
    _server: NatsServer,
    queue: Arc<NatsQueue>,
    store: Arc<dyn ObjectStore>,
}

impl Bench {
    async fn new() -> Self {
        let server = NatsServer::start();
        let queue = Arc::new(NatsQueue::connect(&server.args()).await.unwrap());
        prepared(queue.as_ref()).await;
        Self { _server: server, queue, store: store::memory() }
    }

    fn worker(&self, name: &str, script: &Script) -> RunningWorker {
        RunningWorker::start(config(name, script), self.queue.clone(), self.store.clone())
    }

    /// The job as an incarnation's plan has it; the plan is in the store.
    async fn frozen(&self, job: &Job, incarnation: &str) -> Job {
        let plan = serde_json::json!({ "schema_version": 1, "incarnation": incarnation });
        let key = names::plan_key(&job.sweep);
        store::write(self.store.as_ref(), &key, plan.to_string().into()).await.unwrap();
        Job { incarnation: Some(Incarnation(incarnation.to_owned())), ..job.clone() }
    }

    async fn keys(&self, job: &Job) -> Vec<String> {
        let listed = store::list(self.store.as_ref(), job.sweep.as_str()).await.unwrap();
        listed.into_iter().map(|meta| meta.location.to_string()).collect()
    }

    async fn delete(&self, job: &Job) {
        for key in self.keys(job).await {
            store::remove(self.store.as_ref(), &key).await.unwrap();
        }
    }
}

/// Attempts without a new record are counted in a bucket that outlives the sweep.
#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_deleted_and_run_again_and_again_is_done_each_time() {
    let bench = Bench::new().await;
    let planned = job("again", 2);
    let script = Script::default();
    let worker = bench.worker("w", &script);
    for round in 1..=6 {
        let job = bench.frozen(&planned, &format!("night-{round}")).await;
        bench.queue.publish(&job).await.unwrap();
        emptied(bench.queue.as_ref(), &job).await;
        assert_eq!(records(bench.store.as_ref(), &job).await.len(), 2, "round {round}");
        bench.delete(&job).await;
    }
    worker.leave().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_is_not_born_cancelled_by_the_one_before() {
    let bench = Bench::new().await;
    let planned = job("born", 1);
    let first = bench.frozen(&planned, "first").await;
    bench.queue.publish(&first).await.unwrap();
    bench.queue.cancel(&first.sweep_id()).await.unwrap();
    bench.delete(&first).await;
    let second = bench.frozen(&planned, "second").await;
    assert!(!bench.queue.is_cancelled(&second.sweep_id()).await.unwrap());
    bench.queue.publish(&second).await.unwrap();
    let script = Script::default();
    let worker = bench.worker("w", &script);
    emptied(bench.queue.as_ref(), &second).await;
    worker.leave().await.unwrap();
    assert_eq!(records(bench.store.as_ref(), &second).await.len(), 1);
}

/// A worker is in the middle of a cell when its sweep is deleted and submitted anew.
async fn outlived(name: &str, cancelled: bool) {
    let bench = Bench::new().await;
    let planned = job(name, 2);
    let first = bench.frozen(&planned, "first").await;
    bench.queue.publish(&first).await.unwrap();
    let script = Script { token_pause: Duration::from_millis(25), ..Script::default() };
    let worker = bench.worker("old", &script);
    until("it generates", async || script.opened.load(Ordering::SeqCst) == 1).await;
    bench.delete(&first).await;
    let second = bench.frozen(&planned, "second").await;
    if cancelled {
        bench.queue.cancel(&first.sweep_id()).await.unwrap();
    }
    emptied(bench.queue.as_ref(), &first).await;
    worker.leave().await.unwrap();
    let generated = script.generated.load(Ordering::SeqCst);
    assert_eq!(generated, u32::from(!cancelled), "it was in the middle of its first cell");
    assert_eq!(bench.keys(&planned).await, [names::plan_key(&planned.sweep)]);

    // The new one is not in the way of what is left, and the other way round.
    let fast = Script::default();
    bench.queue.publish(&first).await.unwrap();
    bench.queue.publish(&second).await.unwrap();
    let worker = bench.worker("new", &fast);
    emptied(bench.queue.as_ref(), &first).await;
    emptied(bench.queue.as_ref(), &second).await;
    worker.leave().await.unwrap();
    assert_eq!(records(bench.store.as_ref(), &second).await.len(), 2);
    assert_eq!(fast.opened.load(Ordering::SeqCst), 1, "the job of the deleted sweep is not opened");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_of_a_deleted_sweep_records_nothing_in_the_next() {
    outlived("records", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_of_a_deleted_sweep_fails_nothing_in_the_next() {
    outlived("fails", true).await;
}
