//! Pulls jobs, generates, stores: the process that runs on the GPU machine.
//!
//! Layout, along a job's way:
//! - [`run`]: pull → claim → open the model → generate cell by cell → store → acknowledge
//! - [`model`]: a model that answers prompts, as the run loop sees it
//! - [`engine_models`]: that, by the engine
//! - [`generate`]: one generation without a queue
//! - [`fetch`]: models brought into the cache ahead of time
//! - [`metrics`], [`record`]: from time stamps to figures, from figures to the stored documents
//! - [`observe`]: what probes and Prometheus see of it
//! - [`telemetry`]: GPU and process sampled while a cell runs
//! - [`doctor`]: what works on this machine and what does not
//! - [`bench`]: the engine alone, against the bounds of the machine
//! - [`cli`]: the command line
pub mod bench;
pub mod cli;
pub mod doctor;
pub mod engine_models;
pub mod fetch;
pub mod generate;
pub mod metrics;
pub mod model;
pub mod observe;
pub mod record;
pub mod run;
pub mod telemetry;
