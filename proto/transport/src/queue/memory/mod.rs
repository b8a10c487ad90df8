//! The queue of the self-contained mode: in this process, with the semantics of the broker.
//!
//! - `state`: what the queue holds; `delivery`: a leased job

mod delivery;
mod state;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bakeoff_proto::limits::MAX_JOB_BYTES;
use bakeoff_proto::{Attempt, Job, JobEvent, JobId, SweepId, SweepName, names};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_stream::wrappers::BroadcastStream;

use self::delivery::MemoryDelivery;
use self::state::{Available, Entry, Shared, Waiting};
use super::error::QueueError;
use super::message::encode;
use super::{Delivery, JobQueue, Published, QueueSettings, QueueStats, Revision};
use crate::logging::trace_context;

/// A queue that lives as long as its process. Clones share it.
#[derive(Clone)]
pub struct MemoryQueue {
    shared: Arc<Shared>,
}

impl Default for MemoryQueue {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryQueue {
    /// An empty queue.
    pub fn new() -> Self {
        Self { shared: Arc::new(Shared::new()) }
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
        let payload = encode(job, MAX_JOB_BYTES)?;
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
            sweep: job.sweep_id(),
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

    async fn open_jobs(&self, sweep: &SweepId) -> Result<Vec<JobId>, QueueError> {
        let state = self.shared.lock();
        let of_sweep = state.jobs.values().filter(|entry| entry.sweep == *sweep);
        Ok(of_sweep.map(|entry| entry.job.clone()).collect())
    }

    async fn stats(&self, classes: &[String]) -> Result<QueueStats, QueueError> {
        let state = self.shared.lock();
        let now = Instant::now();
        let tokens: Vec<_> = classes.iter().map(|class| names::class_token(class)).collect();
        let asked = |class: &String| tokens.is_empty() || tokens.contains(class);
        let held = |entry: &&Entry| match entry.available {
            Available::At { when, leased } => leased && when > now,
            Available::Now => false,
        };
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

    async fn event_count(&self) -> Result<u64, QueueError> {
        Ok(self.shared.lock().event_count)
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

    async fn cancel(&self, sweep: &SweepId) -> Result<(), QueueError> {
        let mut state = self.shared.lock();
        state.jobs.retain(|_, entry| entry.sweep != *sweep);
        state.cancel_sender(sweep).send_replace(true);
        Ok(())
    }

    async fn is_cancelled(&self, sweep: &SweepId) -> Result<bool, QueueError> {
        Ok(*self.shared.lock().cancel_sender(sweep).borrow())
    }

    async fn clear_cancel(&self, sweep: &SweepId) -> Result<(), QueueError> {
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
        let key = names::attempt_key(job);
        let state = self.shared.lock();
        Ok(state.attempts.get(&key).map(|(attempt, at)| (attempt.clone(), Revision(*at))))
    }

    async fn store_attempt(
        &self,
        job: &Job,
        attempt: &Attempt,
        expected: Option<Revision>,
    ) -> Result<Revision, QueueError> {
        let key = names::attempt_key(job);
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
        state.event_count += 1;
        let of_sweep = state.latest_events.entry(event.sweep.clone()).or_default();
        of_sweep.insert(event.job.clone(), event.clone());
        // An error only says that nobody watches.
        let _ = self.shared.events.send(event.clone());
        Ok(())
    }

    async fn watch_cancel(&self, sweep: &SweepId) -> Result<watch::Receiver<bool>, QueueError> {
        Ok(self.shared.lock().cancel_sender(sweep).subscribe())
    }
}
