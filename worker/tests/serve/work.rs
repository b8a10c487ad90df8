//! What a job leaves behind.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bakeoff_proto::{FailureKind, Job, SCHEMA_VERSION};
use bakeoff_transport::queue::JobQueue;
use bakeoff_transport::queue::memory::MemoryQueue;
use bakeoff_transport::store;
use bakeoff_worker::serve::Leave;

use crate::script::Script;
use crate::{
    RunningWorker, assert_documents, config, emptied, failures, job, left, prepared, records, until,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_job_leaves_a_record_a_document_and_a_timeline_a_cell() {
    let (queue, store) = (Arc::new(MemoryQueue::new()), store::memory());
    prepared(queue.as_ref()).await;
    let job = job("whole", 3);
    queue.publish(&job).await.unwrap();
    let script = Script { token_pause: Duration::from_millis(1), ..Script::default() };
    let mut config = config("w", &script);
    config.max_jobs = Some(1);
    let worker = RunningWorker::start(config, queue.clone(), store.clone());
    let served = left(worker).await.unwrap();
    assert_eq!((served.jobs, served.reason), (1, Leave::MaxJobs));
    emptied(queue.as_ref(), &job).await;
    let records = records(store.as_ref(), &job).await;
    assert_eq!(records.len(), 3);
    assert_documents(store.as_ref(), &job, &records).await;
    let metrics = &records[0].metrics;
    assert_eq!((metrics.tokens_generated, metrics.prompt_tokens), (40, 3));
    assert_eq!(records[0].inter_token_ms.len(), 39);
    assert!((metrics.tok_per_s - 40.0 / metrics.time_s).abs() < 1e-9);
    assert!(records[0].mismatches.is_empty(), "{:?}", records[0].mismatches);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_that_cannot_be_generated_leaves_the_others_alone() {
    let (queue, store) = (Arc::new(MemoryQueue::new()), store::memory());
    prepared(queue.as_ref()).await;
    let job = job("bad-cell", 3);
    queue.publish(&job).await.unwrap();
    let bad = Some(("prompt 1".to_owned(), FailureKind::ContextOverflow));
    let script = Script { bad_prompt: bad, ..Script::default() };
    let worker = RunningWorker::start(config("w", &script), queue.clone(), store.clone());
    emptied(queue.as_ref(), &job).await;
    worker.leave().await.unwrap();
    let failures = failures(store.as_ref(), &job).await;
    assert_eq!(failures.len(), 1);
    assert_eq!(
        (failures[0].kind, &failures[0].cell),
        (FailureKind::ContextOverflow, &job.cells[0].id)
    );
    assert_eq!(records(store.as_ref(), &job).await.len(), 2);
}

/// During a rolling upgrade: the job is neither failed nor removed, it waits for a newer worker.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_a_later_version_is_left_to_a_newer_worker() {
    let (queue, store) = (Arc::new(MemoryQueue::new()), store::memory());
    prepared(queue.as_ref()).await;
    let later = Job { schema_version: SCHEMA_VERSION + 1, ..job("later", 2) };
    queue.publish(&later).await.unwrap();
    let script = Script::default();
    let config = config("old", &script);
    let meters = config.meters.clone();
    let worker = RunningWorker::start(config, queue.clone(), store.clone());
    until("it is handed back", async || {
        meters.render().contains("bakeoff_jobs_total{outcome=\"handed_back\"} 1\n")
    })
    .await;
    worker.leave().await.unwrap();
    let stats = queue.stats(&[]).await.unwrap();
    assert_eq!((stats.pending, stats.in_flight), (1, 0));
    assert!(failures(store.as_ref(), &later).await.is_empty());
    assert_eq!(script.opened.load(Ordering::SeqCst), 0);
}
