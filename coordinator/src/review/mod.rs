//! The review: stars and words that only a person can give, without knowing whose output it is.
//!
//! - [`file`](mod@file): `reviews.toml`, read with line numbers and written so that people can edit
//!   it
//! - [`blind`]: names that hide the model, and the order they are shown in
//! - [`push`](mod@push): into the store, conditional on what was read
//!
//! The local page is [`crate::review_page`].

pub mod blind;
pub mod file;
pub mod push;

use std::collections::BTreeMap;

use bakeoff_proto::CellId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::collect::Collected;
use crate::toml_file::FileError;

/// What stars are given for.
pub const CRITERIA: [(&str, &str); 5] = [
    ("correctness", "Does it do what was asked?"),
    ("completeness", "Is everything there that it takes to run it?"),
    ("robustness", "Does it handle bad input, failure and load?"),
    ("readability", "Would you like to maintain it?"),
    ("operations", "Can it be deployed, configured and observed?"),
];

/// How near to use an output is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Readiness {
    NotUsable,
    Prototype,
    NeedsWork,
    Production,
}

impl Readiness {
    /// Every word, worst first.
    pub const ALL: [(&'static str, Self); 4] = [
        ("not-usable", Self::NotUsable),
        ("prototype", Self::Prototype),
        ("needs-work", Self::NeedsWork),
        ("production", Self::Production),
    ];

    /// The word in files and tables.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, r)| *r == self).map_or("", |(word, _)| word)
    }
}

/// What one reviewer says of one output.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Review {
    /// The blinded name.
    pub output: String,
    /// Who says so.
    pub reviewer: String,
    /// 1 to 5 by criterion; a criterion that was not judged is not there.
    pub stars: BTreeMap<String, u8>,
    /// `None`: not judged.
    pub readiness: Option<Readiness>,
    /// Free text.
    pub strengths: String,
    /// Free text.
    pub limitations: String,
    /// Free text.
    pub best_use: String,
}

impl Review {
    /// Mean over the criteria judged; `None` before the first star.
    pub fn mean_stars(&self) -> Option<f64> {
        let sum: u32 = self.stars.values().map(|stars| u32::from(*stars)).sum();
        (!self.stars.is_empty()).then(|| f64::from(sum) / self.stars.len() as f64)
    }

    /// Nothing has been said yet.
    pub fn is_blank(&self) -> bool {
        self.stars.is_empty()
            && self.readiness.is_none()
            && [&self.strengths, &self.limitations, &self.best_use].iter().all(|t| t.is_empty())
    }
}

/// `reviews.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reviews {
    /// The sweep's name.
    pub sweep: String,
    /// The blinded names and their order follow from it.
    pub seed: u64,
    /// One for each output and reviewer.
    pub reviews: Vec<Review>,
}

/// The reviews of each cell, names revealed. Outputs that do not exist were refused before.
pub fn by_cell(reviews: &Reviews, collected: &Collected) -> BTreeMap<CellId, Vec<Review>> {
    let cells = blind::cells(reviews.seed, collected.outputs.keys());
    let mut by_cell: BTreeMap<CellId, Vec<Review>> = BTreeMap::new();
    for review in reviews.reviews.iter().filter(|review| !review.is_blank()) {
        if let Some(cell) = cells.get(&review.output) {
            by_cell.entry((*cell).clone()).or_default().push(review.clone());
        }
    }
    by_cell
}

/// Reads reviews of a sweep that was collected.
pub fn parse(text: &str, origin: &str, collected: &Collected) -> Result<Reviews, FileError> {
    let outputs = |seed| blind::cells(seed, collected.outputs.keys()).into_keys().collect();
    file::parse(text, origin, collected.plan.sweep.name.as_str(), outputs)
}

/// Adds a blank review for every output that `reviewer` has not reviewed, in blinded order.
pub fn add_blanks(reviews: &mut Reviews, collected: &Collected, reviewer: &str) {
    for output in blind::cells(reviews.seed, collected.outputs.keys()).into_keys() {
        let mine =
            |r: &Review| r.output == output && r.reviewer.eq_ignore_ascii_case(reviewer.trim());
        if !reviews.reviews.iter().any(mine) {
            let reviewer = reviewer.trim().to_owned();
            reviews.reviews.push(Review { output, reviewer, ..Review::default() });
        }
    }
}
