//! How a job leaves a worker: failed for good, given up, handed back, cancelled.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bakeoff_proto::{FailureKind, JobPhase};
use bakeoff_test_servers::NatsServer;
use bakeoff_transport::queue::JobQueue;
use bakeoff_transport::queue::memory::MemoryQueue;
use bakeoff_transport::queue::nats::NatsQueue;
use bakeoff_transport::store;
use bakeoff_worker::serve::{Leave, Served};
use futures::StreamExt;

use crate::script::Script;
use crate::{RunningWorker, config, emptied, failures, job, left, prepared, records, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_can_never_load_fails_at_once_and_for_good() {
    let (queue, store) = (Arc::new(MemoryQueue::new()), store::memory());
    prepared(queue.as_ref()).await;
    let job = job("never", 2);
    queue.publish(&job).await.unwrap();
    let script = Script { open_error: Some(FailureKind::Quantised), ..Script::default() };
    let worker = RunningWorker::start(config("w", &script), queue.clone(), store.clone());
    emptied(queue.as_ref(), &job).await;
    worker.leave().await.unwrap();
    let failures = failures(store.as_ref(), &job).await;
    assert_eq!(failures.len(), 2);
    assert!(failures.iter().all(|f| f.kind == FailureKind::Quantised && f.attempts == 1));
    assert_eq!(script.opened.load(Ordering::SeqCst), 1);
}

async fn poison_job(queue: Arc<dyn JobQueue>) {
    let store = store::memory();
    prepared(queue.as_ref()).await;
    let job = job("poison", 2);
    queue.publish(&job).await.unwrap();
    let script = Script { open_error: Some(FailureKind::OutOfMemory), ..Script::default() };
    let worker = RunningWorker::start(config("w", &script), queue.clone(), store.clone());
    emptied(queue.as_ref(), &job).await;
    worker.leave().await.unwrap();
    let failures = failures(store.as_ref(), &job).await;
    assert_eq!(failures.len(), 2);
    for failure in failures {
        assert_eq!((failure.kind, failure.attempts), (FailureKind::AttemptsExhausted, 5));
    }
    assert_eq!(script.opened.load(Ordering::SeqCst), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poison_job_ends_at_the_fifth_attempt() {
    poison_job(Arc::new(MemoryQueue::new())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poison_job_ends_at_the_fifth_attempt_on_a_broker() {
    let server = NatsServer::start();
    poison_job(Arc::new(NatsQueue::connect(&server.args()).await.unwrap())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_finishes_the_cell_and_hands_the_rest_back() {
    let (queue, store) = (Arc::new(MemoryQueue::new()), store::memory());
    prepared(queue.as_ref()).await;
    let job = job("drain", 2);
    queue.publish(&job).await.unwrap();
    let script = Script { token_pause: Duration::from_millis(20), ..Script::default() };
    let mut events = queue.events(&job.sweep).await.unwrap();
    let worker = RunningWorker::start(config("w", &script), queue.clone(), store.clone());
    // The warm-up asks for fewer tokens.
    let generating = |phase: &JobPhase| matches!(phase, JobPhase::Decoding { max_tokens: 40, .. });
    while !generating(&events.next().await.expect("events go on").phase) {}
    let served = worker.leave().await.unwrap();
    assert_eq!(served, Served { jobs: 1, reason: Leave::Stopped });
    assert_eq!(records(store.as_ref(), &job).await.len(), 1);
    // Handed back, not left to lapse.
    let stats = queue.stats(&[]).await.unwrap();
    assert_eq!((stats.pending, stats.in_flight), (1, 0));
    let (attempt, _) = queue.load_attempt(&job).await.unwrap().unwrap();
    assert_eq!(attempt.fruitless, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_stops_at_the_next_token() {
    let (queue, store) = (Arc::new(MemoryQueue::new()), store::memory());
    prepared(queue.as_ref()).await;
    let job = job("cancelled", 2);
    queue.publish(&job).await.unwrap();
    let script = Script { token_pause: Duration::from_millis(200), ..Script::default() };
    let worker = RunningWorker::start(config("w", &script), queue.clone(), store.clone());
    until("it generates", async || script.opened.load(Ordering::SeqCst) == 1).await;
    queue.cancel(&job.sweep_id()).await.unwrap();
    until("the failures are written", async || failures(store.as_ref(), &job).await.len() == 2)
        .await;
    worker.leave().await.unwrap();
    let failures = failures(store.as_ref(), &job).await;
    assert!(failures.iter().all(|failure| failure.kind == FailureKind::Cancelled));
    assert_eq!(script.generated.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_worker_leaves_by_itself() {
    let queue = Arc::new(MemoryQueue::new());
    prepared(queue.as_ref()).await;
    let mut config = config("w", &Script::default());
    config.idle_exit = Some(Duration::from_millis(100));
    let served = left(RunningWorker::start(config, queue, store::memory())).await.unwrap();
    assert_eq!(served, Served { jobs: 0, reason: Leave::Idle });
}
