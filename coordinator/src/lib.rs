//! The coordinator: sweep → plan → publish → watch → collect → report.
//!
//! Layout, along the data's way:
//! - [`sweep`]: the TOML file, read and validated; [`toml_file`]: how such files are read
//! - [`hub`]: branches of hub models, resolved to commits
//! - [`plan`]: its cells and jobs, frozen as `sweep.json`
//! - [`forecast`]: what a plan needs: bytes, memory, hours, money
//! - [`publish`]: its jobs onto the queue
//! - [`watch`]: until every cell has a record or a failure
//! - [`collect`]: what the store holds, as rows and as CSV
//! - [`quality`]: outputs read for evidence, [`check`]: what executing them found
//! - [`review`]: what people say of them
//! - [`sizing`]: which GPU holds which model; [`stats`]: intervals and pass@k
//! - [`report`]: all of it as documents for people and as data
//! - [`compare`]: two sweeps cell by cell
//! - [`review_page`]: the local page on which people review
//! - [`results`]: all written beside what they are made from
//!
//! Around it:
//! - [`commands`]: the command line, one file a command
//! - [`connect`]: queue and store from flags and environment
//! - [`kubernetes`]: a sweep as the Job that runs it in a cluster
//! - `embedded` (feature): queue and worker inside this process
//! - [`error`]: which error ends with which exit code
//! - [`units`]: quantities as people read them

pub mod check;
pub mod collect;
pub mod commands;
pub mod compare;
pub mod connect;
#[cfg(feature = "embedded")]
pub mod embedded;
pub mod error;
#[cfg(test)]
mod finished;
pub mod forecast;
pub mod hub;
pub mod kubernetes;
pub mod plan;
pub mod publish;
pub mod quality;
pub mod report;
pub mod results;
pub mod review;
pub mod review_page;
pub mod sizing;
pub mod stats;
pub mod sweep;
pub mod toml_file;
pub mod units;
pub mod watch;
