//! From the object store to rows. Reads nothing else: it works long after queue and workers are gone.
//!
//! - [`read`](mod@read): what the store holds of a sweep
//! - [`csv`]: the rows as the summary file
//! - [`orphans`]: files that no record names

pub mod csv;
pub mod orphans;
pub mod read;
#[cfg(test)]
mod upgrade;

use std::collections::BTreeMap;

use bakeoff_model::{EngineKind};
use bakeoff_proto::{CellId, Failure, FailureKind, JobId, MetricsRecord};

use crate::plan::Plan;

/// Everything the store says about a sweep, parsed and checked.
#[derive(Debug, Clone)]
pub struct Collected {
    pub plan: Plan,
    /// One per planned cell, in the order of the sweep.
    pub rows: Vec<Row>,
    pub records: BTreeMap<CellId, MetricsRecord>,
    /// The history of each cell, oldest generation first. A cell with a record may have one too.
    pub failures: BTreeMap<CellId, Vec<Failure>>,
    /// The output of each finished cell, verbatim.
    pub outputs: BTreeMap<CellId, String>,
    /// The telemetry CSV of the attempt that finished the cell, as stored.
    pub telemetry: BTreeMap<CellId, String>,
    /// `checks/<cell>.json`, as stored.
    pub checks: BTreeMap<CellId, String>,
    /// `reviews.toml`, as stored.
    pub reviews: Option<String>,
    /// Keys that no record names, in order.
    pub orphans: Vec<String>,
    /// What does not fit together, each as a sentence: shown, never hidden.
    pub problems: Vec<String>,
}

/// One planned cell and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub cell: CellId,
    pub job: JobId,
    /// The model's name in the sweep.
    pub model: String,
    /// As the sweep asks for it; the record says which one ran.
    pub engine: EngineKind,
    pub prompt_id: String,
    pub run: u32,
    pub status: Status,
}

/// What became of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// It has a record.
    Done,
    Failed,
    Cancelled,
    /// Neither record nor failure yet.
    Pending,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Pending => "pending",
        }
    }

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

/// How many cells have which status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Counts {
    pub cells: usize,
    pub done: usize,
    pub failed: usize,
    pub cancelled: usize,
    pub pending: usize,
}

impl Counts {
    pub fn of(statuses: impl IntoIterator<Item = Status>) -> Self {
        let mut counts = Self::default();
        for status in statuses {
            counts.cells += 1;
            match status {
                Status::Done => counts.done += 1,
                Status::Failed => counts.failed += 1,
                Status::Cancelled => counts.cancelled += 1,
                Status::Pending => counts.pending += 1,
            }
        }
        counts
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} done", self.done, self.cells)?;
        for (count, word) in
            [(self.failed, "failed"), (self.cancelled, "cancelled"), (self.pending, "pending")]
        {
            if count > 0 {
                write!(f, ", {count} {word}")?;
            }
        }
        Ok(())
    }
}

impl Collected {
    pub fn counts(&self) -> Counts {
        Counts::of(self.rows.iter().map(|row| row.status))
    }

    pub fn record(&self, row: &Row) -> Option<&MetricsRecord> {
        self.records.get(&row.cell)
    }

    /// The failure that decides the row's status; `None` for a row that is done or pending.
    pub fn failure(&self, row: &Row) -> Option<&Failure> {
        match row.status {
            Status::Failed | Status::Cancelled => self.failures.get(&row.cell)?.last(),
            Status::Done | Status::Pending => None,
        }
    }
}

/// The rows of a plan from what is known of each cell.
pub fn rows(
    plan: &Plan,
    records: &BTreeMap<CellId, MetricsRecord>,
    failures: &BTreeMap<CellId, Vec<Failure>>,
) -> Vec<Row> {
    plan.cells()
        .map(|planned| Row {
            cell: planned.cell.id.clone(),
            job: planned.job.id.clone(),
            model: planned.model_name.to_owned(),
            engine: planned.job.engine.engine,
            prompt_id: planned.cell.prompt_id.clone(),
            run: planned.cell.run,
            status: Status::of(
                records.contains_key(&planned.cell.id),
                failures.get(&planned.cell.id).and_then(|history| history.last()),
            ),
        })
        .collect()
}
