//! A store that the previous version wrote is collected by this one; what a later version wrote is
//! a problem.

use std::path::Path;
use std::sync::Arc;

use bakeoff_proto::{CellId, SCHEMA_VERSION, SweepName, names};
use bakeoff_transport::store;
use object_store::ObjectStore;

use super::read;
use crate::plan::Plan;

/// `tests/previous/old`, as an object store.
async fn previous() -> (Arc<dyn ObjectStore>, SweepName) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/previous");
    let objects = store::memory();
    let mut folders = vec![root.join("old")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let key = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                let bytes = std::fs::read(&path).unwrap();
                store::write(objects.as_ref(), &key, bytes.into()).await.unwrap();
            }
        }
    }
    (objects, "old".parse().unwrap())
}

#[tokio::test]
async fn what_the_previous_version_stored_is_collected() {
    let (objects, name) = previous().await;
    let collected = read::collect(objects, &name).await.unwrap();
    assert_eq!(collected.problems, Vec::<String>::new());
    assert_eq!(collected.orphans, Vec::<String>::new());
    assert_eq!((collected.records.len(), collected.failures.len()), (1, 1));
}

#[tokio::test]
async fn what_a_later_version_stored_is_reported_with_the_next_step() {
    let (objects, name) = previous().await;
    let cell = CellId::parse("3a53fcd46b76dd88").unwrap();
    let key = names::record_key(&name, &cell);
    let bytes = store::read(objects.as_ref(), &key).await.unwrap().unwrap();
    let later = SCHEMA_VERSION + 1;
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let text = text.replace("\"schema_version\": 1,", &format!("\"schema_version\": {later},"));
    store::write(objects.as_ref(), &key, text.into()).await.unwrap();
    let collected = read::collect(objects.clone(), &name).await.unwrap();
    let problem = format!(
        "{key} has schema version {later}, this coordinator reads up to {SCHEMA_VERSION}: update it"
    );
    assert_eq!(collected.problems, [problem]);
    // Its document must not be pruned for want of a record that can be read.
    assert_eq!(collected.orphans, Vec::<String>::new());

    let plan = store::read(objects.as_ref(), &names::plan_key(&name)).await.unwrap().unwrap();
    let text = String::from_utf8(plan.to_vec()).unwrap();
    let text = text.replacen("\"schema_version\": 1,", &format!("\"schema_version\": {later},"), 1);
    let refused = Plan::from_json(text.as_bytes()).unwrap_err().to_string();
    assert!(refused.contains(&later.to_string()) && refused.contains("update"), "{refused}");
}
