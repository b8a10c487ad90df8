//! Files in a sweep's folder that no record names, and that none will: what lost races and killed
//! workers left behind.
//!
//! A record is written once and last, so the files of a cell that has one are decided. Those of a
//! cell without one are left alone, even if the cell failed: the store does not say whether a retry
//! of it is at work, whose record is about to name them.

use std::collections::{BTreeMap, BTreeSet};

use bakeoff_proto::{CellId, MetricsRecord, names};

use crate::plan::Plan;

/// The keys among `keys` that belong to nothing, in order. `keys` are all keys below the sweep's
/// folder, the folder's name included.
pub fn find(
    plan: &Plan,
    records: &BTreeMap<CellId, MetricsRecord>,
    keys: &BTreeSet<String>,
) -> Vec<String> {
    let sweep = &plan.sweep.name;
    let folder = format!("{sweep}/");
    let cells: BTreeSet<&CellId> = plan.cells().map(|planned| &planned.cell.id).collect();
    let documents: BTreeSet<&str> =
        records.values().map(|record| record.document.key.as_str()).collect();
    let telemetry: BTreeSet<String> = records
        .values()
        .map(|record| names::telemetry_key(sweep, &record.cell, &record.attempt))
        .collect();
    let fixed = [
        "sweep.json",
        "reviews.toml",
        "report.md",
        "report.html",
        "report.json",
        &plan.sweep.summary,
    ];

    let of_planned_cell = |name: &str| {
        let id = name.split('.').next().and_then(CellId::parse);
        id.is_some_and(|id| cells.contains(&id))
    };
    let open_cell = |name: &str| {
        let id = name.split('.').next().and_then(CellId::parse);
        id.is_some_and(|id| cells.contains(&id) && !records.contains_key(&id))
    };
    let open_stems: BTreeSet<&str> = plan
        .cells()
        .filter(|planned| !records.contains_key(&planned.cell.id))
        .map(|planned| planned.cell.file_stem.as_str())
        .collect();
    // `<stem>__<date>_<time>.md`, and the stem may hold `__` too.
    let open_document = |name: &str| {
        let stem = name.strip_suffix(".md").and_then(|name| name.rsplit_once("__"));
        stem.is_some_and(|(stem, _)| open_stems.contains(stem))
    };
    keys.iter()
        .filter(|key| {
            let Some(rest) = key.strip_prefix(&folder) else { return false };
            let belongs = match rest.split_once('/') {
                None => {
                    fixed.contains(&rest) || documents.contains(key.as_str()) || open_document(rest)
                }
                Some(("metrics" | "failed" | "checks", name)) => of_planned_cell(name),
                Some(("telemetry", name)) => telemetry.contains(*key) || open_cell(name),
                Some(_) => false,
            };
            !belongs
        })
        .cloned()
        .collect()
}
