//! What must be alike for two cells to be compared, and the refusal that names what is not.

use std::collections::BTreeMap;

use bakeoff_proto::MetricsRecord;

use super::Refused;
use crate::collect::{Collected, Row};

/// What must be alike in both sweeps unless `--across` names it.
pub const FIELDS: [&str; 17] = [
    "model",
    "engine",
    "prompt",
    "format",
    "generation",
    "rubric",
    "weights",
    "tokenizer",
    "template",
    "build",
    "dtype",
    "device",
    "driver",
    "flash_attn",
    "tf32",
    "reduced_precision_reduction",
    "cuda_graph",
];

/// The fields that may differ.
#[derive(Debug, Clone, Copy)]
pub struct Across<'a>(&'a [String]);

impl<'a> Across<'a> {
    /// # Errors
    /// A field that sweeps do not have.
    pub fn new(fields: &'a [String]) -> Result<Self, Refused> {
        match fields.iter().find(|field| !FIELDS.contains(&field.as_str())) {
            Some(found) => Err(Refused::UnknownField { found: found.clone() }),
            None => Ok(Self(fields)),
        }
    }

    /// Whether `--across` names the field itself.
    pub fn has(self, field: &str) -> bool {
        self.0.iter().any(|named| named == field)
    }

    /// Another model has other weights: naming the model names what comes with it.
    fn allows(self, field: &str) -> bool {
        let of_model = matches!(field, "weights" | "tokenizer" | "template" | "format");
        self.has(field) || of_model && self.has("model")
    }
}

/// By what a cell finds its partner.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub model: String,
    pub engine: String,
    pub prompt: String,
    pub run: u32,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for part in [&self.model, &self.engine].into_iter().filter(|part| !part.is_empty()) {
            write!(f, "{part} ")?;
        }
        write!(f, "{} run {}", self.prompt, self.run)
    }
}

/// A finished cell.
#[derive(Debug, Clone, Copy)]
pub struct Cell<'a> {
    /// Its place among the rows.
    pub index: usize,
    pub row: &'a Row,
    pub record: &'a MetricsRecord,
}

/// The finished cells of a sweep by key; refused where two have the same.
pub fn by_key<'a>(
    collected: &'a Collected,
    across: Across<'_>,
) -> Result<BTreeMap<Key, Cell<'a>>, Refused> {
    let mut found: BTreeMap<Key, Cell<'a>> = BTreeMap::new();
    for (index, row) in collected.rows.iter().enumerate() {
        let Some(record) = collected.record(row) else { continue };
        let key = Key {
            model: if across.has("model") { String::new() } else { row.model.clone() },
            engine: if across.has("engine") { String::new() } else { row.engine.as_str().into() },
            prompt: row.prompt_id.clone(),
            run: row.run,
        };
        if let Some(other) = found.get(&key) {
            return Err(Refused::Ambiguous {
                sweep: collected.plan.sweep.name.to_string(),
                first: format!("{} on {}", other.row.model, other.row.engine.as_str()),
                second: format!("{} on {}", row.model, row.engine.as_str()),
                cell: key.to_string(),
            });
        }
        found.insert(key, Cell { index, row, record });
    }
    Ok(found)
}

/// Refuses a pair that differs in a field nobody named.
pub fn check(
    key: &Key,
    (a, x): (&Collected, Cell<'_>),
    (b, y): (&Collected, Cell<'_>),
    across: Across<'_>,
) -> Result<(), Refused> {
    let mine = facts(a, x);
    for ((field, a), (_, b)) in mine.into_iter().zip(facts(b, y)) {
        if a != b && !across.allows(field) {
            let (a, b) = differing_parts(&a, &b);
            return Err(Refused::Unlike { field, a, b, cell: key.to_string() });
        }
    }
    Ok(())
}

fn facts(collected: &Collected, cell: Cell<'_>) -> [(&'static str, String); 16] {
    let (record, print) = (cell.record, &cell.record.fingerprint);
    let prompt = collected.plan.sweep.prompts.iter().find(|p| p.id == cell.row.prompt_id);
    let resolved = &record.resolved;
    // What was asked for, and what a model's own generation configuration made of it.
    let generation = serde_json::json!([
        record.generation_settings,
        resolved.temperature,
        resolved.top_p,
        resolved.top_k,
        resolved.min_p,
        resolved.repetition_penalty,
        resolved.greedy,
    ]);
    [
        ("engine", print.engine.clone()),
        (
            "prompt",
            prompt
                .map_or_else(String::new, |p| format!("{}\n{:?}\n{:?}", p.text, p.system, p.task)),
        ),
        ("format", format!("{}, thinking {}", resolved.format.as_str(), json(&resolved.thinking))),
        ("generation", generation.to_string()),
        ("rubric", prompt.map_or_else(String::new, |p| json(&p.rubric))),
        ("weights", print.weights_sha256.clone()),
        ("tokenizer", print.tokenizer_sha256.clone()),
        ("template", print.template_sha256.clone()),
        ("build", print.build.clone()),
        ("dtype", print.dtype.clone()),
        ("device", print.device.clone()),
        ("driver", print.driver.clone()),
        ("flash_attn", print.flash_attn.clone()),
        ("tf32", print.tf32.clone()),
        ("reduced_precision_reduction", print.reduced_precision_reduction.clone()),
        ("cuda_graph", print.cuda_graph.clone()),
    ]
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("settings serialise to JSON")
}

/// Two long values around the place where they part.
fn differing_parts(a: &str, b: &str) -> (String, String) {
    const BEFORE: usize = 20;
    const AFTER: usize = 40;
    let same = a.chars().zip(b.chars()).take_while(|(x, y)| x == y).count();
    let part = |text: &str| {
        let length = text.chars().count();
        if length <= BEFORE + AFTER {
            return text.to_owned();
        }
        let start = same.saturating_sub(BEFORE);
        let shown: String = text.chars().skip(start).take(BEFORE + AFTER).collect();
        let (before, after) = (
            if start > 0 { "…" } else { "" },
            if start + BEFORE + AFTER < length { "…" } else { "" },
        );
        format!("{before}{shown}{after}")
    };
    (part(a).replace('\n', "⏎"), part(b).replace('\n', "⏎"))
}
