//! The coordinator: sweep → plan → publish → watch → collect → report.
//!
//! Layout, along the data's way:
//! - [`sweep`]: the TOML file, read and validated
//! - [`plan`]: its cells and jobs, frozen as `sweep.json`
//! - [`collect`]: what the store holds, as rows and as CSV
//! - [`report`]: the rows as a document for people

pub mod collect;
pub mod plan;
pub mod report;
pub mod sweep;
