//! A worker's settings.

use std::sync::Arc;
use std::time::Duration;

use bakeoff_proto::names;

use crate::model::Models;
use crate::observe::Meters;
use crate::telemetry::Gpu;

/// A worker's settings.
#[derive(Clone)]
pub struct WorkerConfig {
    /// In records and events.
    pub name: String,
    /// `any`, and the class of this machine's GPU.
    pub classes: Vec<String>,
    pub models: Arc<dyn Models>,
    pub gpu: Arc<Gpu>,
    pub meters: Arc<Meters>,
    /// How often a lease is renewed; well below the queue's `ack_wait`.
    pub heartbeat: Duration,
    /// A phase that does not move for so long ends the attempt.
    pub stall_limit: Duration,
    /// A halted generation stops at its next token; one that does not within this time hangs.
    pub halt_limit: Duration,
    /// How long the current cell may go on after a first signal.
    pub grace: Duration,
    /// First delay before a job that failed is delivered again; doubles with each attempt.
    pub retry_delay: Duration,
    /// Leave after so many jobs.
    pub max_jobs: Option<u64>,
    /// Leave when no job came for so long.
    pub idle_exit: Option<Duration>,
}

impl WorkerConfig {
    /// The settings that `worker run` has without options.
    pub fn new(name: String, classes: Vec<String>, models: Arc<dyn Models>, gpu: Arc<Gpu>) -> Self {
        Self {
            name,
            classes,
            models,
            meters: Arc::new(Meters::new(gpu.clone())),
            gpu,
            heartbeat: Duration::from_secs(15),
            stall_limit: Duration::from_secs(120),
            halt_limit: Duration::from_secs(20),
            grace: Duration::from_secs(25),
            retry_delay: Duration::from_secs(5),
            max_jobs: None,
            idle_exit: None,
        }
    }

    /// The class of this machine's GPU, or `cpu`.
    pub(super) fn gpu_class(&self) -> &str {
        self.classes.last().map_or(names::CPU_CLASS, String::as_str)
    }
}
