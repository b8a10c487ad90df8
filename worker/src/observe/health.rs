//! Whether the runtime lives, and whether the worker can take jobs.
//!
//! Alive means that the runtime still runs its tasks; a model that loads for minutes or a broker
//! that is gone for an hour is no reason to kill the process. Ready means that a job could be
//! taken, done and stored now.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bakeoff_transport::queue::JobQueue;
use bakeoff_transport::store;
use object_store::ObjectStore;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::signals::Stop;

const BEAT: Duration = Duration::from_secs(1);
/// A runtime that ran no task for so long is taken for dead.
const BEAT_LIMIT: Duration = Duration::from_secs(15);
/// The store is not asked more often than this, however many probe us.
const STORE_EVERY: Duration = Duration::from_secs(5);
const STORE_ANSWER: Duration = Duration::from_secs(3);

/// What the probes look at.
pub struct Health {
    runtime: Handle,
    limit: Duration,
    beaten: Mutex<Instant>,
    served: OnceLock<Served>,
    store_seen: Mutex<Option<(Instant, bool)>>,
}

/// What the worker serves, once it has it.
struct Served {
    queue: Arc<dyn JobQueue>,
    store: Arc<dyn ObjectStore>,
    stop: watch::Receiver<Stop>,
}

/// The answer of `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Readiness {
    pub ready: bool,
    /// `connected`, `disconnected`, or `connecting` before the first connection.
    pub broker: &'static str,
    /// `reachable`, `unreachable`, or `connecting`.
    pub store: &'static str,
    pub draining: bool,
}

impl Health {
    /// Watches the runtime that this is called on.
    pub fn start() -> Arc<Self> {
        Self::start_with(BEAT, BEAT_LIMIT)
    }

    fn start_with(beat: Duration, limit: Duration) -> Arc<Self> {
        let health = Arc::new(Self {
            runtime: Handle::current(),
            limit,
            beaten: Mutex::new(Instant::now()),
            served: OnceLock::new(),
            store_seen: Mutex::new(None),
        });
        let beating = Arc::downgrade(&health);
        tokio::spawn(async move {
            while let Some(health) = beating.upgrade() {
                *health.beaten.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                drop(health);
                tokio::time::sleep(beat).await;
            }
        });
        health
    }

    /// Broker and store are there: from now on they decide whether the worker is ready.
    pub fn serves(
        &self,
        queue: Arc<dyn JobQueue>,
        store: Arc<dyn ObjectStore>,
        stop: watch::Receiver<Stop>,
    ) {
        // Set once a process; a second call would change nothing.
        let _ = self.served.set(Served { queue, store, stop });
    }

    /// How long the runtime has been silent, if that is too long.
    pub fn silent_for(&self) -> Option<Duration> {
        let beaten = *self.beaten.lock().unwrap_or_else(PoisonError::into_inner);
        Some(beaten.elapsed()).filter(|silent| *silent > self.limit)
    }

    /// Whether a job could be taken, done and stored now. Asks the store at most every 5 s.
    pub async fn readiness(&self) -> Readiness {
        let Some(served) = self.served.get() else {
            let connecting = "connecting";
            return Readiness {
                ready: false,
                broker: connecting,
                store: connecting,
                draining: false,
            };
        };
        let connected = served.queue.connected();
        let draining = *served.stop.borrow() != Stop::No;
        let reachable = self.store_reachable(&served.store).await;
        Readiness {
            ready: connected && reachable && !draining,
            broker: if connected { "connected" } else { "disconnected" },
            store: if reachable { "reachable" } else { "unreachable" },
            draining,
        }
    }

    async fn store_reachable(&self, store: &Arc<dyn ObjectStore>) -> bool {
        let seen = *self.store_seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, reachable)) = seen
            && at.elapsed() < STORE_EVERY
        {
            return reachable;
        }
        // On the worker's runtime, which the store's connections belong to.
        let store = store.clone();
        let probe = self.runtime.spawn(async move {
            tokio::time::timeout(STORE_ANSWER, store::probe(store.as_ref())).await
        });
        let reachable = matches!(probe.await, Ok(Ok(Ok(()))));
        *self.store_seen.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((Instant::now(), reachable));
        reachable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_whose_threads_are_stuck_is_not_alive() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let limit = Duration::from_millis(200);
        let health = runtime.block_on(async { Health::start_with(limit / 10, limit) });
        let (release, held) = std::sync::mpsc::channel::<()>();
        let (stuck, is_stuck) = std::sync::mpsc::channel();
        runtime.spawn(async move {
            stuck.send(()).unwrap();
            // Blocks the only thread, as a task that forgets to yield does.
            let _ = held.recv();
        });
        is_stuck.recv().unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        let until = |what: &str, condition: &dyn Fn() -> bool| {
            while !condition() {
                assert!(Instant::now() < deadline, "{what}");
                std::thread::sleep(Duration::from_millis(10));
            }
        };
        until("silence is noticed", &|| health.silent_for().is_some());
        release.send(()).unwrap();
        until("life is noticed again", &|| health.silent_for().is_none());
    }

    #[tokio::test]
    async fn a_worker_is_ready_until_it_drains() {
        let health = Health::start();
        assert_eq!(health.readiness().await.broker, "connecting");
        let (stop, stopped) = watch::channel(Stop::No);
        let queue = Arc::new(bakeoff_transport::queue::memory::MemoryQueue::new());
        health.serves(queue, store::memory(), stopped);
        assert!(health.readiness().await.ready);
        stop.send_replace(Stop::Drain);
        let draining = health.readiness().await;
        assert!(!draining.ready && draining.draining && draining.broker == "connected");
    }
}
