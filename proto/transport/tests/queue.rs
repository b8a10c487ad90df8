//! One suite that every queue passes: in this process, and on a real broker.

use std::time::Duration;

use bakeoff_model::{EngineSettings, GenerationSettings, ModelSource};
use bakeoff_proto::limits::MAX_JOB_BYTES;
use bakeoff_proto::{Attempt, AttemptId, Job, JobEvent, JobPhase, SweepId, SweepName};
use bakeoff_test_servers::{NatsServer, jobs};
use bakeoff_transport::queue::memory::MemoryQueue;
use bakeoff_transport::queue::nats::NatsQueue;
use bakeoff_transport::queue::{
    Delivery, JobQueue, Published, QueueError, QueueSettings, Revision,
};
use futures::StreamExt;

const ACK_WAIT: Duration = Duration::from_secs(1);
/// Longer than a lease and the queue's own latency.
const SOON: Duration = Duration::from_secs(5);

fn settings() -> QueueSettings {
    QueueSettings {
        ack_wait: ACK_WAIT,
        duplicate_window: Duration::from_millis(200),
        ..QueueSettings::default()
    }
}

fn classes() -> Vec<String> {
    vec!["any".into(), "cpu".into()]
}

fn sweep(name: &str) -> SweepName {
    name.parse().unwrap()
}

fn id(name: &SweepName) -> SweepId {
    SweepId { name: name.clone(), incarnation: None }
}

fn job(sweep: &SweepName, class: &str, prompt: &str) -> Job {
    let source = ModelSource::Builtin { name: "tiny-qwen2".into() };
    let cells = vec![jobs::cell(1, prompt, GenerationSettings::default())];
    let job = jobs::job(sweep.as_str(), source, EngineSettings::default(), cells);
    Job { gpu_class: class.into(), ..job }
}

async fn next(queue: &dyn JobQueue) -> Box<dyn Delivery> {
    let pulled = queue.pull(&classes(), SOON).await.unwrap();
    pulled.expect("a job is delivered")
}

async fn nothing_for(queue: &dyn JobQueue, wait: Duration) {
    assert!(queue.pull(&classes(), wait).await.unwrap().is_none(), "a job was delivered");
}

fn parsed(delivery: &dyn Delivery) -> Job {
    serde_json::from_slice(delivery.payload()).unwrap()
}

async fn a_queued_job_is_never_doubled(queue: &dyn JobQueue) {
    let sweep = sweep("dedupe");
    let job = job(&sweep, "any", "x");
    assert_eq!(queue.publish(&job).await.unwrap(), Published::Queued);
    assert_eq!(queue.publish(&job).await.unwrap(), Published::AlreadyQueued);
    let delivery = next(queue).await;
    // Held by a worker and past the duplicate window: still the same job.
    tokio::time::sleep(settings().duplicate_window * 2).await;
    let retried = Job { generation: 2, ..job.clone() };
    assert_eq!(queue.publish(&retried).await.unwrap(), Published::AlreadyQueued);
    assert_eq!(queue.open_jobs(&id(&sweep)).await.unwrap(), std::slice::from_ref(&job.id));
    delivery.ack().await.unwrap();
    assert!(queue.open_jobs(&id(&sweep)).await.unwrap().is_empty());
    // Done and published again, inside the duplicate window of that message.
    assert_eq!(queue.publish(&retried).await.unwrap(), Published::Queued);
    next(queue).await.ack().await.unwrap();
    assert_eq!(queue.publish(&retried).await.unwrap(), Published::Queued);
    next(queue).await.ack().await.unwrap();
    nothing_for(queue, Duration::from_millis(100)).await;
}

async fn two_coordinators_queue_a_job_once(queue: &dyn JobQueue) {
    let sweep = sweep("two-coordinators");
    let job = job(&sweep, "any", "x");
    let (one, other) = tokio::join!(queue.publish(&job), queue.publish(&job));
    let mut outcomes = [one.unwrap(), other.unwrap()];
    outcomes.sort_by_key(|outcome| *outcome == Published::AlreadyQueued);
    assert_eq!(outcomes, [Published::Queued, Published::AlreadyQueued]);
    next(queue).await.ack().await.unwrap();
    nothing_for(queue, Duration::from_millis(100)).await;
}

async fn a_lapsed_lease_is_delivered_again(queue: &dyn JobQueue) {
    let job = job(&sweep("lease"), "cpu", "x");
    queue.publish(&job).await.unwrap();
    let first = next(queue).await;
    assert_eq!(first.delivered(), 1);
    assert_eq!(parsed(first.as_ref()), job);
    for (classes, in_flight) in [(vec![], 1), (vec!["cpu".into()], 1), (vec!["any".into()], 0)] {
        let stats = queue.stats(&classes).await.unwrap();
        assert_eq!((stats.pending, stats.in_flight), (0, in_flight), "{classes:?}");
    }
    assert_eq!(queue.stats(&[]).await.unwrap().lease, ACK_WAIT);
    let second = next(queue).await;
    assert_eq!(second.delivered(), 2);
    second.ack().await.unwrap();
    nothing_for(queue, ACK_WAIT * 2).await;
}

async fn progress_keeps_a_lease(queue: &dyn JobQueue) {
    queue.publish(&job(&sweep("progress"), "any", "x")).await.unwrap();
    let held = next(queue).await;
    for _ in 0..6 {
        nothing_for(queue, ACK_WAIT / 3).await;
        held.progress().await.unwrap();
    }
    held.ack().await.unwrap();
    nothing_for(queue, ACK_WAIT * 2).await;
}

async fn a_job_handed_back_returns_after_its_delay(queue: &dyn JobQueue) {
    queue.publish(&job(&sweep("nak"), "any", "x")).await.unwrap();
    let delay = Duration::from_millis(700);
    let handed_back = std::time::Instant::now();
    next(queue).await.nak(delay).await.unwrap();
    let again = next(queue).await;
    assert!(handed_back.elapsed() >= delay);
    assert_eq!(again.delivered(), 2);
    again.nak(Duration::ZERO).await.unwrap();
    let at_once = std::time::Instant::now();
    next(queue).await.ack().await.unwrap();
    assert!(at_once.elapsed() < ACK_WAIT * 3);
}

async fn an_ended_job_is_gone(queue: &dyn JobQueue) {
    queue.publish(&job(&sweep("term"), "any", "x")).await.unwrap();
    next(queue).await.term("no such\nmodel").await.unwrap();
    nothing_for(queue, ACK_WAIT * 2).await;
    let stats = queue.stats(&[]).await.unwrap();
    assert_eq!((stats.pending, stats.in_flight), (0, 0));
}

async fn one_claim_of_several_wins(queue: &dyn JobQueue) {
    let job = job(&sweep("claims"), "any", "x");
    assert!(queue.load_attempt(&job).await.unwrap().is_none());
    let attempt = |name: &str, number| Attempt {
        id: AttemptId(name.into()),
        worker: "w".into(),
        number,
        fruitless: number,
        done_at_start: 0,
    };
    let first = queue.store_attempt(&job, &attempt("a", 1), None).await.unwrap();
    let late = queue.store_attempt(&job, &attempt("b", 1), None).await;
    assert!(matches!(late, Err(QueueError::Conflict)), "{late:?}");
    let (found, at) = queue.load_attempt(&job).await.unwrap().unwrap();
    assert_eq!((found, at), (attempt("a", 1), first));

    let (c, d) = (attempt("c", 2), attempt("d", 2));
    let (one, other) = tokio::join!(
        queue.store_attempt(&job, &c, Some(first)),
        queue.store_attempt(&job, &d, Some(first)),
    );
    assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
    let stale = queue.store_attempt(&job, &attempt("e", 3), Some(Revision(first.0))).await;
    assert!(matches!(stale, Err(QueueError::Conflict)), "{stale:?}");
    // A new generation starts counting afresh.
    let retried = Job { generation: 2, ..job.clone() };
    assert!(queue.load_attempt(&retried).await.unwrap().is_none());
}

async fn a_cancelled_sweep_leaves_the_queue(queue: &dyn JobQueue) {
    let (gone, stays) = (sweep("gone"), sweep("stays"));
    queue.publish(&job(&gone, "any", "held")).await.unwrap();
    let held = next(queue).await;
    queue.publish(&job(&gone, "any", "queued")).await.unwrap();
    queue.publish(&job(&stays, "any", "other")).await.unwrap();
    let mut cancelled = queue.watch_cancel(&id(&gone)).await.unwrap();
    assert!(!*cancelled.borrow());
    assert!(!queue.is_cancelled(&id(&gone)).await.unwrap());
    queue.cancel(&id(&gone)).await.unwrap();
    assert!(queue.is_cancelled(&id(&gone)).await.unwrap());
    assert!(!queue.is_cancelled(&id(&stays)).await.unwrap());
    let noticed = tokio::time::timeout(SOON, cancelled.wait_for(|now| *now)).await;
    assert!(noticed.is_ok_and(|noticed| noticed.is_ok()), "the holder did not notice");
    held.term("cancelled").await.unwrap();
    assert!(queue.open_jobs(&id(&gone)).await.unwrap().is_empty());
    assert!(*queue.watch_cancel(&id(&gone)).await.unwrap().borrow());
    assert!(!*queue.watch_cancel(&id(&stays)).await.unwrap().borrow());
    let other = next(queue).await;
    assert_eq!(parsed(other.as_ref()).sweep, stays);
    other.ack().await.unwrap();
    queue.clear_cancel(&id(&gone)).await.unwrap();
    assert!(!queue.is_cancelled(&id(&gone)).await.unwrap());
    let lifted = tokio::time::timeout(SOON, cancelled.wait_for(|now| !*now)).await;
    assert!(lifted.is_ok_and(|lifted| lifted.is_ok()), "the lifting was not noticed");
}

async fn a_watcher_sees_the_latest_event_and_then_the_live_ones(queue: &dyn JobQueue) {
    let sweep = sweep("events");
    let jobs = [job(&sweep, "any", "x"), job(&sweep, "any", "y")];
    let event = |job: &Job, phase| JobEvent {
        sweep: sweep.clone(),
        job: job.id.clone(),
        generation: 1,
        attempt: None,
        worker: "w".into(),
        at: jiff::Timestamp::UNIX_EPOCH,
        phase,
    };
    let old = JobPhase::Downloading { bytes: 1, total_bytes: None };
    let before = queue.event_count().await.unwrap();
    queue.emit(&event(&jobs[0], old)).await.unwrap();
    queue.emit(&event(&jobs[0], JobPhase::WarmingUp)).await.unwrap();
    queue.emit(&event(&jobs[1], JobPhase::Done)).await.unwrap();
    // The broker stores events without being asked to confirm: a confirmed request after them
    // on the same connection says that they have arrived.
    queue.stats(&[]).await.unwrap();
    assert_eq!(queue.event_count().await.unwrap(), before + 3);
    let mut events = queue.events(&sweep).await.unwrap();
    let mut latest = Vec::new();
    for _ in 0..2 {
        let next = tokio::time::timeout(SOON, events.next()).await.expect("the latest events");
        latest.push(next.unwrap());
    }
    assert!(latest.contains(&event(&jobs[0], JobPhase::WarmingUp)), "{latest:?}");
    assert!(latest.contains(&event(&jobs[1], JobPhase::Done)), "{latest:?}");
    queue.emit(&event(&jobs[0], JobPhase::Done)).await.unwrap();
    let live = tokio::time::timeout(SOON, events.next()).await.expect("a live event");
    assert_eq!(live.unwrap(), event(&jobs[0], JobPhase::Done));
}

/// A worker's own class has no consumer until a sweep asks for it.
async fn a_class_that_nobody_laid_out_is_no_obstacle(queue: &dyn JobQueue) {
    let job = job(&sweep("classes"), "any", "x");
    queue.publish(&job).await.unwrap();
    let pulled = queue.pull(&["never-laid-out".into(), "any".into()], SOON).await.unwrap();
    pulled.expect("the job of the other class").ack().await.unwrap();
}

async fn a_message_that_is_too_large_is_refused(queue: &dyn JobQueue) {
    let job = job(&sweep("large"), "any", &"x".repeat(MAX_JOB_BYTES));
    let error = queue.publish(&job).await.unwrap_err();
    assert!(matches!(error, QueueError::TooLarge { limit: MAX_JOB_BYTES, .. }), "{error}");
    assert!(error.to_string().contains("cells_per_job"), "{error}");
}

/// Consumers that live in the broker's memory are gone with it; nobody who follows may have to
/// notice.
#[tokio::test(flavor = "multi_thread")]
async fn events_and_cancellations_are_followed_through_a_restart_of_the_broker() {
    let mut server = NatsServer::start();
    let queue = NatsQueue::connect(&server.args()).await.unwrap();
    queue.prepare(&settings(), &classes()).await.unwrap();
    let sweep = sweep("restart");
    let job = job(&sweep, "any", "x");
    let event = |phase| JobEvent {
        sweep: sweep.clone(),
        job: job.id.clone(),
        generation: 1,
        attempt: None,
        worker: "w".into(),
        at: jiff::Timestamp::UNIX_EPOCH,
        phase,
    };
    let mut events = queue.events(&sweep).await.unwrap();
    let mut cancelled = queue.watch_cancel(&id(&sweep)).await.unwrap();
    queue.emit(&event(JobPhase::WarmingUp)).await.unwrap();
    let first = tokio::time::timeout(SOON, events.next()).await.expect("an event");
    assert_eq!(first.unwrap(), event(JobPhase::WarmingUp));
    server.restart();
    // Another connection, so that nothing rides on what the first has still to send.
    let other = NatsQueue::connect(&server.args()).await.unwrap();
    other.cancel(&id(&sweep)).await.unwrap();
    other.emit(&event(JobPhase::Cancelled)).await.unwrap();
    let noticed = tokio::time::timeout(SOON, cancelled.wait_for(|now| *now)).await;
    assert!(
        noticed.is_ok_and(|noticed| noticed.is_ok()),
        "the cancellation was not noticed in time"
    );
    let next = tokio::time::timeout(SOON, events.next()).await.expect("the event comes in time");
    assert_eq!(next.unwrap(), event(JobPhase::Cancelled));
}

async fn prepared(queue: &dyn JobQueue) {
    queue.prepare(&settings(), &classes()).await.unwrap();
}

macro_rules! suite {
    ($($name:ident),* $(,)?) => {
        mod memory {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $name() {
                    let queue = super::MemoryQueue::new();
                    super::prepared(&queue).await;
                    super::$name(&queue).await;
                }
            )*
        }

        mod nats {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $name() {
                    let server = super::NatsServer::start();
                    let queue = super::NatsQueue::connect(&server.args()).await.unwrap();
                    super::prepared(&queue).await;
                    super::$name(&queue).await;
                }
            )*
        }
    };
}

suite!(
    a_queued_job_is_never_doubled,
    two_coordinators_queue_a_job_once,
    a_lapsed_lease_is_delivered_again,
    progress_keeps_a_lease,
    a_job_handed_back_returns_after_its_delay,
    an_ended_job_is_gone,
    one_claim_of_several_wins,
    a_cancelled_sweep_leaves_the_queue,
    a_watcher_sees_the_latest_event_and_then_the_live_ones,
    a_class_that_nobody_laid_out_is_no_obstacle,
    a_message_that_is_too_large_is_refused,
);
