//! Pulls jobs, generates, stores: the process that runs on the GPU machine.
//!
//! Layout:
//! - [`commands`]: the command line, one file a command
//! - [`serve`]: `worker run`'s loop: pull → claim → open the model → generate cell by cell → store
//!   → acknowledge
//! - [`model`]: a model that answers prompts, as the loop sees it; [`engine_models`]: that, by the
//!   engine
//! - [`metrics`], [`record`]: from time stamps to figures, from figures to the stored documents
//! - [`telemetry`]: GPU and process sampled while a cell runs
//! - [`observe`]: what probes and Prometheus see
//! - [`signals`], [`host`]: the system's side: stopping, host name, memory and time of the process
//! - [`error`]: why a command failed, and with which exit code

pub mod commands;
pub mod engine_models;
pub mod error;
pub mod host;
pub mod metrics;
pub mod model;
pub mod observe;
pub mod record;
pub mod serve;
pub mod signals;
pub mod telemetry;
