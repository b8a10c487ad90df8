//! The queue of the self-contained mode: in this process, with the semantics of the broker.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bakeoff_proto::{Attempt, Job, JobEvent, JobId, SweepName, names};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::sync::{Notify, broadcast, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::BroadcastStream;

use super::{
    Delivery, JobQueue, MAX_JOB_BYTES, Published, QueueError, QueueSettings, QueueStats, Revision,
};
use crate::logging::trace_context;

/// Live events kept for a slow watcher before it misses some.
const EVENT_BUFFER: usize = 4096;

/// A queue that lives as long as its process. Clones share it.
#[derive(Clone)]
pub struct MemoryQueue {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Told whenever a job may have become available.
    changed: Notify,
    events: broadcast::Sender<JobEvent>,
}

struct State {
    ack_wait: Duration,
    next_sequence: u64,
    /// By sequence: the oldest job is delivered first.
    jobs: BTreeMap<u64, Entry>,
    attempts: HashMap<String, (Attempt, u64)>,
    latest_events: HashMap<SweepName, BTreeMap<JobId, JobEvent>>,
    events_told: u64,
    cancelled: HashMap<SweepName, watch::Sender<bool>>,
    /// The classes of each worker that waits.
    waiting: Vec<Vec<String>>,
}

struct Entry {
    subject: String,
    job: JobId,
    sweep: SweepName,
    class: String,
    payload: Arc<[u8]>,
    headers: Arc<[(String, String)]>,
    delivered: u64,
    available: Available,
}

/// When an entry may be delivered.
#[derive(Clone, Copy, PartialEq)]
enum Available {
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

impl Default for MemoryQueue {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryQueue {
    pub fn new() -> Self {
        let state = State {
            ack_wait: QueueSettings::default().ack_wait,
            next_sequence: 1,
            jobs: BTreeMap::new(),
            attempts: HashMap::new(),
            latest_events: HashMap::new(),
            events_told: 0,
            cancelled: HashMap::new(),
            waiting: Vec::new(),
        };
        let (events, _) = broadcast::channel(EVENT_BUFFER);
        Self {
            shared: Arc::new(Shared { state: Mutex::new(state), changed: Notify::new(), events }),
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves no half-made change: each critical section is a single step.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl State {
    /// Leases the oldest due job of these classes.
    fn take(&mut self, classes: &[String], now: Instant) -> Option<(u64, &Entry)> {
        let wanted = |entry: &Entry| classes.iter().any(|c| names::class_token(c) == entry.class);
        let (sequence, entry) =
            self.jobs.iter_mut().find(|(_, entry)| entry.due(now) && wanted(entry))?;
        entry.delivered += 1;
        entry.available = Available::At { when: now + self.ack_wait, leased: true };
        Some((*sequence, entry))
    }

    /// When the next delayed or leased job becomes due.
    fn next_due(&self) -> Option<Instant> {
        let when = |entry: &Entry| match entry.available {
            Available::Now => None,
            Available::At { when, .. } => Some(when),
        };
        self.jobs.values().filter_map(when).min()
    }

    fn cancel_sender(&mut self, sweep: &SweepName) -> &watch::Sender<bool> {
        self.cancelled.entry(sweep.clone()).or_insert_with(|| watch::Sender::new(false))
    }
}

/// Counts a worker as waiting while it lives.
struct Waiting<'a> {
    shared: &'a Shared,
    classes: Vec<String>,
}

impl<'a> Waiting<'a> {
    fn new(shared: &'a Shared, classes: &[String]) -> Self {
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

#[async_trait]
impl JobQueue for MemoryQueue {
    async fn prepare(
        &self,
        settings: &QueueSettings,
        _classes: &[String],
    ) -> Result<(), QueueError> {
        self.shared.lock().ack_wait = settings.ack_wait;
        Ok(())
    }

    async fn publish(&self, job: &Job) -> Result<Published, QueueError> {
        let payload = super::encode(job)?;
        if payload.len() > MAX_JOB_BYTES {
            return Err(super::too_large(job, payload.len(), MAX_JOB_BYTES));
        }
        let subject = names::job_subject(job);
        let mut state = self.shared.lock();
        if state.jobs.values().any(|entry| entry.subject == subject) {
            return Ok(Published::AlreadyQueued);
        }
        let sequence = state.next_sequence;
        state.next_sequence += 1;
        let entry = Entry {
            subject,
            job: job.id.clone(),
            sweep: job.sweep.clone(),
            class: names::class_token(&job.gpu_class),
            payload: payload.into(),
            headers: trace_context::headers().into(),
            delivered: 0,
            available: Available::Now,
        };
        state.jobs.insert(sequence, entry);
        drop(state);
        self.shared.changed.notify_waiters();
        Ok(Published::Queued)
    }

    async fn open_jobs(&self, sweep: &SweepName) -> Result<Vec<JobId>, QueueError> {
        let state = self.shared.lock();
        let of_sweep = state.jobs.values().filter(|entry| entry.sweep == *sweep);
        Ok(of_sweep.map(|entry| entry.job.clone()).collect())
    }

    async fn stats(&self, classes: &[String]) -> Result<QueueStats, QueueError> {
        let state = self.shared.lock();
        let now = Instant::now();
        let tokens: Vec<_> = classes.iter().map(|class| names::class_token(class)).collect();
        let asked = |class: &String| tokens.is_empty() || tokens.contains(class);
        let held = |entry: &&Entry| matches!(entry.available, Available::At { when, leased: true } if when > now);
        let entries = || state.jobs.values().filter(|entry| asked(&entry.class));
        let in_flight = entries().filter(held).count() as u64;
        let waiting = state.waiting.iter().filter(|of_worker| of_worker.iter().any(asked));
        Ok(QueueStats {
            pending: entries().count() as u64 - in_flight,
            in_flight,
            waiting_workers: waiting.count() as u64,
            lease: state.ack_wait,
        })
    }

    async fn events_told(&self) -> Result<u64, QueueError> {
        Ok(self.shared.lock().events_told)
    }

    async fn events(&self, sweep: &SweepName) -> Result<BoxStream<'static, JobEvent>, QueueError> {
        // Subscribed under the lock that emitting takes: no event falls between latest and live.
        let state = self.shared.lock();
        let live = BroadcastStream::new(self.shared.events.subscribe());
        let latest: Vec<_> = state
            .latest_events
            .get(sweep)
            .map(|by_job| by_job.values().cloned().collect())
            .unwrap_or_default();
        drop(state);
        let sweep = sweep.clone();
        let live = live.filter_map(move |event| {
            let wanted = event.ok().filter(|event| event.sweep == sweep);
            async move { wanted }
        });
        Ok(stream::iter(latest).chain(live).boxed())
    }

    async fn cancel(&self, sweep: &SweepName) -> Result<(), QueueError> {
        let mut state = self.shared.lock();
        state.jobs.retain(|_, entry| entry.sweep != *sweep);
        state.cancel_sender(sweep).send_replace(true);
        Ok(())
    }

    async fn is_cancelled(&self, sweep: &SweepName) -> Result<bool, QueueError> {
        Ok(*self.shared.lock().cancel_sender(sweep).borrow())
    }

    async fn clear_cancel(&self, sweep: &SweepName) -> Result<(), QueueError> {
        self.shared.lock().cancel_sender(sweep).send_replace(false);
        Ok(())
    }

    async fn pull(
        &self,
        classes: &[String],
        wait: Duration,
    ) -> Result<Option<Box<dyn Delivery>>, QueueError> {
        let deadline = Instant::now() + wait;
        let _waiting = Waiting::new(&self.shared, classes);
        loop {
            // Armed before the look, so that a job published in between wakes us.
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let now = Instant::now();
            let next_due = {
                let mut state = self.shared.lock();
                if let Some((sequence, entry)) = state.take(classes, now) {
                    return Ok(Some(Box::new(MemoryDelivery {
                        shared: self.shared.clone(),
                        sequence,
                        payload: entry.payload.clone(),
                        headers: entry.headers.clone(),
                        delivered: entry.delivered,
                    })));
                }
                state.next_due()
            };
            if now >= deadline {
                return Ok(None);
            }
            // A due job of another class would wake us at once, again and again.
            let wake = next_due.filter(|due| *due > now).unwrap_or(deadline).min(deadline);
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    async fn load_attempt(&self, job: &Job) -> Result<Option<(Attempt, Revision)>, QueueError> {
        let key = names::attempt_key(&job.sweep, &job.id, job.generation);
        let state = self.shared.lock();
        Ok(state.attempts.get(&key).map(|(attempt, at)| (attempt.clone(), Revision(*at))))
    }

    async fn store_attempt(
        &self,
        job: &Job,
        attempt: &Attempt,
        expected: Option<Revision>,
    ) -> Result<Revision, QueueError> {
        let key = names::attempt_key(&job.sweep, &job.id, job.generation);
        let mut state = self.shared.lock();
        let current = state.attempts.get(&key).map(|(_, at)| *at);
        if current != expected.map(|revision| revision.0) {
            return Err(QueueError::Conflict);
        }
        let next = current.unwrap_or(0) + 1;
        state.attempts.insert(key, (attempt.clone(), next));
        Ok(Revision(next))
    }

    async fn emit(&self, event: &JobEvent) -> Result<(), QueueError> {
        let mut state = self.shared.lock();
        state.events_told += 1;
        let of_sweep = state.latest_events.entry(event.sweep.clone()).or_default();
        of_sweep.insert(event.job.clone(), event.clone());
        // An error only says that nobody watches.
        let _ = self.shared.events.send(event.clone());
        Ok(())
    }

    async fn watch_cancel(&self, sweep: &SweepName) -> Result<watch::Receiver<bool>, QueueError> {
        Ok(self.shared.lock().cancel_sender(sweep).subscribe())
    }
}

struct MemoryDelivery {
    shared: Arc<Shared>,
    sequence: u64,
    payload: Arc<[u8]>,
    headers: Arc<[(String, String)]>,
    delivered: u64,
}

impl MemoryDelivery {
    fn set(&self, available: Available) {
        if let Some(entry) = self.shared.lock().jobs.get_mut(&self.sequence) {
            entry.available = available;
        }
        self.shared.changed.notify_waiters();
    }

    fn end(&self) {
        self.shared.lock().jobs.remove(&self.sequence);
    }
}

/// As with the broker, whoever once held a job may still renew or end it: acks do not fence.
#[async_trait]
impl Delivery for MemoryDelivery {
    fn payload(&self) -> &[u8] {
        &self.payload
    }

    fn delivered(&self) -> u64 {
        self.delivered
    }

    fn headers(&self) -> &[(String, String)] {
        &self.headers
    }

    async fn progress(&self) -> Result<(), QueueError> {
        let mut state = self.shared.lock();
        let until = Instant::now() + state.ack_wait;
        if let Some(entry) = state.jobs.get_mut(&self.sequence)
            && matches!(entry.available, Available::At { leased: true, .. })
        {
            entry.available = Available::At { when: until, leased: true };
        }
        Ok(())
    }

    async fn ack(&self) -> Result<(), QueueError> {
        self.end();
        Ok(())
    }

    async fn nak(&self, delay: Duration) -> Result<(), QueueError> {
        let when = Instant::now() + delay;
        self.set(if delay.is_zero() {
            Available::Now
        } else {
            Available::At { when, leased: false }
        });
        Ok(())
    }

    async fn term(&self, _reason: &str) -> Result<(), QueueError> {
        self.end();
        Ok(())
    }
}
