//! What the store holds of a sweep, parsed and checked against itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bakeoff_proto::{
    CellId, CellStatus, Failure, MetricsRecord, SCHEMA_VERSION, SweepName, digest, document, names,
};
use bakeoff_transport::store::{self, StoreError};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStore;
use serde::de::DeserializeOwned;

use super::{Collected, orphans, rows};
use crate::plan::{Plan, PlanError};

/// Objects read at once.
const PARALLEL: usize = 16;

/// Why a sweep cannot be read from the store.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("unknown sweep `{name}`{}", hint(.known))]
    NoSuchSweep { name: SweepName, known: Vec<String> },
    #[error("sweep.json of `{name}`")]
    Plan {
        name: SweepName,
        #[source]
        source: PlanError,
    },
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn hint(known: &[String]) -> String {
    match known {
        [] => ": the store holds no sweeps; check --store, or submit one first".to_owned(),
        names => format!("; the store holds {}", names.join(", ")),
    }
}

/// The plan of a sweep.
pub async fn plan(store: &dyn ObjectStore, name: &SweepName) -> Result<Plan, ReadError> {
    match store::read(store, &names::plan_key(name)).await? {
        Some(bytes) => {
            Plan::from_json(&bytes).map_err(|source| ReadError::Plan { name: name.clone(), source })
        }
        None => {
            let known = sweeps(store).await?.iter().map(SweepName::to_string).collect();
            Err(ReadError::NoSuchSweep { name: name.clone(), known })
        }
    }
}

/// Every sweep in the store, by name.
pub async fn sweeps(store: &dyn ObjectStore) -> Result<Vec<SweepName>, ReadError> {
    let listing = store
        .list_with_delimiter(None)
        .await
        .map_err(|error| StoreError::at(store, "listing the sweeps", error))?;
    let mut found = Vec::new();
    for folder in listing.common_prefixes {
        let Some(Ok(name)) = folder.parts().next_back().map(|p| p.as_ref().parse::<SweepName>())
        else {
            continue;
        };
        if store::exists(store, &names::plan_key(&name)).await? {
            found.push(name);
        }
    }
    found.sort();
    Ok(found)
}

/// Which cells have a record, and the latest generation at which each cell failed: enough to know
/// what is open, without reading a record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Cells with a record.
    pub recorded: BTreeSet<CellId>,
    /// The latest generation at which each cell failed.
    pub failed: BTreeMap<CellId, u32>,
}

/// Lists records and failures of a sweep; two listings, whatever its size.
pub async fn progress(store: &dyn ObjectStore, name: &SweepName) -> Result<Progress, StoreError> {
    let mut progress = Progress::default();
    for key in list(store, &names::records_prefix(name)).await? {
        if let Some((cell, _)) = parse_name(&key) {
            progress.recorded.insert(cell);
        }
    }
    for key in list(store, &names::failures_prefix(name)).await? {
        if let Some((cell, Some(generation))) = parse_name(&key) {
            let latest = progress.failed.entry(cell).or_default();
            *latest = generation.max(*latest);
        }
    }
    Ok(progress)
}

/// The status of every cell in sweep order, without reading a record: only the failures of cells
/// that have none are read, to distinguish failed from cancelled.
pub async fn statuses(store: &dyn ObjectStore, plan: &Plan) -> Result<Vec<CellStatus>, ReadError> {
    let name = &plan.sweep.name;
    let progress = progress(store, name).await?;
    let mut statuses = Vec::with_capacity(plan.cell_count());
    for planned in plan.cells() {
        let cell = &planned.cell.id;
        let status = match progress.failed.get(cell) {
            _ if progress.recorded.contains(cell) => CellStatus::Done,
            None => CellStatus::Pending,
            Some(generation) => {
                let key = names::failure_key(name, cell, *generation);
                let bytes = store::read(store, &key).await?.unwrap_or_default();
                // A failure that does not parse still is one.
                parse::<Failure>(&key, &bytes)
                    .map_or(CellStatus::Failed, |failure| CellStatus::of(false, Some(&failure)))
            }
        };
        statuses.push(status);
    }
    Ok(statuses)
}

/// Reads everything.
pub async fn collect(
    store: Arc<dyn ObjectStore>,
    name: &SweepName,
) -> Result<Collected, ReadError> {
    let plan = plan(store.as_ref(), name).await?;
    let keys = list(store.as_ref(), name.as_str()).await?;
    let mut problems = Vec::new();

    let planned: BTreeSet<&CellId> = plan.cells().map(|planned| &planned.cell.id).collect();
    let (mut record_keys, mut failure_keys) = (Vec::new(), Vec::new());
    for key in &keys {
        match (parse_name(key), key.split('/').nth(1)) {
            (Some((cell, None)), Some("metrics")) if planned.contains(&cell) => {
                record_keys.push(key.clone());
            }
            (Some((cell, Some(_))), Some("failed")) if planned.contains(&cell) => {
                failure_keys.push(key.clone());
            }
            _ => {}
        }
    }
    let stored_records = record_keys.len();
    let mut records = BTreeMap::new();
    for (key, bytes) in get_all(&store, record_keys).await? {
        match parse::<MetricsRecord>(&key, &bytes) {
            Ok(record) if names::record_key(name, &record.cell) == key => {
                records.insert(record.cell.clone(), record);
            }
            Ok(record) => problems.push(format!("{key} is the record of cell {}", record.cell)),
            Err(problem) => problems.push(problem),
        }
    }
    let mut failures: BTreeMap<CellId, Vec<Failure>> = BTreeMap::new();
    for (key, bytes) in get_all(&store, failure_keys).await? {
        match parse::<Failure>(&key, &bytes) {
            Ok(failure) => failures.entry(failure.cell.clone()).or_default().push(failure),
            Err(problem) => problems.push(problem),
        }
    }
    for history in failures.values_mut() {
        history.sort_by_key(|failure| failure.generation);
    }

    let outputs = read_outputs(&store, &records, &mut problems).await?;
    let telemetry = read_telemetry(&store, name, &records, &keys).await?;
    let checks = read_checks(&store, name, &records, &keys).await?;
    let text = |bytes: Bytes| String::from_utf8_lossy(&bytes).into_owned();
    let reviews = store::read(store.as_ref(), &names::reviews_key(name)).await?.map(text);
    let mut orphans = orphans::find(&plan, &records, &keys);
    if records.len() < stored_records {
        // A record that cannot be read may name any of these.
        orphans.retain(|key| !key.ends_with(".md"));
    }
    let rows = rows(&plan, &records, &failures);
    problems.sort();
    Ok(Collected {
        plan,
        rows,
        records,
        failures,
        outputs,
        telemetry,
        checks,
        reviews,
        orphans,
        problems,
    })
}

async fn read_outputs(
    store: &Arc<dyn ObjectStore>,
    records: &BTreeMap<CellId, MetricsRecord>,
    problems: &mut Vec<String>,
) -> Result<BTreeMap<CellId, String>, StoreError> {
    let read: Vec<_> = stream::iter(records.values())
        .map(|record| async move {
            let bytes = store::read(store.as_ref(), &record.document.key).await?;
            Ok::<_, StoreError>((record, bytes))
        })
        .buffered(PARALLEL)
        .try_collect()
        .await?;
    let mut outputs = BTreeMap::new();
    for (record, bytes) in read {
        let key = &record.document.key;
        let Some(bytes) = bytes else {
            problems.push(format!(
                "{key} is missing, although the record of cell {} names it",
                record.cell
            ));
            continue;
        };
        if digest::sha256_hex(&bytes) != record.document.sha256 {
            problems.push(format!(
                "{key} is not as it was stored: its SHA-256 differs from the record's"
            ));
        }
        let text = String::from_utf8_lossy(&bytes);
        match document::output(&text, record.document.output_bytes) {
            Some(output) => {
                outputs.insert(record.cell.clone(), output.to_owned());
            }
            None => problems.push(format!("{key} is shorter than the output named in its record")),
        }
    }
    Ok(outputs)
}

async fn read_telemetry(
    store: &Arc<dyn ObjectStore>,
    name: &SweepName,
    records: &BTreeMap<CellId, MetricsRecord>,
    keys: &BTreeSet<String>,
) -> Result<BTreeMap<CellId, String>, StoreError> {
    let wanted = records.values().map(|record| {
        (names::telemetry_key(name, &record.cell, &record.attempt), record.cell.clone())
    });
    read_texts(store, wanted.filter(|(key, _)| keys.contains(key)).collect()).await
}

async fn read_checks(
    store: &Arc<dyn ObjectStore>,
    name: &SweepName,
    records: &BTreeMap<CellId, MetricsRecord>,
    keys: &BTreeSet<String>,
) -> Result<BTreeMap<CellId, String>, StoreError> {
    let wanted = records.keys().map(|cell| (names::check_key(name, cell), cell.clone()));
    read_texts(store, wanted.filter(|(key, _)| keys.contains(key)).collect()).await
}

async fn read_texts(
    store: &Arc<dyn ObjectStore>,
    wanted: BTreeMap<String, CellId>,
) -> Result<BTreeMap<CellId, String>, StoreError> {
    let texts = get_all(store, wanted.keys().cloned().collect()).await?;
    let text = |bytes: Bytes| String::from_utf8_lossy(&bytes).into_owned();
    Ok(texts.into_iter().map(|(key, bytes)| (wanted[&key].clone(), text(bytes))).collect())
}

fn parse<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, String> {
    let value: serde_json::Value =
        serde_json::from_slice(bytes).map_err(|error| format!("{key} is not JSON: {error}"))?;
    let version = value.get("schema_version").and_then(serde_json::Value::as_u64);
    if let Some(version) = version.filter(|version| *version > u64::from(SCHEMA_VERSION)) {
        return Err(format!(
            "{key} has schema version {version}, this coordinator reads up to {SCHEMA_VERSION}: \
            update it"
        ));
    }
    serde_json::from_value(value).map_err(|error| format!("{key} does not parse: {error}"))
}

/// `…/<cell>.json` or `…/<cell>.<generation>.json`.
fn parse_name(key: &str) -> Option<(CellId, Option<u32>)> {
    let stem = key.rsplit('/').next()?.strip_suffix(".json")?;
    match stem.split_once('.') {
        None => Some((CellId::parse(stem)?, None)),
        Some((cell, generation)) => Some((CellId::parse(cell)?, Some(generation.parse().ok()?))),
    }
}

/// All keys below a folder.
pub async fn list(store: &dyn ObjectStore, folder: &str) -> Result<BTreeSet<String>, StoreError> {
    let found = store::list(store, folder).await?;
    Ok(found.into_iter().map(|meta| meta.location.to_string()).collect())
}

/// Several objects, in the order of their keys; those that vanished meanwhile are left out.
async fn get_all(
    store: &Arc<dyn ObjectStore>,
    keys: Vec<String>,
) -> Result<Vec<(String, Bytes)>, StoreError> {
    let read: Vec<_> = stream::iter(keys)
        .map(|key| async move {
            let bytes = store::read(store.as_ref(), &key).await?;
            Ok::<_, StoreError>(bytes.map(|bytes| (key, bytes)))
        })
        .buffered(PARALLEL)
        .try_collect()
        .await?;
    Ok(read.into_iter().flatten().collect())
}
