//! What a worker shows of itself while it runs, for probes and for Prometheus.
//!
//! - [`meters`]: counters, gauges and histograms
//! - [`health`]: whether the runtime lives, and whether the worker can take jobs
//! - [`server`]: both over HTTP, on a thread of their own

pub mod health;
pub mod meters;
pub mod server;

pub use health::Health;
pub use meters::{CellOutcome, JobOutcome, Meters};
