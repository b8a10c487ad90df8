//! Writes what collecting made: the CSV and the report, beside the files they are made from.

use std::sync::Arc;

use bakeoff_proto::SweepName;
use bakeoff_transport::store;
use object_store::ObjectStore;

use crate::collect::read::{self, ReadError};
use crate::collect::{Collected, csv};
use crate::report;
use crate::sweep::ReportRules;

/// A file that was made: its key in the store and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// In the store.
    pub key: String,
    /// The whole file.
    pub text: String,
}

/// The CSV first, then the report: as a page, as markdown and as data.
pub fn render(collected: &Collected) -> Vec<Output> {
    let sweep = &collected.plan.sweep;
    let output = |file: &str, text| Output { key: format!("{}/{file}", sweep.name), text };
    let documents = report::documents(collected);
    vec![
        output(&sweep.summary, csv::render(collected)),
        output("report.html", documents.html),
        output("report.md", documents.markdown),
        output("report.json", documents.json),
    ]
}

/// Collects a sweep and stores CSV and report, by the rules that were frozen with its plan.
pub async fn collect_and_store(
    objects: &Arc<dyn ObjectStore>,
    name: &SweepName,
) -> Result<(Collected, Vec<Output>), ReadError> {
    collect_by_rules(objects, name, None).await
}

/// The same by other rules, if they are given: how a report judges may change after its sweep ran.
/// What is unchanged is not written again.
pub async fn collect_by_rules(
    objects: &Arc<dyn ObjectStore>,
    name: &SweepName,
    rules: Option<ReportRules>,
) -> Result<(Collected, Vec<Output>), ReadError> {
    let mut collected = read::collect(Arc::clone(objects), name).await?;
    if let Some(rules) = rules {
        collected.plan.sweep.report = rules;
    }
    let outputs = render(&collected);
    for output in &outputs {
        let stored = store::read(objects.as_ref(), &output.key).await?;
        if stored.as_deref() != Some(output.text.as_bytes()) {
            store::write(objects.as_ref(), &output.key, output.text.clone().into()).await?;
        }
    }
    Ok((collected, outputs))
}
