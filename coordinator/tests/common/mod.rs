//! A worker by script: it takes jobs from a queue and stores what a real one would, without a
//! model.

// Each test binary uses its own part of this.
#![allow(dead_code)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bakeoff_coordinator::plan::{Plan, Revisions};
use bakeoff_coordinator::{publish, sweep};
use bakeoff_model::{Format, Thinking};
use bakeoff_proto::record::{
    DeviceFacts, DocumentRef, Fingerprint, MemoryFacts, OutputFacts, Resolved,
};
use bakeoff_proto::{
    AttemptId, Cell, Failure, FailureKind, FinishReason, Job, Metrics, MetricsRecord,
    SCHEMA_VERSION, digest, document, names,
};
use bakeoff_transport::queue::JobQueue;
use bakeoff_transport::store;
use object_store::ObjectStore;

/// The next job of any class; `None` if none came at once.
pub async fn take(
    queue: &dyn JobQueue,
) -> Option<(Job, Box<dyn bakeoff_transport::queue::Delivery>)> {
    let classes = ["any".to_owned(), "cpu".to_owned()];
    let delivery = queue.pull(&classes, Duration::from_millis(300)).await.expect("pull")?;
    let job = serde_json::from_slice(delivery.payload()).expect("a job");
    Some((job, delivery))
}

/// Does every queued job. Returns how many cells were done.
pub async fn drain(queue: &dyn JobQueue, objects: &Arc<dyn ObjectStore>) -> usize {
    let mut cells = 0;
    while let Some((job, delivery)) = take(queue).await {
        for cell in &job.cells {
            let key = names::record_key(&job.sweep, &cell.id);
            if !store::exists(objects.as_ref(), &key).await.expect("exists") {
                finish(objects.as_ref(), &job, cell).await;
                cells += 1;
            }
        }
        delivery.ack().await.expect("ack");
    }
    cells
}

/// Freezes the plan of a sweep given as TOML, as if its file were in `folder`.
pub async fn freeze(objects: &dyn ObjectStore, text: &str, folder: &Path) -> Plan {
    let sweep = sweep::parse(text, "sweep.toml", folder).unwrap_or_else(|error| panic!("{error}"));
    let mut plan = Plan::build(sweep, Revisions::new()).expect("a plan");
    publish::freeze(objects, &mut plan).await.expect("a plan that is new");
    plan
}

/// Stores a sweep given as TOML whose cells came out as `made` says by the model's name; `None`
/// fails the cell.
pub async fn store_sweep(
    objects: &dyn ObjectStore,
    text: &str,
    made: impl Fn(&str, &Cell) -> Option<Made>,
) -> Plan {
    let plan = freeze(objects, text, "".as_ref()).await;
    for planned in &plan.jobs {
        for cell in &planned.job.cells {
            match made(&planned.model_name, cell) {
                Some(made) => finish_as(objects, &planned.job, cell, &made).await,
                None => fail(objects, &planned.job, cell, "<b>no").await,
            }
        }
    }
    plan
}

/// What a generation by script comes out as.
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
    pub fn new(output: impl Into<String>) -> Self {
        Self {
            output: output.into(),
            tokens: 100,
            tok_per_s: 50.0,
            time_s: 2.0,
            memory_gb: 1.0,
            finish: FinishReason::Stop,
        }
    }
}

/// Stores document, telemetry and record of a cell.
pub async fn finish(objects: &dyn ObjectStore, job: &Job, cell: &Cell) {
    let made = Made {
        tokens: 100 + cell.run,
        time_s: 2.0 + f64::from(cell.run) / 50.0,
        ..Made::new(format!("```python\nprint({})\n```\n", cell.run))
    };
    finish_as(objects, job, cell, &made).await;
}

/// Stores document, telemetry and record of a cell that came out as `made`.
pub async fn finish_as(objects: &dyn ObjectStore, job: &Job, cell: &Cell, made: &Made) {
    let started_at = jiff::Timestamp::UNIX_EPOCH;
    let output = &made.output;
    let text = document::render(&job.model.display_id(), &[], &cell.prompt, output);
    let key = format!("{}/{}", job.sweep, document::file_name(&cell.file_stem, started_at));
    store::write(objects, &key, text.clone().into()).await.expect("document");
    let attempt = AttemptId(format!("a-{}", job.generation));
    let telemetry = names::telemetry_key(&job.sweep, &cell.id, &attempt);
    let samples = [0.0, made.time_s / 2.0, made.time_s].map(|at| sample(at, made.memory_gb));
    let csv = bakeoff_proto::telemetry::render(samples);
    store::write(objects, &telemetry, csv.into()).await.expect("telemetry");
    let record = MetricsRecord {
        schema_version: SCHEMA_VERSION,
        sweep: job.sweep.clone(),
        cell: cell.id.clone(),
        job: job.id.clone(),
        generation: job.generation,
        attempt,
        worker: "script".into(),
        model: job.model.display_id(),
        source: job.model.source.clone(),
        prompt_id: cell.prompt_id.clone(),
        run: cell.run,
        seed: cell.seed,
        started_at,
        document: DocumentRef {
            key,
            sha256: digest::sha256_hex(text.as_bytes()),
            output_bytes: output.len() as u64,
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
        engine_settings: job.engine.clone(),
        fingerprint: Fingerprint {
            weights_sha256: "w".into(),
            tokenizer_sha256: "t".into(),
            template_sha256: "c".into(),
            build: "test".into(),
            engine: "reference".into(),
            dtype: job.engine.dtype.as_str().into(),
            device: "cpu".into(),
            driver: String::new(),
            flash_attn: "n/a".into(),
            tf32: "n/a".into(),
            reduced_precision_reduction: "n/a".into(),
            cuda_graph: "n/a".into(),
        },
        metrics: Metrics {
            tokens_generated: made.tokens,
            tok_per_s: made.tok_per_s,
            time_s: made.time_s,
            tpot_ms: Some(1000.0 / made.tok_per_s),
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
        inter_token_ms: vec![1000.0 / made.tok_per_s; 3],
        mismatches: vec![],
    };
    let json = serde_json::to_vec(&record).expect("a record serialises");
    let key = names::record_key(&job.sweep, &cell.id);
    store::create_if_absent(objects, &key, json.into()).await.expect("record");
}

/// A sample of telemetry without a GPU: half a core at work.
fn sample(at_s: f64, memory_gb: f64) -> [String; bakeoff_proto::telemetry::COLUMNS.len()] {
    use bakeoff_proto::telemetry::{COLUMNS, CPU_S, RSS_BYTES, SECONDS};
    COLUMNS.map(|column| match column {
        SECONDS => format!("{at_s:.3}"),
        RSS_BYTES => format!("{:.0}", memory_gb * 1e9),
        CPU_S => format!("{:.3}", at_s / 2.0),
        _ => String::new(),
    })
}

/// Stores a failure of a cell.
pub async fn fail(objects: &dyn ObjectStore, job: &Job, cell: &Cell, message: &str) {
    let failure = Failure {
        schema_version: SCHEMA_VERSION,
        sweep: job.sweep.clone(),
        cell: cell.id.clone(),
        job: job.id.clone(),
        generation: job.generation,
        kind: FailureKind::BadTemplate,
        message: message.to_owned(),
        attempt: None,
        attempts: 1,
        worker: Some("script".into()),
        failed_at: jiff::Timestamp::UNIX_EPOCH,
    };
    let key = names::failure_key(&job.sweep, &cell.id, job.generation);
    let json = serde_json::to_vec(&failure).expect("a failure serialises");
    store::create_if_absent(objects, &key, json.into()).await.expect("failure");
}
