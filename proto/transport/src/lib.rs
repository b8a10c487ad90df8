//! The job queue and the object store, as both the coordinator and the worker use them.
//!
//! - [`args`]: where broker and store are, and the credentials for them, as command-line arguments
//! - [`queue`]: the traits [`queue::JobQueue`] and [`queue::Delivery`], NATS JetStream and the
//!   in-process queue behind them
//! - [`env`]: the standard environment variables that both programs obey
//! - [`logging`]: logs and traces of both programs; one trace a job, across the queue
//! - [`store`]: opens an object store, and creates objects so that a race has one winner
pub mod args;
pub mod env;
pub mod logging;
pub mod queue;
pub mod store;
