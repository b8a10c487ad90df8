//! Writes what a job leaves in the store, through outages, in the order that makes a record mean
//! completion.

use std::collections::HashSet;
use std::time::Duration;

use bakeoff_proto::record::DocumentRef;
use bakeoff_proto::{
    CellId, Failure, FailureKind, Job, Metrics, MetricsRecord, SCHEMA_VERSION, digest, document,
    names,
};
use bakeoff_transport::store::{self, Created, StoreError};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use object_store::ObjectStore;

use super::progress::Progress;
use crate::record::CellResult;

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Tries a write until it succeeds, the error is one that waiting does not cure, or the job is
/// halted. Each try counts as movement, so that the lease is kept through an outage.
pub(super) async fn through_outages<'a, T>(
    progress: &Progress,
    what: &str,
    attempt: impl Fn() -> BoxFuture<'a, Result<T, StoreError>> + Send + Sync,
) -> Result<T, StoreError> {
    let mut pause = FIRST_PAUSE;
    loop {
        progress.touched();
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) if !error.is_transient() || progress.halted().is_some() => {
                return Err(error);
            }
            Err(error) => {
                progress.store_retried();
                tracing::warn!(%error, what, "the store is tried again");
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Cells of the job that need no more work: a record, or a failure of this generation.
pub(super) async fn closed_cells(
    store: &dyn ObjectStore,
    progress: &Progress,
    job: &Job,
) -> Result<HashSet<CellId>, StoreError> {
    let mut closed = HashSet::new();
    let suffix = format!(".{}.json", job.generation);
    for (folder, suffix) in [
        (names::records_prefix(&job.sweep), ".json"),
        (names::failures_prefix(&job.sweep), suffix.as_str()),
    ] {
        let listed =
            through_outages(progress, "listing", || store::list(store, &folder).boxed()).await?;
        let cell = |name: &str| CellId::parse(name.strip_suffix(suffix)?);
        closed.extend(listed.iter().filter_map(|meta| cell(meta.location.filename()?)));
    }
    Ok(job.cells.iter().map(|cell| cell.id.clone()).filter(|id| closed.contains(id)).collect())
}

/// Stores the telemetry and the markdown of a finished cell. Returns the record that is to name
/// them.
pub(super) async fn store_documents(
    store: &dyn ObjectStore,
    progress: &Progress,
    mut result: CellResult<'_>,
    telemetry_csv: String,
) -> Result<MetricsRecord, StoreError> {
    let metrics: Metrics = result.metrics();
    let (sweep, cell) = (&result.job.sweep, result.cell);
    let csv_key = names::telemetry_key(sweep, &cell.id, &result.attempt.id);
    let csv = Bytes::from(telemetry_csv);
    through_outages(progress, "telemetry", || store::write(store, &csv_key, csv.clone()).boxed())
        .await?;
    let document = loop {
        let text = result.markdown(&metrics);
        let key = format!("{sweep}/{}", document::file_name(&cell.file_stem, result.started_at));
        let reference = DocumentRef {
            key: key.clone(),
            sha256: digest::sha256_hex(text.as_bytes()),
            output_bytes: result.output.text.len() as u64,
        };
        let bytes = Bytes::from(text);
        let created = through_outages(progress, "markdown", || {
            store::create_if_absent(store, &key, bytes.clone()).boxed()
        })
        .await?;
        match created {
            Created::Ours => break reference,
            // Another cell of the same name started in the same second.
            Created::AlreadyThere => {
                result.started_at += jiff::SignedDuration::from_secs(1);
            }
        }
    };
    Ok(result.record(metrics, document))
}

/// Stores the record, which makes the cell done. `AlreadyThere` when another attempt was faster.
pub(super) async fn store_record(
    store: &dyn ObjectStore,
    progress: &Progress,
    record: &MetricsRecord,
) -> Result<Created, StoreError> {
    let json = Bytes::from(json(record));
    let key = names::record_key(&record.sweep, &record.cell);
    let created = through_outages(progress, "record", || {
        store::create_if_absent(store, &key, json.clone()).boxed()
    })
    .await?;
    if created == Created::AlreadyThere {
        tracing::warn!(
            cell = %record.cell,
            "another attempt has recorded this cell; ours is discarded"
        );
    }
    Ok(created)
}

/// Removes the files that a record of ours would have named.
pub(super) async fn discard(
    store: &dyn ObjectStore,
    progress: &Progress,
    record: &MetricsRecord,
) -> Result<(), StoreError> {
    let telemetry = names::telemetry_key(&record.sweep, &record.cell, &record.attempt);
    for key in [&record.document.key, &telemetry] {
        through_outages(progress, "discarding", || store::remove(store, key).boxed()).await?;
    }
    Ok(())
}

/// Why cells have no record, and who found out.
pub(super) struct Verdict<'a> {
    pub job: &'a Job,
    pub kind: FailureKind,
    pub message: &'a str,
    pub attempt: Option<&'a bakeoff_proto::Attempt>,
    pub worker: &'a str,
}

/// Writes one failure file a cell. A file that is there already stays: it was first.
pub(super) async fn store_failures(
    store: &dyn ObjectStore,
    progress: &Progress,
    verdict: &Verdict<'_>,
    cells: &[CellId],
) -> Result<(), StoreError> {
    for cell in cells {
        let failure = Failure {
            schema_version: SCHEMA_VERSION,
            sweep: verdict.job.sweep.clone(),
            cell: cell.clone(),
            job: verdict.job.id.clone(),
            generation: verdict.job.generation,
            kind: verdict.kind,
            message: verdict.message.to_owned(),
            attempt: verdict.attempt.map(|attempt| attempt.id.clone()),
            attempts: verdict.attempt.map_or(0, |attempt| attempt.number),
            worker: Some(verdict.worker.to_owned()),
            failed_at: Timestamp::now(),
        };
        let bytes = Bytes::from(json(&failure));
        let key = names::failure_key(&verdict.job.sweep, cell, verdict.job.generation);
        through_outages(progress, "failure", || {
            store::create_if_absent(store, &key, bytes.clone()).boxed()
        })
        .await?;
    }
    Ok(())
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value)
        .expect("records and failures hold only strings, numbers and lists");
    bytes.push(b'\n');
    bytes
}
