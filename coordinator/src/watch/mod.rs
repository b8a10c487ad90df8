//! Waits for a sweep to end and shows how it goes. The store alone decides when that is; events
//! make it lively, and the queue tells whether anybody is at work.

pub mod board;
mod display;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bakeoff_proto::{JobEvent, JobId, JobPhase, names};
use bakeoff_transport::error::describe;
use bakeoff_transport::queue::{JobQueue, QueueError, QueueSettings};
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::ObjectStore;

use crate::collect::read::{self, Progress};
use crate::plan::Plan;
use crate::publish::{self, Scope};
use board::Board;
use display::Display;

/// How often the store is listed when no event asks for it.
const STORE_INTERVAL: Duration = Duration::from_secs(3);
/// An event that promises a change lets the store be listed at once, but not more often than this.
const STORE_MIN_INTERVAL: Duration = Duration::from_millis(250);
const QUEUE_INTERVAL: Duration = Duration::from_secs(2);
/// A worker of two classes waits at each for a second in turn: while none is seen, the queue is looked
/// at more often than that.
const SUSPICIOUS_INTERVAL: Duration = Duration::from_millis(350);
/// A condition must hold for so long before a person is told.
const PATIENCE: Duration = Duration::from_secs(5);
/// A warning that still holds is repeated after this time.
const REPEAT: Duration = Duration::from_secs(60);

/// How to watch.
#[derive(Debug, Clone)]
pub struct WatchOptions {
    /// Publish a job again that is neither queued nor settled (its broker lost it, say).
    pub republish: Option<QueueSettings>,
    /// The queue is inside this process: its worker need not be looked for.
    pub embedded: bool,
}

/// How watching ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watched {
    /// Every cell is settled.
    Finished,
    /// The sweep goes on without us.
    Interrupted,
}

/// Watches until every cell is settled, or until `interrupt` completes.
pub async fn watch(
    queue: Arc<dyn JobQueue>,
    store: Arc<dyn ObjectStore>,
    plan: &Plan,
    options: &WatchOptions,
    interrupt: impl Future<Output = ()>,
) -> Result<Watched, anyhow::Error> {
    let mut watch = Watch::new(queue, store, plan, options);
    let mut events = watch.events().await;
    let mut tick = tokio::time::interval(STORE_MIN_INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    tokio::pin!(interrupt);
    loop {
        tokio::select! {
            () = &mut interrupt => {
                watch.display.close();
                return Ok(Watched::Interrupted);
            }
            event = events.next() => match event {
                Some(event) => watch.on_event(&event),
                // The subscription ended; the store is listed anyway.
                None => events = futures::stream::pending().boxed(),
            },
            _ = tick.tick() => {
                if watch.look().await? {
                    watch.display.close();
                    return Ok(Watched::Finished);
                }
            }
        }
    }
}

struct Watch<'a> {
    queue: Arc<dyn JobQueue>,
    store: Arc<dyn ObjectStore>,
    plan: &'a Plan,
    options: &'a WatchOptions,
    board: Board,
    display: Display,
    progress: Progress,
    store_due: Instant,
    queue_due: Instant,
    /// How many events the queue had when it was last asked.
    events_told: Option<u64>,
    /// When that number last grew, or the start of watching.
    heard: Instant,
    idle: Held,
    lost: Held,
    queue_trouble: Held,
    store_trouble: Held,
}

impl<'a> Watch<'a> {
    fn new(
        queue: Arc<dyn JobQueue>,
        store: Arc<dyn ObjectStore>,
        plan: &'a Plan,
        options: &'a WatchOptions,
    ) -> Self {
        let board = Board::new(plan);
        let display = Display::new(&board);
        let now = Instant::now();
        Self {
            queue,
            store,
            plan,
            options,
            board,
            display,
            progress: Progress::default(),
            store_due: now,
            queue_due: now + QUEUE_INTERVAL,
            events_told: None,
            heard: now,
            idle: Held::default(),
            lost: Held::default(),
            queue_trouble: Held::default(),
            store_trouble: Held::default(),
        }
    }

    async fn events(&self) -> BoxStream<'static, JobEvent> {
        match self.queue.events(&self.plan.sweep.name).await {
            Ok(events) => events,
            Err(error) => {
                self.display.warn(&format!("no live events: {error}"));
                futures::stream::pending().boxed()
            }
        }
    }

    fn on_event(&mut self, event: &JobEvent) {
        if let Some(told) = self.board.apply(event) {
            self.display.tell(&told);
        }
        if matches!(
            event.phase,
            JobPhase::CellDone { .. }
                | JobPhase::CellFailed { .. }
                | JobPhase::Done
                | JobPhase::Failed { .. }
                | JobPhase::Cancelled
        ) {
            self.store_due = Instant::now();
        }
        self.display.refresh(&self.board);
    }

    /// Looks at store and queue where it is time. True when the sweep has ended.
    async fn look(&mut self) -> Result<bool, anyhow::Error> {
        if Instant::now() >= self.store_due {
            self.store_due = Instant::now() + STORE_INTERVAL;
            if self.look_at_store().await? {
                return Ok(true);
            }
        }
        if Instant::now() >= self.queue_due {
            self.queue_due = Instant::now() + QUEUE_INTERVAL;
            self.look_at_queue().await;
        }
        Ok(false)
    }

    async fn look_at_store(&mut self) -> Result<bool, anyhow::Error> {
        match read::progress(self.store.as_ref(), &self.plan.sweep.name).await {
            Ok(progress) => {
                self.store_trouble.clear();
                self.progress = progress;
                self.board.update(&self.progress);
                self.display.refresh(&self.board);
                match publish::settled(self.queue.as_ref(), self.plan, &self.progress).await {
                    Ok(settled) => Ok(settled),
                    Err(error) => {
                        if self.store_trouble.due() {
                            self.display.warn(&error.to_string());
                        }
                        Ok(false)
                    }
                }
            }
            // Workers retry for minutes; a watcher that gave up at once would tell a sweep dead
            // that is not.
            Err(error) => {
                if self.store_trouble.due() {
                    self.display.warn(&format!("the store does not answer: {error}"));
                }
                Ok(false)
            }
        }
    }

    async fn look_at_queue(&mut self) {
        if self.options.embedded {
            return;
        }
        match self.unserved().await {
            Ok((open, told)) => {
                self.queue_trouble.clear();
                match told {
                    Some(told) => {
                        self.queue_due = Instant::now() + SUSPICIOUS_INTERVAL;
                        if self.idle.due() {
                            self.display.warn(&told);
                        }
                    }
                    None => self.idle.clear(),
                }
                self.look_for_lost_jobs(open).await;
            }
            Err(error) => {
                if self.queue_trouble.due() {
                    self.display.warn(&error.to_string());
                }
            }
        }
    }

    /// The jobs that the queue knows, and a sentence if some of them have nobody to take them.
    async fn unserved(&mut self) -> Result<(Vec<JobId>, Option<String>), QueueError> {
        let open = self.queue.open_jobs(&self.plan.sweep.name).await?;
        // Of other sweeps too: their jobs may keep every worker busy.
        let told = Some(self.queue.event_count().await?);
        if self.events_told != told {
            self.events_told = told;
            self.heard = Instant::now();
        }
        let mut by_class: BTreeMap<&str, usize> = BTreeMap::new();
        for planned in &self.plan.jobs {
            if open.contains(&planned.job.id) {
                *by_class.entry(&planned.job.gpu_class).or_default() += 1;
            }
        }
        for (class, jobs) in by_class {
            // Whoever waits for a class of its own takes `any` in turn.
            let asked = match class {
                names::ANY_CLASS => Vec::new(),
                class => vec![class.to_owned()],
            };
            let stats = self.queue.stats(&asked).await?;
            let silent = self.heard.elapsed();
            let taken = match stats.in_flight {
                0 => String::new(),
                // Told at every step: whoever is silent for longer than a lease may be gone.
                _ if silent > stats.lease => {
                    let seconds = silent.as_secs();
                    format!(" (one was taken, and nothing was heard of any for {seconds} s)")
                }
                _ => continue,
            };
            if stats.waiting_workers == 0 {
                let are = if jobs == 1 { "job is" } else { "jobs are" };
                let of =
                    if asked.is_empty() { String::new() } else { format!(" of class {class}") };
                let told = format!(
                    "{jobs} {are} waiting and no worker{of} is pulling{taken}: start one with `worker run --nats … --store …`"
                );
                return Ok((open, Some(told)));
            }
        }
        Ok((open, None))
    }

    /// Jobs with open cells that the queue does not know.
    async fn look_for_lost_jobs(&mut self, open: Vec<JobId>) {
        let open: BTreeSet<JobId> = open.into_iter().collect();
        // The store first: a job that ended a moment ago has left the queue but may not be listed.
        let Ok(progress) = read::progress(self.store.as_ref(), &self.plan.sweep.name).await else {
            return;
        };
        let (work, _) = publish::work(self.plan, &progress, Scope::Open);
        let lost = work.iter().filter(|job| !open.contains(&job.id)).count();
        if lost == 0 {
            self.lost.clear();
            return;
        }
        if !self.lost.due() {
            return;
        }
        // Somebody is cancelling the sweep and has not marked all its cells yet, or never will.
        match self.queue.is_cancelled(&self.plan.sweep.name).await {
            Ok(false) => {}
            Ok(true) => {
                let name = &self.plan.sweep.name;
                return self.display.warn(&format!(
                    "the sweep was cancelled, but {lost} of its jobs are not marked: finish with `coordinator cancel {name}`, or go on with `coordinator retry {name}`"
                ));
            }
            Err(error) => return self.display.warn(&error.to_string()),
        }
        let Some(settings) = &self.options.republish else {
            self.display.warn(&format!(
                "{lost} of the jobs are neither queued nor done: publish them again with `coordinator submit`"
            ));
            return;
        };
        let (queue, store) = (self.queue.as_ref(), self.store.as_ref());
        match publish::publish(queue, store, self.plan, settings, Scope::Open).await {
            Ok(outcome) => self.display.warn(&format!(
                "{lost} of the jobs were neither queued nor done; {} published again",
                outcome.published
            )),
            Err(error) => self.display.warn(&describe(error.as_ref())),
        }
    }
}

/// A condition that is told once it has held for a while, and again after a longer one.
#[derive(Debug, Default)]
struct Held {
    since: Option<Instant>,
    told: Option<Instant>,
}

impl Held {
    /// The condition holds now: is it time to tell?
    fn due(&mut self) -> bool {
        let held = self.since.get_or_insert_with(Instant::now).elapsed() >= PATIENCE;
        let silent = self.told.is_none_or(|told| told.elapsed() >= REPEAT);
        if held && silent {
            self.told = Some(Instant::now());
        }
        held && silent
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
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
        assert_eq!(watch.unserved().await.unwrap().1, None, "its lease has just begun");

        let long_ago = Instant::now().checked_sub(lease + PATIENCE).expect("a machine that runs");
        watch.heard = long_ago;
        let told = watch.unserved().await.unwrap().1.expect("nothing was heard for a lease");
        assert!(told.starts_with("1 job is waiting and no worker is pulling (one was"), "{told}");

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
        assert_eq!(watch.unserved().await.unwrap().1, None, "the other sweep's job is alive");
        watch.heard = long_ago;
        assert!(watch.unserved().await.unwrap().1.is_some(), "and silent again");
    }
}
