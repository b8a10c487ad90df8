//! The report: what was collected, as documents for people and as data. Pure: no I/O, no clock.
//!
//! - [`model`]: what it says, as data (`report.json`)
//! - [`build`](mod@build): from what was collected to that data; [`measures`], [`variants`] and
//!   [`environment`] are its parts
//! - [`recommend`], [`insights`], [`warnings`]: what follows from the numbers
//! - [`checks`]: what executing the outputs found
//! - [`charts`]: inline SVG
//! - [`html`] and [`markdown`]: the documents

pub mod build;
mod charts;
mod checks;
mod environment;
mod html;
mod insights;
mod markdown;
mod measures;
pub mod model;
mod recommend;
mod variants;
mod warnings;

use crate::collect::Collected;
pub use build::build;
pub use html::{STYLE, output_html, render as render_html};
pub use markdown::{render as render_report, text as markdown_text};
pub use model::Report;

/// `report.md` of what was collected.
pub fn render_markdown(collected: &Collected) -> String {
    let report = build(collected, bakeoff_model::GpuTable::shipped().as_slice());
    markdown::render(&report)
}

/// The three documents of a report, made together so that the outputs are analysed once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Documents {
    pub markdown: String,
    pub html: String,
    /// `report.json`, see [`Report`].
    pub json: String,
}

/// All documents.
pub fn documents(collected: &Collected) -> Documents {
    let report = build(collected, bakeoff_model::GpuTable::shipped().as_slice());
    let mut json = serde_json::to_string_pretty(&report).expect("a report serialises to JSON");
    json.push('\n');
    Documents { markdown: markdown::render(&report), html: html::render(&report, collected), json }
}

#[cfg(test)]
mod tests;
