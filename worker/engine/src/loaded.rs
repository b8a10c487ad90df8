//! What a load reports while it runs, and what it gives.

use std::ops::ControlFlow;

use bakeoff_model::ledger::Ledger;
use bakeoff_proto::FailureKind;

use crate::{EngineError, engine::Engine};

/// Bytes that reached their final place, of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadProgress {
    pub bytes: u64,
    pub total_bytes: u64,
}

/// Where progress goes; a `Break` abandons the load.
pub type OnLoad<'a> = &'a mut dyn FnMut(LoadProgress) -> ControlFlow<()>;

/// A load that `on_progress` abandoned.
pub fn abandoned() -> EngineError {
    EngineError::new(FailureKind::Interrupted, "the load was abandoned: the worker is stopping")
}

/// A loaded model and how long that took.
pub struct Loaded {
    pub engine: Box<dyn Engine>,
    /// Weights from storage to ready, in seconds, the device synchronised.
    pub load_s: f64,
    /// Bytes of weights as stored.
    pub stored_bytes: u64,
    pub ledger: Ledger,
    /// What identifies the weights in a fingerprint.
    pub weights_sha256: String,
    /// Settings that changed arithmetic, each `on`, `off` or `n/a`, as this engine honoured them.
    pub effective: Effective,
}

/// Settings as they took effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    pub engine: &'static str,
    pub device: String,
    /// Version of the driver's CUDA; empty on a CPU.
    pub driver: String,
    pub flash_attn: &'static str,
    pub tf32: &'static str,
    pub reduced_precision_reduction: &'static str,
    pub cuda_graph: &'static str,
}
