//! Preemptions, races, hangs and outages: nothing is lost and nothing doubled.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bakeoff_test_servers::{Fault, NatsServer, Proxy, S3Server};
use bakeoff_transport::queue::JobQueue;
use bakeoff_transport::queue::memory::MemoryQueue;
use bakeoff_transport::queue::nats::NatsQueue;
use bakeoff_transport::store;
use bakeoff_worker::observe::Meters;
use bakeoff_worker::serve::ServeError;

use crate::script::Script;
use crate::{
    ACK_WAIT, RunningWorker, assert_documents, config, emptied, failures, job, left, prepared,
    records, until,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_job_preempted_ten_times_with_progress_completes() {
    let (queue, store) = (Arc::new(MemoryQueue::new()), store::memory());
    prepared(queue.as_ref()).await;
    let job = job("preempted", 11);
    queue.publish(&job).await.unwrap();
    let script = Script { token_pause: Duration::from_millis(2), ..Script::default() };
    for done in 1..=10 {
        let worker = RunningWorker::start(config("w", &script), queue.clone(), store.clone());
        until("another cell is done", async || records(store.as_ref(), &job).await.len() >= done)
            .await;
        // As a killed process would: nothing is handed back, the lease lapses.
        worker.task.abort();
    }
    let worker = RunningWorker::start(config("w", &script), queue.clone(), store.clone());
    emptied(queue.as_ref(), &job).await;
    worker.leave().await.unwrap();
    assert_eq!(records(store.as_ref(), &job).await.len(), 11);
    assert!(failures(store.as_ref(), &job).await.is_empty());
}

/// The holder freezes past its lease; another does the job; the first comes back and finds it done.
#[tokio::test(flavor = "multi_thread")]
async fn the_loser_of_a_race_discards_its_own_files() {
    let server = NatsServer::start();
    let queue = Arc::new(NatsQueue::connect(&server.args()).await.unwrap());
    let store = store::memory();
    prepared(queue.as_ref()).await;
    let job = job("race", 1);
    queue.publish(&job).await.unwrap();
    let slow = Script { token_pause: Duration::from_millis(100), ..Script::default() };
    let mut frozen = config("frozen", &slow);
    // No renewal: as if the process had been stopped.
    frozen.heartbeat = Duration::from_secs(600);
    let first = RunningWorker::start(frozen, queue.clone(), store.clone());
    until("the first generates", async || slow.opened.load(Ordering::SeqCst) == 1).await;
    let fast = Script::default();
    let second = RunningWorker::start(config("second", &fast), queue.clone(), store.clone());
    until("both have generated", async || {
        fast.generated.load(Ordering::SeqCst) >= 1 && slow.generated.load(Ordering::SeqCst) == 1
    })
    .await;
    emptied(queue.as_ref(), &job).await;
    first.leave().await.unwrap();
    second.leave().await.unwrap();
    let records = records(store.as_ref(), &job).await;
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].worker, "second");
    assert_documents(store.as_ref(), &job, &records).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standstill_ends_the_attempt_and_the_worker() {
    let (queue, store) = (Arc::new(MemoryQueue::new()), store::memory());
    prepared(queue.as_ref()).await;
    let job = job("hung", 1);
    queue.publish(&job).await.unwrap();
    let script = Script { hangs_at: Some(3), ..Script::default() };
    let mut config = config("w", &script);
    config.stall_limit = Duration::from_millis(500);
    config.halt_limit = Duration::from_millis(500);
    let worker = RunningWorker::start(config, queue.clone(), store.clone());
    let left = left(worker).await;
    assert!(matches!(left, Err(ServeError::Hung(_))), "{left:?}");
    assert_eq!(queue.open_jobs(&job.sweep_id()).await.unwrap().len(), 1);
}

/// The broker dies with jobs queued and comes back; the store does not answer for a while, and
/// then loses an answer after it has committed.
#[tokio::test(flavor = "multi_thread")]
async fn outages_of_broker_and_store_lose_nothing() {
    let mut server = NatsServer::start();
    let s3 = S3Server::start();
    let proxy = Proxy::start(s3.port()).await.unwrap();
    let mut args = s3.args("outages");
    args.s3_endpoint = Some(format!("http://127.0.0.1:{}", proxy.port()));
    let (through, direct) =
        (store::open(&args).await.unwrap(), store::open(&s3.args("outages")).await.unwrap());
    let queue = Arc::new(NatsQueue::connect(&server.args()).await.unwrap());
    prepared(queue.as_ref()).await;
    let jobs = [job("outages", 2), job("outages-2", 2)];
    for job in &jobs {
        queue.publish(job).await.unwrap();
    }
    server.kill();
    server.restart();
    let script = Script { token_pause: Duration::from_millis(5), ..Script::default() };
    let config = config("w", &script);
    let meters = config.meters.clone();
    let worker = RunningWorker::start(config, queue.clone(), through);
    until("a job is opened", async || script.opened.load(Ordering::SeqCst) >= 1).await;
    proxy.set(Fault::Cut);
    until("a cell is generated", async || script.generated.load(Ordering::SeqCst) >= 1).await;
    // Longer than the lease: it is kept only because the tries count as movement.
    let cut = Instant::now();
    until("the store is tried again for longer than a lease", async || {
        retries(&meters) >= 3 && cut.elapsed() > ACK_WAIT * 2
    })
    .await;
    proxy.set(Fault::DropAnswersToWrites);
    until("a file arrives without an answer", async || {
        !store::list(direct.as_ref(), jobs[0].sweep.as_str()).await.unwrap().is_empty()
    })
    .await;
    proxy.set(Fault::None);
    for job in &jobs {
        emptied(queue.as_ref(), job).await;
    }
    worker.leave().await.unwrap();
    for job in &jobs {
        let records = records(direct.as_ref(), job).await;
        assert_eq!(records.len(), 2);
        assert_documents(direct.as_ref(), job, &records).await;
    }
}

fn retries(meters: &Meters) -> u64 {
    let text = meters.render();
    let value = text.lines().find_map(|line| line.strip_prefix("bakeoff_store_retries_total "));
    value.and_then(|value| value.parse().ok()).expect("the counter is always there")
}
