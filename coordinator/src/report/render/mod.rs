//! The documents for people, from the report's data.
//!
//! - [`html`]: the page, with `charts` as inline SVG
//! - [`markdown`]: where only text is read; `checks` is its section on executed outputs
//! - [`escape`]: text from outside in markdown

mod charts;
mod checks;
pub mod escape;
pub mod html;
pub mod markdown;
