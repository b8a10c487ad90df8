//! The report: what was collected, as a document for people. Pure: no I/O, no clock.

mod markdown;

pub use markdown::render_markdown;
