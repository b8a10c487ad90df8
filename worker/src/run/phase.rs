//! What a job is doing right now, whether it still moves, and whether it should stop.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bakeoff_proto::JobPhase;
use bakeoff_transport::queue::Delivery;
use tokio::sync::watch;

use super::Stop;
use crate::observe::Meters;

/// Why a generation is to stop at its next token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Halt {
    Cancelled,
    HandBack,
    Stalled,
}

/// Shared by the generating thread, the heartbeat and the live display.
pub(super) struct Progress {
    halt: AtomicU8,
    /// Set while draining: no new cell is started.
    draining: AtomicU8,
    state: Mutex<(Instant, JobPhase)>,
    meters: Arc<Meters>,
}

impl Progress {
    pub fn new(phase: JobPhase, meters: Arc<Meters>) -> Arc<Self> {
        Arc::new(Self {
            halt: AtomicU8::new(0),
            draining: AtomicU8::new(0),
            state: Mutex::new((Instant::now(), phase)),
            meters,
        })
    }

    /// The phase moved.
    pub fn moved(&self, phase: JobPhase) {
        self.meters.phase(&phase);
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = (Instant::now(), phase);
    }

    /// The phase moved without becoming another, such as a further try at storing.
    pub fn touched(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0 = Instant::now();
    }

    /// The store did not answer and is asked again, which is movement too.
    pub fn store_retried(&self) {
        self.meters.store_retried();
        self.touched();
    }

    pub fn phase(&self) -> JobPhase {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    pub fn still_for(&self) -> Duration {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0.elapsed()
    }

    /// The first reason stays.
    pub fn halt(&self, halt: Halt) {
        let code = match halt {
            Halt::Cancelled => 1,
            Halt::HandBack => 2,
            Halt::Stalled => 3,
        };
        let _ = self.halt.compare_exchange(0, code, Ordering::AcqRel, Ordering::Acquire);
    }

    pub fn halted(&self) -> Option<Halt> {
        match self.halt.load(Ordering::Acquire) {
            0 => None,
            1 => Some(Halt::Cancelled),
            2 => Some(Halt::HandBack),
            _ => Some(Halt::Stalled),
        }
    }

    pub fn drain(&self) {
        self.draining.store(1, Ordering::Release);
    }

    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::Acquire) == 1
    }
}

/// Renews the lease while the phase moves. Ends, and halts the job, when it does not.
pub(super) async fn heartbeat(
    delivery: Arc<dyn Delivery>,
    progress: Arc<Progress>,
    every: Duration,
    stall_limit: Duration,
) {
    loop {
        tokio::time::sleep(every).await;
        let still = progress.still_for();
        if still >= stall_limit {
            tracing::error!(?still, "the job does not move; its lease is left to lapse");
            progress.halt(Halt::Stalled);
            return;
        }
        match delivery.progress().await {
            Ok(()) => progress.meters.lease_renewed(),
            Err(error) => tracing::warn!(%error, "the lease could not be renewed"),
        }
    }
}

/// Halts the job on a cancellation, at the end of the grace period, or at once.
pub(super) async fn stopping(
    progress: Arc<Progress>,
    mut cancelled: watch::Receiver<bool>,
    mut stop: watch::Receiver<Stop>,
    grace: Duration,
) {
    let drained = async {
        // A sender that is gone can no longer ask.
        if stop.wait_for(|stop| *stop != Stop::No).await.is_err() {
            std::future::pending::<()>().await;
        }
        progress.drain();
        tokio::select! {
            () = tokio::time::sleep(grace) => {}
            Ok(_) = stop.wait_for(|stop| *stop == Stop::Now) => {}
        }
    };
    let cancel = async {
        if cancelled.wait_for(|now| *now).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = drained => progress.halt(Halt::HandBack),
        () = cancel => progress.halt(Halt::Cancelled),
    }
}
