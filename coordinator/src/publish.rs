//! From a plan to jobs on the queue, so that doing it twice, or two at once, changes nothing.
//!
//! The plan is frozen first (created only if absent), then every job with an open cell is
//! published. Whoever is killed in between leaves a state from which the next submission goes on.

use std::collections::BTreeSet;

use bakeoff_proto::{
    CellId, Failure, FailureKind, Incarnation, Job, JobId, SCHEMA_VERSION, SweepName, names,
};
use bakeoff_transport::queue::{JobQueue, Published, QueueError, QueueSettings};
use bakeoff_transport::store::{self, Created, StoreError};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use object_store::ObjectStore;
use tracing::Instrument;
use uuid::Uuid;

use crate::collect::read::{self, Progress, ReadError};
use crate::plan::{Plan, differences};

/// Failures written at once.
const PARALLEL: usize = 16;

/// Another plan is stored under the name.
#[derive(Debug, thiserror::Error)]
#[error(
    "sweep `{name}` is in the store with another plan, and a plan is frozen once its sweep is submitted:\n  {}\n\
     {}",
    .differences.join("\n  "),
    next_step(.name, *.only_report_rules)
)]
pub struct DifferentPlan {
    /// The name that is taken.
    pub name: SweepName,
    /// Each difference as a sentence.
    pub differences: Vec<String>,
    /// Cells and jobs are the same: the report can be made again by the new rules.
    pub only_report_rules: bool,
}

impl DifferentPlan {
    /// Refuses `new` where `stored` is another plan.
    pub fn check(stored: &Plan, new: &Plan) -> Result<(), Self> {
        let differences = differences(stored, new);
        if differences.is_empty() {
            return Ok(());
        }
        let mut judged_anew = stored.clone();
        judged_anew.sweep.report = new.sweep.report.clone();
        let name = new.sweep.name.clone();
        Err(Self { name, differences, only_report_rules: judged_anew.plans_the_same(new) })
    }
}

fn next_step(name: &SweepName, only_report_rules: bool) -> String {
    if only_report_rules {
        return format!(
            "only the rules of the report differ: `coordinator collect {name} --rules SWEEP` \
            judges by the new ones"
        );
    }
    format!(
        "take another `name` (or --as NAME), or remove the stored one with `coordinator delete \
        {name}`"
    )
}

/// Why a sweep was not published or cancelled.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error(transparent)]
    DifferentPlan(#[from] DifferentPlan),
    #[error("{key} was there a moment ago and is gone: is somebody deleting the sweep?")]
    Vanished { key: String },
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Queue(#[from] QueueError),
}

/// What freezing a plan found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frozen {
    New,
    /// The same plan was stored before: its sweep goes on.
    Resumed,
}

/// The stored plan of a name, if there is one.
pub async fn stored_plan(
    store: &dyn ObjectStore,
    name: &SweepName,
) -> Result<Option<Plan>, ReadError> {
    match store::read(store, &names::plan_key(name)).await? {
        None => Ok(None),
        Some(bytes) => Plan::from_json(&bytes)
            .map(Some)
            .map_err(|source| ReadError::Plan { name: name.clone(), source }),
    }
}

/// Stores the plan unless one is there; refuses if that one differs. `plan` gets the incarnation
/// of what is stored: a new one if the sweep is new.
pub async fn freeze(store: &dyn ObjectStore, plan: &mut Plan) -> Result<Frozen, PublishError> {
    let name = plan.sweep.name.clone();
    let key = names::plan_key(&name);
    let stored = match stored_plan(store, &name).await? {
        Some(stored) => stored,
        None => {
            plan.incarnation = Some(Incarnation(Uuid::now_v7().simple().to_string()));
            match store::create_if_absent(store, &key, plan.to_json().into()).await? {
                Created::Ours => return Ok(Frozen::New),
                // Another coordinator was faster.
                Created::AlreadyThere => {
                    stored_plan(store, &name).await?.ok_or(PublishError::Vanished { key })?
                }
            }
        }
    };
    DifferentPlan::check(&stored, plan)?;
    plan.incarnation = stored.incarnation;
    Ok(Frozen::Resumed)
}

/// Which cells of a plan are to be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Those with neither record nor failure.
    Open,
    /// Also those that failed or were cancelled, as a new generation of their jobs.
    Retry,
}

/// What became of the jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Submitted {
    /// Queued by this call.
    pub published: usize,
    /// Queued or being worked on already.
    pub already_queued: usize,
    /// With a record for every cell.
    pub done: usize,
    /// Without an open cell, but with failed or cancelled ones: only a retry takes them up.
    pub ended: usize,
}

/// The generation at which each job with work in `scope` would be published, in sweep order.
pub fn work(plan: &Plan, progress: &Progress, scope: Scope) -> (Vec<Job>, Submitted) {
    let mut jobs = Vec::new();
    let mut outcome = Submitted::default();
    for planned in &plan.jobs {
        let job = &planned.job;
        let without_record = || job.cells.iter().filter(|c| !progress.recorded.contains(&c.id));
        let latest = without_record().filter_map(|c| progress.failed.get(&c.id)).max().copied();
        let open = without_record().any(|c| !progress.failed.contains_key(&c.id));
        if without_record().next().is_none() {
            outcome.done += 1;
            continue;
        }
        let generation = match (scope, latest) {
            (Scope::Retry, Some(latest)) => latest.saturating_add(1),
            (Scope::Open, Some(_)) if !open => {
                outcome.ended += 1;
                continue;
            }
            // What failed at `latest` stays as it is; the open cells go on in that generation.
            (Scope::Open | Scope::Retry, latest) => latest.unwrap_or(1),
        };
        jobs.push(Job { generation, incarnation: plan.incarnation.clone(), ..job.clone() });
    }
    (jobs, outcome)
}

/// Publishes what is open. Streams and consumers are created if need be.
pub async fn publish(
    queue: &dyn JobQueue,
    store: &dyn ObjectStore,
    plan: &Plan,
    settings: &QueueSettings,
    scope: Scope,
) -> Result<Submitted, PublishError> {
    let progress = read::progress(store, &plan.sweep.name).await?;
    let (jobs, mut outcome) = work(plan, &progress, scope);
    queue.prepare(settings, &plan.gpu_classes()).await?;
    if jobs.is_empty() {
        return Ok(outcome);
    }
    queue.clear_cancel(&plan.sweep_id()).await?;
    for job in &jobs {
        // A trace of its own for each job: the worker's spans hang below this one.
        let span = tracing::info_span!(
            parent: None, "publish", sweep = %job.sweep, job = %job.id, generation = job.generation
        );
        match queue.publish(job).instrument(span).await? {
            Published::Queued => outcome.published += 1,
            Published::AlreadyQueued => outcome.already_queued += 1,
        }
    }
    Ok(outcome)
}

/// Drops the queued jobs, signals workers to stop, and marks what has no record as cancelled.
/// A cell that is finished all the same counts as done. Returns how many cells were marked.
pub async fn cancel(
    queue: &dyn JobQueue,
    store: &dyn ObjectStore,
    plan: &Plan,
    now: Timestamp,
) -> Result<usize, PublishError> {
    let name = &plan.sweep.name;
    let in_queue: BTreeSet<JobId> = queue.open_jobs(&plan.sweep_id()).await?.into_iter().collect();
    queue.cancel(&plan.sweep_id()).await?;
    let progress = read::progress(store, name).await?;
    let mut marks = Vec::new();
    for planned in &plan.jobs {
        let job = &planned.job;
        let latest = job.cells.iter().filter_map(|c| progress.failed.get(&c.id)).max().copied();
        for cell in job.cells.iter().filter(|cell| !progress.recorded.contains(&cell.id)) {
            let generation = match progress.failed.get(&cell.id) {
                // It had ended before; only a job that was queued again has something to cancel.
                Some(failed) if in_queue.contains(&job.id) => failed.saturating_add(1),
                Some(_) => continue,
                None => latest.unwrap_or(1),
            };
            marks.push(write_cancelled(store, job, &cell.id, generation, now));
        }
    }
    let marked = marks.len();
    stream::iter(marks).buffer_unordered(PARALLEL).try_collect::<()>().await?;
    Ok(marked)
}

async fn write_cancelled(
    store: &dyn ObjectStore,
    job: &Job,
    cell: &CellId,
    generation: u32,
    now: Timestamp,
) -> Result<(), StoreError> {
    let failure = Failure {
        schema_version: SCHEMA_VERSION,
        sweep: job.sweep.clone(),
        cell: cell.clone(),
        job: job.id.clone(),
        generation,
        kind: FailureKind::Cancelled,
        message: "cancelled with `coordinator cancel`".to_owned(),
        attempt: None,
        attempts: 0,
        worker: None,
        failed_at: now,
    };
    let key = names::failure_key(&job.sweep, cell, generation);
    let json = serde_json::to_vec_pretty(&failure).expect("a failure serialises to JSON");
    // A worker that stopped at the cancellation may have written the same: either will do.
    store::create_if_absent(store, &key, json.into()).await?;
    Ok(())
}

/// Whether every cell is settled: it has a record, or it failed and its job is no longer queued.
pub async fn settled(
    queue: &dyn JobQueue,
    plan: &Plan,
    progress: &Progress,
) -> Result<bool, QueueError> {
    let mut failed_jobs = BTreeSet::new();
    for planned in plan.cells() {
        if progress.recorded.contains(&planned.cell.id) {
            continue;
        }
        if !progress.failed.contains_key(&planned.cell.id) {
            return Ok(false);
        }
        failed_jobs.insert(planned.job.id.clone());
    }
    if failed_jobs.is_empty() {
        return Ok(true);
    }
    let open = queue.open_jobs(&plan.sweep_id()).await?;
    Ok(!open.iter().any(|job| failed_jobs.contains(job)))
}
