//! Documents of the schema version before: what an old worker or coordinator wrote is read for as long
//! as it lies in a store or a queue. `previous/` holds real ones, written by version 0.1.0 (schema 1).
//! A change that breaks these tests needs a new `SCHEMA_VERSION`, a reader for the old one, and these
//! files beside those of the new version.

use bakeoff_proto::{Attempt, Failure, Job, JobEvent, MetricsRecord, SCHEMA_VERSION};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Reads `text` as it is, with fields that it does not know, and without those that are null.
fn tolerant<T: DeserializeOwned + PartialEq + std::fmt::Debug>(text: &str) -> T {
    let original: T = serde_json::from_str(text).expect("the document of the previous version");
    let value: Value = serde_json::from_str(text).expect("JSON");
    let mut extended = value.clone();
    extend(&mut extended);
    assert_ne!(extended, value);
    let read: T = serde_json::from_value(extended).expect("unknown fields are ignored");
    assert_eq!(read, original);
    let mut shortened = value;
    shorten(&mut shortened);
    let read: T = serde_json::from_value(shortened).expect("what is null may be absent");
    assert_eq!(read, original);
    original
}

/// Puts a field of a later version into every object.
fn extend(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(extend);
            fields.insert("of_a_later_version".into(), json!({ "x": [1, null] }));
        }
        Value::Array(items) => items.iter_mut().for_each(extend),
        _ => {}
    }
}

fn shorten(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(shorten);
        }
        Value::Array(items) => items.iter_mut().for_each(shorten),
        _ => {}
    }
}

#[test]
fn every_document_of_the_previous_version_is_read() {
    let record: MetricsRecord = tolerant(include_str!("previous/record.json"));
    assert_eq!((record.schema_version, record.metrics.tokens_generated), (1, 8));
    assert_eq!(record.metrics.gpu_free_gb, None);
    let failure: Failure = tolerant(include_str!("previous/failure.json"));
    assert_eq!(failure.kind.as_str(), "context_overflow");
    let job: Job = tolerant(include_str!("previous/job.json"));
    // What identifies a cell must not change, or old records would belong to nobody.
    for cell in &job.cells {
        assert_eq!(cell.identity(&job.model, &job.engine), cell.id);
    }
    assert_eq!(Job::identity(&job.model, &job.engine, &job.cells), job.id);
    let attempt: Attempt = tolerant(include_str!("previous/attempt.json"));
    assert_eq!(attempt.number, 1);
    let _: JobEvent = tolerant(include_str!("previous/event.json"));
    assert!(record.schema_version <= SCHEMA_VERSION && job.schema_version <= SCHEMA_VERSION);
}
