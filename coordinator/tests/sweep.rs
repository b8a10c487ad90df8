//! A sweep from plan to CSV over the in-process queue and a store in memory, with workers by
//! script.

mod common;

use std::future::pending;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bakeoff_coordinator::collect::{Counts, read};
use bakeoff_coordinator::error::Error;
use bakeoff_coordinator::plan::{Plan, Revisions};
use bakeoff_coordinator::publish::{self, Frozen, PublishError, Scope, Submitted};
use bakeoff_coordinator::watch::{self, WatchOptions, Watched};
use bakeoff_coordinator::{results, sweep};
use bakeoff_proto::{CellStatus, names};
use bakeoff_transport::queue::memory::MemoryQueue;
use bakeoff_transport::queue::{JobQueue, QueueSettings};
use bakeoff_transport::store;
use object_store::ObjectStore;

fn demo() -> Plan {
    Plan::build(sweep::demo(), Revisions::new()).expect("the demo has a plan")
}

struct Bench {
    queue: Arc<dyn JobQueue>,
    objects: Arc<dyn ObjectStore>,
    plan: Plan,
}

impl Bench {
    fn new() -> Self {
        Self { queue: Arc::new(MemoryQueue::new()), objects: store::memory(), plan: demo() }
    }

    async fn publish(&self, scope: Scope) -> Submitted {
        let settings = QueueSettings::default();
        publish::publish(self.queue.as_ref(), self.objects.as_ref(), &self.plan, &settings, scope)
            .await
            .expect("publish")
    }

    async fn freeze(&self) -> Frozen {
        publish::freeze(self.objects.as_ref(), &mut self.plan.clone()).await.expect("freeze")
    }

    async fn counts(&self) -> Counts {
        Counts::of(read::statuses(self.objects.as_ref(), &self.plan).await.expect("statuses"))
    }

    async fn csv(&self) -> String {
        let name = &self.plan.sweep.name;
        let (_, outputs) = results::collect_and_store(&self.objects, name).await.expect("collect");
        outputs[0].text.clone()
    }
}

#[tokio::test]
async fn a_submitted_sweep_is_done_once_and_collects_to_the_same_bytes() {
    let bench = Bench::new();
    assert_eq!(bench.freeze().await, Frozen::New);
    assert_eq!(bench.publish(Scope::Open).await.published, 3);
    // A second submission adds nothing.
    assert_eq!(bench.freeze().await, Frozen::Resumed);
    let again = bench.publish(Scope::Open).await;
    assert_eq!((again.published, again.already_queued), (0, 3));

    assert_eq!(common::drain(bench.queue.as_ref(), &bench.objects).await, 12);
    let done = bench.publish(Scope::Open).await;
    assert_eq!(done, Submitted { done: 3, ..Submitted::default() });

    let csv = bench.csv().await;
    assert_eq!(csv.lines().count(), 13);
    assert!(csv.lines().skip(1).all(|line| line.contains(",done,")), "{csv}");
    assert_eq!(csv, bench.csv().await);
    let name = &bench.plan.sweep.name;
    let collected = read::collect(bench.objects.clone(), name).await.unwrap();
    assert_eq!((collected.outputs.len(), collected.telemetry.len()), (12, 12));
    assert_eq!(collected.orphans, Vec::<String>::new());
    assert_eq!(collected.problems, Vec::<String>::new());
}

#[tokio::test]
async fn two_coordinators_at_once_make_one_set_of_jobs() {
    let bench = Bench::new();
    let (a, b) = futures::join!(bench.freeze(), bench.freeze());
    assert!(a == Frozen::New || b == Frozen::New);
    let (a, b) = futures::join!(bench.publish(Scope::Open), bench.publish(Scope::Open));
    assert_eq!(a.published + b.published, 3);
    assert_eq!(common::drain(bench.queue.as_ref(), &bench.objects).await, 12);
}

#[tokio::test]
async fn another_plan_under_the_same_name_is_refused_and_says_what_differs() {
    let bench = Bench::new();
    bench.freeze().await;
    let mut changed = sweep::demo();
    changed.runs = 3;
    let mut changed = Plan::build(changed, Revisions::new()).unwrap();
    let error = publish::freeze(bench.objects.as_ref(), &mut changed).await.unwrap_err();
    let PublishError::DifferentPlan(different) = &error else { panic!("{error}") };
    assert_eq!(different.differences, ["runs: was 2, now 3"]);
    assert!(!different.only_report_rules);
    assert_eq!(Error::from(error).exit().code(), 2);
}

/// Two coordinators that freeze a plan agree on its incarnation; after a deletion it is another one,
/// and nothing of the sweep itself differs.
#[tokio::test]
async fn each_life_of_a_sweep_has_an_incarnation_that_its_jobs_bear() {
    let objects = store::memory();
    let (mut one, mut other) = (demo(), demo());
    let (a, b) = futures::join!(
        publish::freeze(objects.as_ref(), &mut one),
        publish::freeze(objects.as_ref(), &mut other)
    );
    assert!(a.unwrap() == Frozen::New || b.unwrap() == Frozen::New);
    assert!(one.incarnation.is_some());
    assert_eq!(one, other);
    let stored = read::plan(objects.as_ref(), &one.sweep.name).await.unwrap();
    assert_eq!(stored, one);
    let (jobs, _) = publish::work(&stored, &read::Progress::default(), Scope::Open);
    assert!(jobs.iter().all(|job| job.incarnation == one.incarnation));

    let mut unfrozen = demo();
    assert!(unfrozen.plans_the_same(&one), "an incarnation is no part of a plan");
    assert_eq!(publish::freeze(objects.as_ref(), &mut unfrozen).await.unwrap(), Frozen::Resumed);
    store::remove(objects.as_ref(), &names::plan_key(&one.sweep.name)).await.unwrap();
    let mut next = demo();
    assert_eq!(publish::freeze(objects.as_ref(), &mut next).await.unwrap(), Frozen::New);
    assert_ne!(next.incarnation, one.incarnation);
    assert!(jobs.iter().zip(&next.jobs).all(|(job, again)| job.id == again.job.id));
}

/// Killed after freezing, after one job, in the middle of the work: each resumes to the same CSV.
#[tokio::test]
async fn a_coordinator_killed_at_each_phase_resumes_to_the_same_csv() {
    let whole = Bench::new();
    whole.freeze().await;
    whole.publish(Scope::Open).await;
    common::drain(whole.queue.as_ref(), &whole.objects).await;
    let expected = whole.csv().await;

    for jobs_before in 0..=3 {
        for cells_before in [0, 1] {
            let bench = Bench::new();
            bench.freeze().await;
            bench.queue.prepare(&QueueSettings::default(), &["any".into()]).await.unwrap();
            for planned in bench.plan.jobs.iter().take(jobs_before) {
                bench.queue.publish(&planned.job).await.unwrap();
                for cell in planned.job.cells.iter().take(cells_before) {
                    common::finish(bench.objects.as_ref(), &planned.job, cell).await;
                }
            }
            // The next coordinator knows nothing of the first.
            assert_eq!(bench.freeze().await, Frozen::Resumed);
            let outcome = bench.publish(Scope::Open).await;
            assert_eq!(outcome.published + outcome.already_queued, 3);
            common::drain(bench.queue.as_ref(), &bench.objects).await;
            assert_eq!(bench.csv().await, expected, "{jobs_before} jobs, {cells_before} cells");
        }
    }
}

#[tokio::test]
async fn failed_cells_wait_for_a_retry_which_does_only_them() {
    let bench = Bench::new();
    bench.freeze().await;
    bench.publish(Scope::Open).await;
    let (job, delivery) = common::take(bench.queue.as_ref()).await.expect("a job");
    common::finish(bench.objects.as_ref(), &job, &job.cells[0]).await;
    for cell in &job.cells[1..] {
        common::fail(bench.objects.as_ref(), &job, cell, "the template\nthrows, =1+1").await;
    }
    delivery.term("bad template").await.unwrap();
    common::drain(bench.queue.as_ref(), &bench.objects).await;

    let counts = bench.counts().await;
    assert_eq!((counts.done, counts.failed, counts.pending), (9, 3, 0));
    let csv = bench.csv().await;
    assert_eq!(csv.lines().count(), 13, "a message of two lines stays in its row");
    assert_eq!(csv.matches(",failed,").count(), 3);
    assert!(csv.contains("bad_template,\"the template throws, =1+1\""), "{csv}");

    // A plain submission leaves them alone.
    let outcome = bench.publish(Scope::Open).await;
    assert_eq!((outcome.published, outcome.ended, outcome.done), (0, 1, 2));
    let outcome = bench.publish(Scope::Retry).await;
    assert_eq!(outcome.published, 1);
    assert_eq!(common::drain(bench.queue.as_ref(), &bench.objects).await, 3);
    assert_eq!(bench.counts().await.done, 12);
    let name = &bench.plan.sweep.name;
    let collected = read::collect(bench.objects.clone(), name).await.unwrap();
    assert_eq!(collected.failures.len(), 3, "the history is kept");
    assert!(collected.rows.iter().all(|row| row.status == CellStatus::Done));
}

#[tokio::test]
async fn cancel_keeps_what_is_done_and_retry_takes_up_the_rest() {
    let bench = Bench::new();
    bench.freeze().await;
    bench.publish(Scope::Open).await;
    let first = &bench.plan.jobs[0].job;
    common::finish(bench.objects.as_ref(), first, &first.cells[0]).await;
    let now = jiff::Timestamp::UNIX_EPOCH;
    let cancelled = publish::cancel(bench.queue.as_ref(), bench.objects.as_ref(), &bench.plan, now)
        .await
        .unwrap();
    assert_eq!(cancelled, 11);
    assert!(common::take(bench.queue.as_ref()).await.is_none(), "nothing is queued any more");
    let counts = bench.counts().await;
    assert_eq!((counts.done, counts.cancelled), (1, 11));
    assert_eq!(bench.publish(Scope::Open).await.published, 0);

    assert_eq!(bench.publish(Scope::Retry).await.published, 3);
    assert_eq!(common::drain(bench.queue.as_ref(), &bench.objects).await, 11);
    assert_eq!(bench.counts().await.done, 12);
}

/// Completes when it is asked for the last time: `watch` asks before each round, and looks at the
/// store in the first.
async fn after_rounds(rounds: u32) {
    let mut asked = 0;
    std::future::poll_fn(|_| {
        asked += 1;
        if asked == rounds { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

#[tokio::test]
async fn watch_ends_when_the_store_says_so_and_not_before() {
    let bench = Bench::new();
    bench.freeze().await;
    bench.publish(Scope::Open).await;
    let options = WatchOptions { republish: None, embedded: true };
    let (queue, objects) = (bench.queue.clone(), bench.objects.clone());
    let interrupted =
        watch::watch(queue.clone(), objects.clone(), &bench.plan, &options, after_rounds(4));
    assert_eq!(interrupted.await, Watched::Interrupted);

    let watched = watch::watch(queue, objects, &bench.plan, &options, pending());
    let work = common::drain(bench.queue.as_ref(), &bench.objects);
    let (watched, cells) =
        tokio::time::timeout(Duration::from_secs(30), async { futures::join!(watched, work) })
            .await
            .expect("watching ends");
    assert_eq!((watched, cells), (Watched::Finished, 12));
}

#[tokio::test]
async fn a_job_that_the_queue_lost_is_published_again_while_watching() {
    let bench = Bench::new();
    bench.freeze().await;
    bench.queue.prepare(&QueueSettings::default(), &["any".into()]).await.unwrap();
    let options = WatchOptions { republish: Some(QueueSettings::default()), embedded: false };
    let watched =
        watch::watch(bench.queue.clone(), bench.objects.clone(), &bench.plan, &options, pending());
    let work = async {
        let mut cells = 0;
        while cells < 12 {
            cells += common::drain(bench.queue.as_ref(), &bench.objects).await;
        }
    };
    let (watched, ()) =
        tokio::time::timeout(Duration::from_secs(60), async { futures::join!(watched, work) })
            .await
            .expect("the lost jobs come back");
    assert_eq!(watched, Watched::Finished);
}

/// A retry is at work: every cell has a record or an older failure, none is pending, and markdown
/// lies there whose record comes in a moment.
#[tokio::test]
async fn markdown_of_a_cell_that_is_tried_again_is_no_orphan_until_the_cell_has_a_record() {
    let bench = Bench::new();
    bench.freeze().await;
    let name = &bench.plan.sweep.name;
    let job = &bench.plan.jobs[0].job;
    let (retried, rest) = job.cells.split_first().unwrap();
    common::fail(bench.objects.as_ref(), job, retried, "failed at first").await;
    for cell in rest {
        common::finish(bench.objects.as_ref(), job, cell).await;
    }
    for planned in &bench.plan.jobs[1..] {
        for cell in &planned.job.cells {
            common::finish(bench.objects.as_ref(), &planned.job, cell).await;
        }
    }
    let document = format!("{name}/{}__20260101_000000.md", retried.file_stem);
    store::write(bench.objects.as_ref(), &document, "x".into()).await.unwrap();
    let collected = read::collect(bench.objects.clone(), name).await.unwrap();
    assert_eq!(collected.counts().pending, 0);
    assert_eq!(collected.orphans, Vec::<String>::new());
    // The record names another one: that file lost a race.
    common::finish(bench.objects.as_ref(), job, retried).await;
    let collected = read::collect(bench.objects.clone(), name).await.unwrap();
    assert_eq!(collected.orphans, [document]);
}

#[tokio::test]
async fn what_no_record_names_is_an_orphan_and_damage_is_reported() {
    let bench = Bench::new();
    bench.freeze().await;
    bench.publish(Scope::Open).await;
    common::drain(bench.queue.as_ref(), &bench.objects).await;
    let name = &bench.plan.sweep.name;
    let cell = &bench.plan.jobs[0].job.cells[0].id;
    let orphans = [
        format!("{name}/loser__20260101_000000.md"),
        format!("{name}/telemetry/{cell}.another-attempt.csv"),
    ];
    for key in &orphans {
        store::write(bench.objects.as_ref(), key, "x".into()).await.unwrap();
    }
    let collected = read::collect(bench.objects.clone(), name).await.unwrap();
    assert_eq!(collected.orphans, orphans);

    let key = &collected.records[cell].document.key;
    store::write(bench.objects.as_ref(), key, "edited".into()).await.unwrap();
    let other = &bench.plan.jobs[1].job.cells[0].id;
    let record = names::record_key(name, other);
    store::write(bench.objects.as_ref(), &record, "{".into()).await.unwrap();
    let collected = read::collect(bench.objects.clone(), name).await.unwrap();
    assert_eq!(collected.problems.len(), 3, "{:?}", collected.problems);
    assert!(collected.problems.iter().any(|p| p.contains("not as it was stored")));
    assert!(collected.problems.iter().any(|p| p.contains("is not JSON")));
}
