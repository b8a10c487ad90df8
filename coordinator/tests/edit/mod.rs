//! Changes what a worker by script has stored.

// Each test binary uses its own part of this.
#![allow(dead_code)]

use bakeoff_coordinator::plan::Plan;
use bakeoff_proto::{Cell, Job, MetricsRecord, digest, document, names};
use bakeoff_transport::store;
use object_store::ObjectStore;

use crate::common;

/// Freezes the plan of a sweep and finishes each of its cells; `edit` has the last word on each
/// record and may give another output.
pub async fn finished(
    objects: &dyn ObjectStore,
    text: &str,
    folder: &std::path::Path,
    mut edit: impl FnMut(&Job, &Cell, &mut MetricsRecord) -> Option<String>,
) -> Plan {
    let plan = common::freeze(objects, text, folder).await;
    for planned in &plan.jobs {
        for cell in &planned.job.cells {
            common::finish(objects, &planned.job, cell).await;
            let key = names::record_key(&planned.job.sweep, &cell.id);
            let json = store::read(objects, &key).await.expect("read").expect("it was stored");
            let mut record: MetricsRecord = serde_json::from_slice(&json).expect("a record");
            if let Some(output) = edit(&planned.job, cell, &mut record) {
                let text = document::render(&record.model, &[], &cell.prompt, &output);
                record.document.sha256 = digest::sha256_hex(text.as_bytes());
                record.document.output_bytes = output.len() as u64;
                store::write(objects, &record.document.key, text.into()).await.expect("document");
            }
            let json = serde_json::to_vec(&record).expect("a record serialises");
            store::write(objects, &key, json.into()).await.expect("record");
        }
    }
    plan
}
