//! What became of a planned cell.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantArray};

use crate::{Failure, FailureKind};

/// The `status` of a cell, as CSV, JSON and status lines say it.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    JsonSchema,
    IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum CellStatus {
    /// There is a record.
    Done,
    /// There is no record, and the latest failure says why.
    Failed,
    /// The latest failure says that the sweep was cancelled.
    Cancelled,
    /// Neither record nor failure yet.
    Pending,
}

bakeoff_model::words!(CellStatus);

impl CellStatus {
    /// A record is completion; without one, the latest failure decides.
    pub fn of(record: bool, latest_failure: Option<&Failure>) -> Self {
        match (record, latest_failure.map(|failure| failure.kind)) {
            (true, _) => Self::Done,
            (false, None) => Self::Pending,
            (false, Some(FailureKind::Cancelled)) => Self::Cancelled,
            (false, Some(_)) => Self::Failed,
        }
    }
}
