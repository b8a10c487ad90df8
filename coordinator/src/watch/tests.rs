use super::condition::PATIENCE;
use super::*;
use crate::plan::Revisions;
use bakeoff_transport::queue::memory::MemoryQueue;

/// A job that waits while the only worker has taken one of another sweep.
#[tokio::test]
async fn a_worker_that_is_busy_with_another_sweep_is_no_missing_one() {
    let queue = Arc::new(MemoryQueue::new());
    let mut plans = ["other", "mine"].map(|name| {
        let sweep = crate::sweep::Sweep { name: name.parse().unwrap(), ..crate::sweep::demo() };
        Plan::build(sweep, Revisions::new()).unwrap()
    });
    for plan in &mut plans {
        plan.jobs.truncate(1);
        queue.publish(&plan.jobs[0].job).await.unwrap();
    }
    let [other, mine] = &plans;
    let lease = queue.stats(&[]).await.unwrap().lease;
    let _taken = queue.pull(&[names::ANY_CLASS.into()], PATIENCE).await.unwrap().unwrap();
    let options = WatchOptions { republish: None, embedded: false };
    let store = bakeoff_transport::store::memory();
    let mut watch = Watch::new(queue.clone(), store, mine, &options);
    assert_eq!(watch.unserved_jobs().await.unwrap().1, None, "its lease has just begun");

    let long_ago = Instant::now().checked_sub(lease + PATIENCE).expect("a machine that runs");
    watch.last_event = long_ago;
    let warning = watch.unserved_jobs().await.unwrap().1.expect("no event for a lease");
    assert!(warning.starts_with("1 job is waiting and no worker is pulling (one was"), "{warning}");

    let event = JobEvent {
        sweep: other.sweep.name.clone(),
        job: other.jobs[0].job.id.clone(),
        generation: 1,
        attempt: None,
        worker: "w".into(),
        at: jiff::Timestamp::UNIX_EPOCH,
        phase: JobPhase::WarmingUp,
    };
    queue.emit(&event).await.unwrap();
    assert_eq!(watch.unserved_jobs().await.unwrap().1, None, "the other sweep's job is alive");
    watch.last_event = long_ago;
    assert!(watch.unserved_jobs().await.unwrap().1.is_some(), "and silent again");
}

/// All cells have failed, and the queue that would say whether a job is to be tried again is gone.
#[tokio::test]
async fn a_queue_that_does_not_answer_is_warned_of_though_the_store_does() {
    let mut server = bakeoff_test_servers::NatsServer::start();
    let connected = bakeoff_transport::queue::nats::NatsQueue::connect(&server.args()).await;
    let queue = Arc::new(connected.expect("the broker answers"));
    let plan = Plan::build(crate::sweep::demo(), Revisions::new()).unwrap();
    let store = bakeoff_transport::store::memory();
    let now = jiff::Timestamp::UNIX_EPOCH;
    queue.prepare(&QueueSettings::default(), &["any".into()]).await.unwrap();
    publish::cancel(queue.as_ref(), store.as_ref(), &plan, now).await.unwrap();
    server.kill();
    let options = WatchOptions { republish: None, embedded: true };
    let mut watch = Watch::new(queue, store, &plan, &options);
    assert!(!watch.look_at_store().await, "it cannot be called settled");
    assert!(!watch.settling_failing.was_warned(), "it may be back in a moment");
    watch.settling_failing.has_lasted();
    assert!(!watch.look_at_store().await);
    assert!(watch.settling_failing.was_warned());
}
