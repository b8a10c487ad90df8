//! Loading: from a model's files to an engine that generates.

use std::ops::ControlFlow;

use bakeoff_proto::EngineSettings;

use crate::{Engine, EngineError, source::ModelFiles};

/// The device to load on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    #[default]
    Cpu,
    Cuda(usize),
}

/// What a load is told beside the model's files.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    pub settings: EngineSettings,
    pub device: DeviceChoice,
    /// Longest sequence the cells of this job need (prompt and output): the key and value cache is
    /// allocated for it.
    pub context: usize,
}

/// Bytes that reached their final place, of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadProgress {
    pub bytes: u64,
    pub total_bytes: u64,
}

/// Where progress goes; a `Break` abandons the load.
pub type OnLoad<'a> = &'a mut dyn FnMut(LoadProgress) -> ControlFlow<()>;

/// A loaded model and how long that took.
pub struct Loaded {
    pub engine: Box<dyn Engine>,
    /// Weights from storage to ready, in seconds, the device synchronised.
    pub load_s: f64,
    /// Bytes of weights as stored.
    pub stored_bytes: u64,
    pub ledger: bakeoff_proto::ledger::Ledger,
    /// Settings that changed arithmetic, each `on`, `off` or `n/a`, as this engine honoured them.
    pub effective: Effective,
}

/// Settings as they took effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    pub engine: &'static str,
    pub device: String,
    pub driver: String,
    pub flash_attn: &'static str,
    pub tf32: &'static str,
    pub reduced_precision_reduction: &'static str,
    pub cuda_graph: &'static str,
}

/// Loads a model on a device. The ledger is computed and checked before a byte is loaded.
pub type LoadFn = fn(&ModelFiles, &LoadOptions, OnLoad<'_>) -> Result<Loaded, EngineError>;
