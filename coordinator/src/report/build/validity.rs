//! About which variants something may be concluded. Decided here once; quality, ranks, dominance
//! and insights ask for the result.

use std::collections::BTreeMap;

use bakeoff_model::LoadFormat;
use bakeoff_proto::{FinishReason, MetricsRecord};

use crate::collect::Collected;
use crate::report::model::Invalid;

/// The variants about which nothing is concluded, by name, each with its reason.
#[derive(Debug, Default)]
pub struct Validity(BTreeMap<String, Invalid>);

impl Validity {
    /// Looks at every variant's records.
    pub fn of(collected: &Collected) -> Self {
        let mut records: BTreeMap<String, Vec<&MetricsRecord>> = BTreeMap::new();
        for row in &collected.rows {
            records.entry(collected.variant_name(row)).or_default().extend(collected.record(row));
        }
        Self(records.into_iter().filter_map(|(name, of)| Some((name, reason(&of)?))).collect())
    }

    /// Why nothing is concluded about this variant; `None` where something may be.
    pub fn invalid(&self, variant: &str) -> Option<Invalid> {
        self.0.get(variant).copied()
    }
}

fn reason(records: &[&MetricsRecord]) -> Option<Invalid> {
    let inside_thinking = |r: &&MetricsRecord| r.output.think_closed == Some(false);
    let cut = |r: &&MetricsRecord| r.output.finish_reason == FinishReason::Length;
    if records.is_empty() {
        Some(Invalid::NoOutput)
    } else if records.iter().any(|r| r.engine_settings.load_format == LoadFormat::Dummy) {
        Some(Invalid::RandomWeights)
    } else if records.iter().all(inside_thinking) {
        Some(Invalid::InsideThinking)
    } else if records.iter().all(|r| cut(r) || inside_thinking(r)) {
        Some(Invalid::Truncated)
    } else {
        None
    }
}
