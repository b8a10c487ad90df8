//! The run loop against the in-process queue and a real broker, with a model that follows a script.
//!
//! - `script`: the model; `work`: what a job leaves behind
//! - `ending`: failures, exhausted attempts, drains, cancellations
//! - `incarnation`: sweeps of one name, one after the other
//! - `faults`: races, outages, hangs

mod ending;
mod faults;
mod incarnation;
mod script;
mod work;

use std::sync::Arc;
use std::time::Duration;

use bakeoff_model::{EngineSettings, GenerationSettings, ModelSource};
use bakeoff_proto::{Cell, Failure, Job, MetricsRecord, digest, document, names};
use bakeoff_test_servers::jobs;
use bakeoff_transport::queue::{JobQueue, QueueSettings};
use bakeoff_transport::store;
use bakeoff_worker::serve::{ServeError, Served, WorkerConfig, serve};
use bakeoff_worker::signals::Stop;
use bakeoff_worker::telemetry::Gpu;
use object_store::ObjectStore;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::script::Script;

const ACK_WAIT: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(30);

fn job(name: &str, cells: u32) -> Job {
    let generation = GenerationSettings { max_new_tokens: 40, ..GenerationSettings::default() };
    let cells = (1..=cells).map(|run| Cell {
        seed: 1,
        file_stem: "scripted".into(),
        ..jobs::cell(run, &format!("prompt {run}"), generation.clone())
    });
    let source = ModelSource::Path { path: "/models/scripted".into() };
    jobs::job(name, source, EngineSettings::default(), cells.collect())
}

async fn prepared(queue: &dyn JobQueue) {
    let settings = QueueSettings { ack_wait: ACK_WAIT, ..QueueSettings::default() };
    queue.prepare(&settings, &["any".into(), "cpu".into()]).await.unwrap();
}

fn config(name: &str, script: &Script) -> WorkerConfig {
    let classes = vec!["any".into(), "cpu".into()];
    let gpu = Arc::new(Gpu::open(None));
    let mut config = WorkerConfig::new(name.into(), classes, Arc::new(script.clone()), gpu);
    config.heartbeat = ACK_WAIT / 4;
    config.retry_delay = Duration::from_millis(20);
    config.grace = Duration::from_secs(10);
    config
}

struct RunningWorker {
    stop: watch::Sender<Stop>,
    task: JoinHandle<Result<Served, ServeError>>,
}

impl RunningWorker {
    fn start(config: WorkerConfig, queue: Arc<dyn JobQueue>, store: Arc<dyn ObjectStore>) -> Self {
        let (stop, stopped) = watch::channel(Stop::No);
        Self { stop, task: tokio::spawn(serve(config, queue, store, stopped)) }
    }

    async fn leave(self) -> Result<Served, ServeError> {
        self.stop.send_replace(Stop::Drain);
        tokio::time::timeout(LIMIT, self.task).await.expect("the worker leaves").unwrap()
    }
}

async fn until(what: &str, condition: impl AsyncFnMut() -> bool) {
    bakeoff_test_servers::until(what, LIMIT, condition).await;
}

async fn emptied(queue: &dyn JobQueue, job: &Job) {
    until("the queue is empty", async || {
        queue.open_jobs(&job.sweep_id()).await.is_ok_and(|open| open.is_empty())
    })
    .await;
}

async fn records(store: &dyn ObjectStore, job: &Job) -> Vec<MetricsRecord> {
    let mut found = Vec::new();
    for cell in &job.cells {
        let key = names::record_key(&job.sweep, &cell.id);
        if let Some(bytes) = store::read(store, &key).await.unwrap() {
            found.push(serde_json::from_slice(&bytes).unwrap());
        }
    }
    found
}

async fn failures(store: &dyn ObjectStore, job: &Job) -> Vec<Failure> {
    let mut found = Vec::new();
    for cell in &job.cells {
        let key = names::failure_key(&job.sweep, &cell.id, job.generation);
        if let Some(bytes) = store::read(store, &key).await.unwrap() {
            found.push(serde_json::from_slice(&bytes).unwrap());
        }
    }
    found
}

/// Every markdown file belongs to a record, whose digest and length fit it.
async fn assert_documents(store: &dyn ObjectStore, job: &Job, records: &[MetricsRecord]) {
    let all = store::list(store, job.sweep.as_str()).await.unwrap();
    let markdown = all.iter().filter(|meta| meta.location.extension() == Some("md")).count();
    assert_eq!(markdown, records.len());
    for record in records {
        let bytes = store::read(store, &record.document.key).await.unwrap().unwrap();
        assert_eq!(digest::sha256_hex(&bytes), record.document.sha256);
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let output = document::output(&text, record.document.output_bytes).unwrap();
        assert_eq!(output, format!("answer to prompt {}\n| `verbatim` |", record.run));
        let csv = names::telemetry_key(&job.sweep, &record.cell, &record.attempt);
        assert!(store::exists(store, &csv).await.unwrap());
    }
}

/// Waits until the worker has left by itself.
async fn left(worker: RunningWorker) -> Result<Served, ServeError> {
    tokio::time::timeout(LIMIT, worker.task).await.expect("the worker leaves").unwrap()
}
