//! A worker by script: it takes jobs from a queue and stores what a real one would, without a model.

// Each test binary uses its own part of this.
#![allow(dead_code)]

use std::sync::Arc;
use std::time::Duration;

use bakeoff_proto::record::{
    DeviceFacts, DocumentRef, Fingerprint, MemoryFacts, OutputFacts, Resolved,
};
use bakeoff_proto::{
    AttemptId, Cell, Failure, FailureKind, FinishReason, Format, Job, Metrics, MetricsRecord,
    SCHEMA_VERSION, Thinking, digest, document, names,
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

/// Stores document, telemetry and record of a cell.
pub async fn finish(objects: &dyn ObjectStore, job: &Job, cell: &Cell) {
    let started_at = jiff::Timestamp::UNIX_EPOCH;
    let output = format!("```python\nprint({})\n```\n", cell.run);
    let text = document::render(&job.model.display_id(), &[], &cell.prompt, &output);
    let key = format!("{}/{}", job.sweep, document::file_name(&cell.file_stem, started_at));
    store::write(objects, &key, text.clone().into()).await.expect("document");
    let attempt = AttemptId(format!("a-{}", job.generation));
    let telemetry = names::telemetry_key(&job.sweep, &cell.id, &attempt);
    store::write(objects, &telemetry, "t_s,rss_gb\n0,0.1\n".into()).await.expect("telemetry");
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
            tokens_generated: 100 + cell.run,
            tok_per_s: 50.0,
            time_s: 2.0 + f64::from(cell.run) / 50.0,
            tpot_ms: Some(20.0),
            ..Metrics::default()
        },
        output: OutputFacts {
            finish_reason: FinishReason::Stop,
            thinking_tokens: 0,
            answer_tokens: 100 + cell.run,
            think_closed: None,
            has_code: true,
        },
        memory: MemoryFacts::default(),
        device: DeviceFacts::default(),
        inter_token_ms: vec![20.0; 3],
        mismatches: vec![],
    };
    let json = serde_json::to_vec(&record).expect("a record serialises");
    let key = names::record_key(&job.sweep, &cell.id);
    store::create_if_absent(objects, &key, json.into()).await.expect("record");
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
