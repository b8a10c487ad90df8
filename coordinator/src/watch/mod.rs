//! Waits for a sweep to end and shows how it goes. The store alone decides when that is; events
//! make it lively, and the queue shows whether anybody is at work.
//!
//! - [`board`]: what is known of each job; `display`: the board on a terminal or as log lines
//! - `condition`: what is worth a warning once it lasts

pub mod board;
mod condition;
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
use condition::Condition;
use display::Display;

/// How often the store is listed when no event asks for it.
const STORE_INTERVAL: Duration = Duration::from_secs(3);
/// An event that promises a change lets the store be listed at once, but not more often than this.
const STORE_MIN_INTERVAL: Duration = Duration::from_millis(250);
const QUEUE_INTERVAL: Duration = Duration::from_secs(2);
/// A worker of two classes waits at each for a second in turn: while none is seen, the queue is
/// looked at more often than that.
const SUSPICIOUS_INTERVAL: Duration = Duration::from_millis(350);

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
) -> Watched {
    let mut watch = Watch::new(queue, store, plan, options);
    let mut events = watch.events().await;
    let mut tick = tokio::time::interval(STORE_MIN_INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    tokio::pin!(interrupt);
    loop {
        tokio::select! {
            () = &mut interrupt => {
                watch.display.close();
                return Watched::Interrupted;
            }
            event = events.next() => match event {
                Some(event) => watch.on_event(&event),
                // The subscription ended; the store is listed anyway.
                None => events = futures::stream::pending().boxed(),
            },
            _ = tick.tick() => {
                if watch.look().await {
                    watch.display.close();
                    return Watched::Finished;
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
    event_count: Option<u64>,
    /// When that number last grew, or the start of watching.
    last_event: Instant,
    /// Jobs wait and no worker pulls.
    unserved: Condition,
    /// Jobs with open cells are not in the queue.
    lost: Condition,
    queue_failing: Condition,
    store_failing: Condition,
    /// The store answers, and the queue does not say which jobs are still open.
    settling_failing: Condition,
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
            event_count: None,
            last_event: now,
            unserved: Condition::default(),
            lost: Condition::default(),
            queue_failing: Condition::default(),
            store_failing: Condition::default(),
            settling_failing: Condition::default(),
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
        if let Some(line) = self.board.apply(event) {
            self.display.log(&line);
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
    async fn look(&mut self) -> bool {
        if Instant::now() >= self.store_due {
            self.store_due = Instant::now() + STORE_INTERVAL;
            if self.look_at_store().await {
                return true;
            }
        }
        if Instant::now() >= self.queue_due {
            self.queue_due = Instant::now() + QUEUE_INTERVAL;
            self.look_at_queue().await;
        }
        false
    }

    /// True when every cell is settled.
    async fn look_at_store(&mut self) -> bool {
        let progress = match read::progress(self.store.as_ref(), &self.plan.sweep.name).await {
            Ok(progress) => progress,
            // Workers retry for minutes; a watcher that gave up at once would call a sweep dead
            // that is not.
            Err(error) => {
                if self.store_failing.holds(Instant::now()) {
                    self.display.warn(&format!("the store does not answer: {error}"));
                }
                return false;
            }
        };
        self.store_failing.clear();
        self.progress = progress;
        self.board.update(&self.progress);
        self.display.refresh(&self.board);
        match publish::settled(self.queue.as_ref(), self.plan, &self.progress).await {
            Ok(settled) => {
                self.settling_failing.clear();
                settled
            }
            Err(error) => {
                if self.settling_failing.holds(Instant::now()) {
                    self.display.warn(&error.to_string());
                }
                false
            }
        }
    }

    async fn look_at_queue(&mut self) {
        if self.options.embedded {
            return;
        }
        match self.unserved_jobs().await {
            Ok((open, warning)) => {
                self.queue_failing.clear();
                match warning {
                    Some(warning) => {
                        self.queue_due = Instant::now() + SUSPICIOUS_INTERVAL;
                        if self.unserved.holds(Instant::now()) {
                            self.display.warn(&warning);
                        }
                    }
                    None => self.unserved.clear(),
                }
                self.look_for_lost_jobs(open).await;
            }
            Err(error) => {
                if self.queue_failing.holds(Instant::now()) {
                    self.display.warn(&error.to_string());
                }
            }
        }
    }

    /// The jobs that the queue knows, and a sentence if some of them have nobody to take them.
    async fn unserved_jobs(&mut self) -> Result<(Vec<JobId>, Option<String>), QueueError> {
        let open = self.queue.open_jobs(&self.plan.sweep_id()).await?;
        // Of other sweeps too: their jobs may keep every worker busy.
        let count = Some(self.queue.event_count().await?);
        if self.event_count != count {
            self.event_count = count;
            self.last_event = Instant::now();
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
            let silent = self.last_event.elapsed();
            let taken = match stats.in_flight {
                0 => String::new(),
                // A worker sends an event at every step: one that is silent for longer than a lease
                // may be gone.
                _ if silent > stats.lease => {
                    let seconds = silent.as_secs();
                    format!(" (one was taken, and no worker has sent an event for {seconds} s)")
                }
                _ => continue,
            };
            if stats.waiting_workers == 0 {
                let are = if jobs == 1 { "job is" } else { "jobs are" };
                let of =
                    if asked.is_empty() { String::new() } else { format!(" of class {class}") };
                let warning = format!(
                    "{jobs} {are} waiting and no worker{of} is pulling{taken}: start one with \
                    `worker run --nats … --store …`"
                );
                return Ok((open, Some(warning)));
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
        if !self.lost.holds(Instant::now()) {
            return;
        }
        // Somebody is cancelling the sweep and has not marked all its cells yet, or never will.
        match self.queue.is_cancelled(&self.plan.sweep_id()).await {
            Ok(false) => {}
            Ok(true) => {
                let name = &self.plan.sweep.name;
                return self.display.warn(&format!(
                    "the sweep was cancelled, but {lost} of its jobs are not marked: finish with \
                    `coordinator cancel {name}`, or go on with `coordinator retry {name}`"
                ));
            }
            Err(error) => return self.display.warn(&error.to_string()),
        }
        let Some(settings) = &self.options.republish else {
            self.display.warn(&format!(
                "{lost} of the jobs are neither queued nor done: publish them again with \
                `coordinator submit`"
            ));
            return;
        };
        let (queue, store) = (self.queue.as_ref(), self.store.as_ref());
        match publish::publish(queue, store, self.plan, settings, Scope::Open).await {
            Ok(outcome) => self.display.warn(&format!(
                "{lost} of the jobs were neither queued nor done; {} published again",
                outcome.published
            )),
            Err(error) => self.display.warn(&describe(&error)),
        }
    }
}

#[cfg(test)]
mod tests;
