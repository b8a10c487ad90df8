//! What the queue holds, behind one lock.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bakeoff_proto::{Attempt, JobEvent, JobId, SweepId, SweepName, names};
use tokio::sync::{Notify, broadcast, watch};
use tokio::time::Instant;

use crate::queue::QueueSettings;

/// Live events kept for a slow watcher before it misses some.
const EVENT_BUFFER: usize = 4096;

pub(super) struct Shared {
    pub state: Mutex<State>,
    /// Notified whenever a job may have become available.
    pub changed: Notify,
    pub events: broadcast::Sender<JobEvent>,
}

pub(super) struct State {
    pub ack_wait: Duration,
    pub next_sequence: u64,
    /// By sequence: the oldest job is delivered first.
    pub jobs: BTreeMap<u64, Entry>,
    pub attempts: HashMap<String, (Attempt, u64)>,
    pub latest_events: HashMap<SweepName, BTreeMap<JobId, JobEvent>>,
    pub event_count: u64,
    pub cancelled: HashMap<SweepId, watch::Sender<bool>>,
    /// The classes of each worker that waits.
    pub waiting: Vec<Vec<String>>,
}

pub(super) struct Entry {
    pub subject: String,
    pub job: JobId,
    pub sweep: SweepId,
    pub class: String,
    pub payload: Arc<[u8]>,
    pub headers: Arc<[(String, String)]>,
    pub delivered: u64,
    pub available: Available,
}

/// When an entry may be delivered.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Available {
    Now,
    /// Leased, or handed back with a delay.
    At {
        when: Instant,
        leased: bool,
    },
}

impl Entry {
    fn due(&self, now: Instant) -> bool {
        match self.available {
            Available::Now => true,
            Available::At { when, .. } => when <= now,
        }
    }
}

impl Shared {
    /// An empty queue.
    pub fn new() -> Self {
        let state = State {
            ack_wait: QueueSettings::default().ack_wait,
            next_sequence: 1,
            jobs: BTreeMap::new(),
            attempts: HashMap::new(),
            latest_events: HashMap::new(),
            event_count: 0,
            cancelled: HashMap::new(),
            waiting: Vec::new(),
        };
        let (events, _) = broadcast::channel(EVENT_BUFFER);
        Self { state: Mutex::new(state), changed: Notify::new(), events }
    }

    /// The state; held for a single step, never across an await.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves no half-made change: each critical section is a single step.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl State {
    /// Leases the oldest due job of these classes.
    pub fn take(&mut self, classes: &[String], now: Instant) -> Option<(u64, &Entry)> {
        let wanted = |entry: &Entry| classes.iter().any(|c| names::class_token(c) == entry.class);
        let (sequence, entry) =
            self.jobs.iter_mut().find(|(_, entry)| entry.due(now) && wanted(entry))?;
        entry.delivered += 1;
        entry.available = Available::At { when: now + self.ack_wait, leased: true };
        Some((*sequence, entry))
    }

    /// When the next delayed or leased job becomes due.
    pub fn next_due(&self) -> Option<Instant> {
        let when = |entry: &Entry| match entry.available {
            Available::Now => None,
            Available::At { when, .. } => Some(when),
        };
        self.jobs.values().filter_map(when).min()
    }

    /// The channel on which a sweep's cancellation is announced.
    pub fn cancel_sender(&mut self, sweep: &SweepId) -> &watch::Sender<bool> {
        self.cancelled.entry(sweep.clone()).or_insert_with(|| watch::Sender::new(false))
    }
}

/// Counts a worker as waiting while it lives.
pub(super) struct Waiting<'a> {
    shared: &'a Shared,
    classes: Vec<String>,
}

impl<'a> Waiting<'a> {
    /// Counts until it is dropped.
    pub fn new(shared: &'a Shared, classes: &[String]) -> Self {
        let classes: Vec<_> = classes.iter().map(|class| names::class_token(class)).collect();
        shared.lock().waiting.push(classes.clone());
        Self { shared, classes }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let waiting = &mut self.shared.lock().waiting;
        if let Some(own) = waiting.iter().position(|classes| *classes == self.classes) {
            waiting.swap_remove(own);
        }
    }
}
