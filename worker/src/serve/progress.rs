//! What a job is doing right now, whether it still moves, and whether it should stop.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bakeoff_proto::JobPhase;

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
    /// A job that is in `phase` now.
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

    /// The broker confirmed the lease.
    pub fn lease_renewed(&self) {
        self.meters.lease_renewed();
    }

    /// The phase it is in.
    pub fn phase(&self) -> JobPhase {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    /// How long nothing has moved.
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

    /// Why the generation is to stop, if it is.
    pub fn halted(&self) -> Option<Halt> {
        match self.halt.load(Ordering::Acquire) {
            0 => None,
            1 => Some(Halt::Cancelled),
            2 => Some(Halt::HandBack),
            _ => Some(Halt::Stalled),
        }
    }

    /// No new cell is to be started.
    pub fn drain(&self) {
        self.draining.store(1, Ordering::Release);
    }

    /// Whether no new cell is to be started.
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::Acquire) == 1
    }
}
