//! What a worker shows of itself while it runs, for probes and for Prometheus.
//!
//! - [`meters`]: counters, gauges and histograms; `labels`: their label values
//! - [`health`]: whether the runtime lives, and whether the worker can take jobs
//! - [`server`]: both over HTTP, on a thread of their own

pub mod health;
mod labels;
pub mod meters;
pub mod server;

pub use health::Health;
pub use labels::{CellOutcome, JobOutcome};
pub use meters::Meters;
pub use server::{ListenError, serve_http};
