//! The report: what was collected, as documents for people and as data. Pure: no I/O, no clock.
//!
//! - [`model`]: what it says, as data (`report.json`)
//! - [`build`](mod@build): from what was collected to that data
//! - [`render`](mod@render): that data as a page and as markdown

pub mod build;
pub mod model;
pub mod render;

use bakeoff_model::GpuTable;

use crate::collect::Collected;
pub use build::build;
pub use model::Report;

/// The three documents of a report, made together so that the outputs are analysed once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Documents {
    /// `report.md`.
    pub markdown: String,
    /// `report.html`.
    pub html: String,
    /// `report.json`, see [`Report`].
    pub json: String,
}

/// All documents.
pub fn documents(collected: &Collected) -> Documents {
    let report = build(collected, GpuTable::shipped().as_slice());
    let mut json = serde_json::to_string_pretty(&report).expect("a report serialises to JSON");
    json.push('\n');
    Documents {
        markdown: render::markdown::render(&report),
        html: render::html::render(&report, collected),
        json,
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
