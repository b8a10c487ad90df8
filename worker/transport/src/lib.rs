//! The job queue and the object store, as both the coordinator and the worker use them.
//!
//! - [`queue`]: the traits [`queue::JobQueue`] and [`queue::Delivery`], and their errors
pub mod queue;
