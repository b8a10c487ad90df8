//! From the object store to rows. Reads nothing else: it works long after queue and workers are
//! gone.
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

use bakeoff_model::EngineKind;
use bakeoff_proto::{CellId, CellStatus, Failure, JobId, MetricsRecord};

use crate::plan::Plan;

/// Everything the store says about a sweep, parsed and checked.
#[derive(Debug, Clone)]
pub struct Collected {
    /// The frozen plan.
    pub plan: Plan,
    /// One per planned cell, in the order of the sweep.
    pub rows: Vec<Row>,
    /// The record of each finished cell.
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
    /// The planned cell.
    pub cell: CellId,
    /// The job it belongs to.
    pub job: JobId,
    /// The model's name in the sweep.
    pub model: String,
    /// As the sweep asks for it; the record says which one ran.
    pub engine: EngineKind,
    /// The prompt's id in the sweep.
    pub prompt_id: String,
    /// Counted from 1.
    pub run: u32,
    /// What became of it.
    pub status: CellStatus,
}

/// How many cells have which status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Counts {
    /// All planned cells.
    pub cells: usize,
    /// Cells with a record.
    pub done: usize,
    /// Cells whose latest failure is no cancellation.
    pub failed: usize,
    /// Cells whose latest failure is a cancellation.
    pub cancelled: usize,
    /// Cells with neither record nor failure.
    pub pending: usize,
}

impl Counts {
    /// Counts statuses.
    pub fn of(statuses: impl IntoIterator<Item = CellStatus>) -> Self {
        let mut counts = Self::default();
        for status in statuses {
            counts.cells += 1;
            match status {
                CellStatus::Done => counts.done += 1,
                CellStatus::Failed => counts.failed += 1,
                CellStatus::Cancelled => counts.cancelled += 1,
                CellStatus::Pending => counts.pending += 1,
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
    /// How many cells have which status.
    pub fn counts(&self) -> Counts {
        Counts::of(self.rows.iter().map(|row| row.status))
    }

    /// The record of a row; `None` unless it is done.
    pub fn record(&self, row: &Row) -> Option<&MetricsRecord> {
        self.records.get(&row.cell)
    }

    /// The name of what is compared: the model, and the engine where the sweep names several.
    pub fn variant_name(&self, row: &Row) -> String {
        let models = &self.plan.sweep.models;
        let several = models.iter().any(|m| m.name == row.model && m.engines.len() > 1);
        match several {
            true => format!("{} · {}", row.model, row.engine.as_str()),
            false => row.model.clone(),
        }
    }

    /// The failure that decides the row's status; `None` for a row that is done or pending.
    pub fn failure(&self, row: &Row) -> Option<&Failure> {
        match row.status {
            CellStatus::Failed | CellStatus::Cancelled => self.failures.get(&row.cell)?.last(),
            CellStatus::Done | CellStatus::Pending => None,
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
            status: CellStatus::of(
                records.contains_key(&planned.cell.id),
                failures.get(&planned.cell.id).and_then(|history| history.last()),
            ),
        })
        .collect()
}
