//! A queue of jobs whose models cannot be used, among them one that can: each bad one leaves a
//! failure with its kind and the next step, at the first attempt, and the good one is done.

// Each test binary uses its own part of this.
#[allow(dead_code)]
#[path = "commands/models.rs"]
mod models;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bakeoff_engine::load::DeviceChoice;
use bakeoff_model::{Dtype, EngineSettings, GenerationSettings, ModelSource};
use bakeoff_proto::{Cell, Failure, FailureKind, Job, MetricsRecord, SweepId, SweepName, names};
use bakeoff_test_servers::jobs;
use bakeoff_transport::queue::memory::MemoryQueue;
use bakeoff_transport::queue::{JobQueue, QueueSettings};
use bakeoff_transport::store;
use bakeoff_worker::engine_models::EngineModels;
use bakeoff_worker::serve::{WorkerConfig, serve};
use bakeoff_worker::signals::Stop;
use bakeoff_worker::telemetry::Gpu;
use models::{edit_json, golden_json, numbered, poison, spoiled, toy, words};
use object_store::ObjectStore;
use serde_json::json;
use tokio::sync::watch;

/// One model with two prompts; a number of tokens for the first, too few to matter for the second.
fn job(sweep: &SweepName, folder: &Path, prompt: &str, max_new_tokens: u32) -> Job {
    let cell = |run: u32, prompt: &str, max_new_tokens: u32| {
        let generation = GenerationSettings { max_new_tokens, ..GenerationSettings::default() };
        Cell { seed: 1, file_stem: "model".into(), ..jobs::cell(run, prompt, generation) }
    };
    let cells = vec![cell(1, prompt, max_new_tokens), cell(2, "1 2 3", 2)];
    let source = ModelSource::Path { path: folder.to_str().expect("a UTF-8 path").to_owned() };
    let engine = EngineSettings { dtype: Dtype::F32, ..EngineSettings::default() };
    jobs::job(sweep.as_str(), source, engine, cells)
}

async fn read<T: serde::de::DeserializeOwned>(store: &dyn ObjectStore, key: &str) -> Option<T> {
    let bytes = store::read(store, key).await.expect("the store answers")?;
    Some(serde_json::from_slice(&bytes).expect("JSON"))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_bad_model_fails_its_cells_and_no_others() {
    let config = |name: &'static str, value: serde_json::Value| {
        move |folder: &Path| edit_json(&folder.join("config.json"), |json| json[name] = value)
    };
    let weights = |folder: &Path| folder.join("model.safetensors");
    let cut = |folder: &Path| {
        let bytes = fs::read(weights(folder)).expect("weights");
        fs::write(weights(folder), &bytes[..bytes.len() - 100]).expect("weights");
    };
    let no_tokenizer =
        |folder: &Path| fs::remove_file(folder.join("tokenizer.json")).expect("removed");
    let long = format!("{} ", words(&golden_json("qwen2")["long_ids"])).repeat(2);
    use FailureKind as Kind;
    // The model, its first prompt and length, the failure, words of its message, the cells it
    // fails.
    let whole = || numbered("qwen2");
    let bad = [
        (
            spoiled(config("architectures", json!(["MambaForCausalLM"]))),
            "1",
            4,
            Kind::UnknownArchitecture,
            "Mamba",
            2,
        ),
        (spoiled(config("hidden_size", json!(null))), "1", 4, Kind::BadConfig, "hidden_size", 2),
        (
            spoiled(config("quantization_config", json!({"quant_method": "awq"}))),
            "1",
            4,
            Kind::Quantised,
            "awq",
            2,
        ),
        (spoiled(cut), "1", 4, Kind::BadWeights, "download it again", 2),
        (spoiled(no_tokenizer), "1", 4, Kind::BadTokenizer, "tokenizer.json", 2),
        (toy("{{ raise_exception('no users') }}"), "1", 4, Kind::BadTemplate, "no users", 2),
        (
            toy("{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}"),
            "1",
            4,
            Kind::BadTemplate,
            "loops",
            2,
        ),
        (
            spoiled(|folder| poison(&weights(folder), "model.norm.weight")),
            "1",
            4,
            Kind::NonFiniteLogits,
            "verify the checkpoint",
            2,
        ),
        (whole(), &long, 4, Kind::ContextOverflow, "shorten the prompt", 1),
        (whole(), "1 2", 1023, Kind::ContextOverflow, "1024 tokens", 1),
        (whole(), "1", 0, Kind::InvalidRequest, "max_new_tokens is 0", 1),
        (toy("{{ messages[0].content }}"), "", 4, Kind::InvalidRequest, "no tokens", 1),
    ];
    let gone = tempfile::tempdir().expect("a folder").path().to_owned();
    let sweep: SweepName = "bad-models".parse().expect("a name");
    let queue = Arc::new(MemoryQueue::new());
    queue.prepare(&QueueSettings::default(), &[names::ANY_CLASS.into()]).await.expect("a queue");
    let mut jobs = Vec::new();
    for (folder, prompt, new, kind, word, failing) in &bad {
        jobs.push((job(&sweep, folder.path(), prompt, *new), Some((*kind, *word)), *failing));
    }
    jobs.push((job(&sweep, &gone, "1", 4), Some((Kind::ModelNotFound, "does not exist")), 2));
    let good = numbered("qwen3");
    jobs.push((job(&sweep, good.path(), "1 2", 4), None, 0));
    for (job, ..) in &jobs {
        queue.publish(job).await.expect("published");
    }

    let store = store::memory();
    let models = Arc::new(EngineModels::new(DeviceChoice::Cpu));
    let gpu = Arc::new(Gpu::open(None));
    let mut config = WorkerConfig::new("w".into(), vec![names::ANY_CLASS.into()], models, gpu);
    config.max_jobs = Some(jobs.len() as u64);
    let (_stop, stopped) = watch::channel(Stop::No);
    let served = serve(config, queue.clone(), store.clone(), stopped);
    let served = tokio::time::timeout(Duration::from_secs(120), served).await.expect("in time");
    assert_eq!(served.expect("served").jobs, jobs.len() as u64);

    for (job, expected, failing) in &jobs {
        let mut failed = 0;
        for cell in &job.cells {
            let record: Option<MetricsRecord> =
                read(store.as_ref(), &names::record_key(&sweep, &cell.id)).await;
            let failure: Option<Failure> =
                read(store.as_ref(), &names::failure_key(&sweep, &cell.id, 1)).await;
            assert_ne!(record.is_some(), failure.is_some(), "one of the two: {expected:?}");
            let Some(failure) = failure else { continue };
            let (kind, word) = expected.expect("the good model has no failures");
            assert_eq!((failure.kind, failure.attempts), (kind, 1), "{}", failure.message);
            assert!(failure.message.contains(word), "`{word}`: {}", failure.message);
            failed += 1;
        }
        assert_eq!(failed, *failing, "{expected:?}");
    }
    assert!(
        queue
            .open_jobs(&SweepId { name: sweep.clone(), incarnation: None })
            .await
            .expect("the queue answers")
            .is_empty()
    );
}
