//! Finished sweeps for unit tests, made without a worker.

use std::collections::BTreeMap;
use std::path::Path;

use bakeoff_model::{Format, Thinking};
use bakeoff_proto::record::{
    DeviceFacts, DocumentRef, Fingerprint, MemoryFacts, OutputFacts, Resolved,
};
use bakeoff_proto::{AttemptId, FinishReason, Metrics, MetricsRecord, SCHEMA_VERSION};

use crate::collect::{self, Collected};
use crate::plan::{Plan, PlannedCell, Revisions};
use crate::review::{self, Review, Reviews};

/// A generation to be put into a sweep.
#[derive(Debug, Clone)]
pub struct Made {
    pub output: String,
    pub tokens: u32,
    pub tok_per_s: f64,
    pub time_s: f64,
    pub memory_gb: f64,
    pub finish: FinishReason,
}

impl Made {
    pub fn new(output: &str) -> Self {
        Self {
            output: output.to_owned(),
            tokens: 100,
            tok_per_s: 10.0,
            time_s: 10.0,
            memory_gb: 1.0,
            finish: FinishReason::Stop,
        }
    }
}

pub fn sweep(text: &str) -> Plan {
    let sweep = crate::sweep::parse(text, "sweep.toml", Path::new("")).expect("a valid sweep");
    Plan::build(sweep, Revisions::new()).expect("a plan")
}

/// A sweep in which each cell came out as `made` says; `None` leaves it pending.
pub fn collected(plan: Plan, made: impl Fn(&str, &str, u32) -> Option<Made>) -> Collected {
    let mut records = BTreeMap::new();
    let mut outputs = BTreeMap::new();
    for planned in plan.cells() {
        let cell = planned.cell;
        let Some(made) = made(planned.model_name, &cell.prompt_id, cell.run) else { continue };
        records.insert(cell.id.clone(), record(&plan, planned, &made));
        outputs.insert(cell.id.clone(), made.output);
    }
    let failures = BTreeMap::new();
    let rows = collect::rows(&plan, &records, &failures);
    Collected {
        plan,
        rows,
        records,
        failures,
        outputs,
        telemetry: BTreeMap::new(),
        checks: BTreeMap::new(),
        reviews: None,
        orphans: Vec::new(),
        problems: Vec::new(),
    }
}

pub fn record(plan: &Plan, planned: PlannedCell<'_>, made: &Made) -> MetricsRecord {
    let cell = planned.cell;
    MetricsRecord {
        schema_version: SCHEMA_VERSION,
        sweep: plan.sweep.name.clone(),
        cell: cell.id.clone(),
        job: planned.job.id.clone(),
        generation: 1,
        attempt: serde_json::from_str::<AttemptId>("\"0123456789abcdef\"").expect("an id"),
        worker: "w".into(),
        model: planned.job.model.display_id(),
        source: planned.job.model.source.clone(),
        prompt_id: cell.prompt_id.clone(),
        run: cell.run,
        seed: cell.seed,
        started_at: "2026-11-24T00:00:00Z".parse().expect("a time"),
        document: DocumentRef {
            key: format!("{}/{}.md", plan.sweep.name, cell.id),
            sha256: "0".repeat(64),
            output_bytes: made.output.len() as u64,
        },
        resolved: Resolved {
            format: Format::Instruct,
            thinking: Thinking::Auto,
            engine: "reference".into(),
            temperature: 0.7,
            top_p: 0.9,
            top_k: None,
            min_p: None,
            repetition_penalty: 1.0,
            greedy: false,
        },
        generation_settings: cell.generation.clone(),
        engine_settings: planned.job.engine.clone(),
        fingerprint: Fingerprint {
            weights_sha256: String::new(),
            tokenizer_sha256: String::new(),
            template_sha256: String::new(),
            build: "0.1.0".into(),
            engine: "reference".into(),
            dtype: "bf16".into(),
            device: "NVIDIA H100 NVL".into(),
            driver: "550".into(),
            flash_attn: "on".into(),
            tf32: "on".into(),
            reduced_precision_reduction: "on".into(),
            cuda_graph: "on".into(),
        },
        metrics: Metrics {
            flash_attn: true,
            tokens_generated: made.tokens,
            tok_per_s: made.tok_per_s,
            time_s: made.time_s,
            model_memory_gb: made.memory_gb,
            ..Metrics::default()
        },
        output: OutputFacts {
            finish_reason: made.finish,
            thinking_tokens: 0,
            answer_tokens: made.tokens,
            think_closed: None,
            has_code: true,
        },
        memory: MemoryFacts::default(),
        device: DeviceFacts::default(),
        inter_token_ms: Vec::new(),
        mismatches: Vec::new(),
    }
}

/// Gives every output of a model the same stars.
pub fn review_all(collected: &mut Collected, stars: impl Fn(&str) -> u8) {
    let seed = 7;
    let reviews = collected
        .rows
        .iter()
        .filter(|row| collected.outputs.contains_key(&row.cell))
        .map(|row| Review {
            output: review::blind::name(seed, &row.cell),
            reviewer: "Ana".into(),
            stars: review::CRITERIA
                .iter()
                .map(|(criterion, _)| ((*criterion).to_owned(), stars(&row.model)))
                .collect(),
            best_use: format!("use of {}", row.model),
            ..Review::default()
        })
        .collect();
    let sweep = collected.plan.sweep.name.to_string();
    let reviews = Reviews { sweep, seed, reviews };
    collected.reviews = Some(review::file::render(&reviews, &BTreeMap::new()));
}

pub const GOOD: &str = "```python\nfrom fastapi import FastAPI\n\napp = FastAPI()\n```\n";

/// The published outcome of the notebook that this product grew from.
pub fn notebook() -> Collected {
    let models = [
        ("Qwen/Qwen2.5-Coder-7B-Instruct", 53.1, 550, 10.3, 15.2, 4),
        ("Qwen/Qwen2.5-Coder-32B-Instruct", 25.5, 800, 31.4, 65.5, 5),
        ("Qwen/Qwen3-32B", 21.7, 4096, 189.1, 65.5, 2),
        ("Qwen/Qwen3-30B-A3B", 10.6, 4096, 385.8, 61.1, 3),
        ("Qwen/Qwen3-Coder-30B-A3B-Instruct", 10.3, 2275, 221.6, 61.1, 5),
    ];
    let mut text = String::from(
        "name = \"notebook\"\n[generation]\nruns = 1\n[[prompts]]\nid = \"vit\"\ntext = \"Serve \
        it.\"\nrubric = \"python-service\"\n",
    );
    for model in &models {
        text.push_str(&format!("[[models]]\nid = \"{}\"\n", model.0));
    }
    let of = |name: &str| *models.iter().find(|m| m.0 == name).expect("one of the five");
    let mut collected = collected(sweep(&text), |name, _, _| {
        let (_, tok_per_s, tokens, time_s, memory_gb, _) = of(name);
        let finish = if tokens == 4096 { FinishReason::Length } else { FinishReason::Stop };
        Some(Made { output: GOOD.into(), tokens, tok_per_s, time_s, memory_gb, finish })
    });
    review_all(&mut collected, |name| of(name).5);
    collected
}
