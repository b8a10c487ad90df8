//! The run loop against the in-process queue and a real broker, with a model that follows a script.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bakeoff_engine::load::Effective;
use bakeoff_engine::{EngineError, Footprint, Generation, Sampling, TokenEvent};
use bakeoff_proto::record::OutputFacts;
use bakeoff_model::{EngineSettings, Format, GenerationSettings, ModelSource, Thinking};
use bakeoff_proto::{Cell, Failure, FailureKind, FinishReason, Job, JobPhase, MetricsRecord, SCHEMA_VERSION, digest, document, names};
use bakeoff_transport::queue::memory::MemoryQueue;
use bakeoff_transport::queue::nats::NatsQueue;
use bakeoff_transport::queue::{JobQueue, QueueSettings};
use bakeoff_transport::store;
use bakeoff_test_servers::{Fault, NatsServer, Proxy, S3Server, jobs};
use bakeoff_worker::model::{Model, ModelFacts, Models, OnOpen, OnToken, OpenProgress, Output};
use bakeoff_worker::run::{Served, Stop, WorkerConfig, WorkerError, serve};
use bakeoff_worker::telemetry::Gpu;
use futures::StreamExt;
use object_store::ObjectStore;
use tokio::sync::watch;
use tokio::task::JoinHandle;

const ACK_WAIT: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(30);

/// What the scripted model does.
#[derive(Clone, Default)]
struct Script {
    open_error: Option<FailureKind>,
    /// Fails the generation of this prompt.
    bad_prompt: Option<(String, FailureKind)>,
    token_pause: Duration,
    /// Freezes at this token of every measured cell, whatever it is told.
    hangs_at: Option<u32>,
    opened: Arc<AtomicU32>,
    generated: Arc<AtomicU32>,
}

struct ScriptedModel {
    script: Script,
    facts: ModelFacts,
}

impl Models for Script {
    fn open(&self, _job: &Job, on_progress: OnOpen<'_>) -> Result<Box<dyn Model>, EngineError> {
        self.opened.fetch_add(1, Ordering::SeqCst);
        if let Some(kind) = self.open_error {
            return Err(EngineError::new(kind, "the script says so"));
        }
        if on_progress(OpenProgress::Load { bytes: 1, total_bytes: 1 }).is_break() {
            return Err(EngineError::new(FailureKind::Interrupted, "stopped"));
        }
        let effective = Effective {
            engine: "reference",
            device: "script".into(),
            driver: String::new(),
            flash_attn: "n/a",
            tf32: "n/a",
            reduced_precision_reduction: "n/a",
            cuda_graph: "n/a",
        };
        let facts = ModelFacts {
            weights_sha256: "w".into(),
            tokenizer_sha256: "t".into(),
            template_sha256: String::new(),
            format: Format::Base,
            thinking: Thinking::Auto,
            effective,
            footprint: Footprint { weight_bytes: 1000, workspace_bytes: 0, kv_bytes_per_token: 4 },
            planned_weight_bytes: 1000,
            planned_kv_bytes: 100,
            planned_workspace_bytes: 0,
            cap_bytes: None,
            device_total_bytes: None,
            stored_bytes: 1000,
            load_s: 0.5,
            download_s: None,
            read_bandwidth_gb_s: Some(10.0),
        };
        Ok(Box::new(ScriptedModel { script: self.clone(), facts }))
    }
}

impl Model for ScriptedModel {
    fn facts(&self) -> &ModelFacts {
        &self.facts
    }

    fn generate(
        &mut self,
        cell: &Cell,
        max_new_tokens: u32,
        on_token: OnToken<'_>,
    ) -> Result<Output, EngineError> {
        if let Some((prompt, kind)) = &self.script.bad_prompt
            && *prompt == cell.prompt
        {
            return Err(EngineError::new(*kind, "the script says so"));
        }
        let warm_up = max_new_tokens < cell.generation.max_new_tokens;
        let started = Instant::now();
        let mut token_times = Vec::new();
        let mut finish_reason = Some(FinishReason::Length);
        for n in 0..max_new_tokens {
            if !warm_up {
                std::thread::sleep(self.script.token_pause);
                if self.script.hangs_at == Some(n) {
                    std::thread::park();
                }
            }
            token_times.push(Instant::now());
            if on_token(TokenEvent::Token { sequence: 0, id: n }) == ControlFlow::Break(()) {
                finish_reason = None;
                break;
            }
        }
        if !warm_up && finish_reason.is_some() {
            self.script.generated.fetch_add(1, Ordering::SeqCst);
        }
        let tokens = token_times.len() as u32;
        let facts = finish_reason.map(|finish_reason| OutputFacts {
            finish_reason,
            thinking_tokens: 0,
            answer_tokens: tokens,
            think_closed: None,
            has_code: false,
        });
        Ok(Output {
            generation: Generation {
                token_ids: (0..tokens).collect(),
                finish_reason,
                started,
                token_times,
                flash_attn: false,
                kv_bytes: 100,
                weight_bytes_per_token: 1000.0,
            },
            prompt_tokens: 3,
            text: format!("answer to {}\n| `verbatim` |", cell.prompt),
            facts,
            sampling: Sampling {
                greedy: true,
                temperature: 0.7,
                top_p: 0.9,
                top_k: None,
                min_p: None,
                repetition_penalty: 1.0,
                seed: cell.seed,
            },
        })
    }
}

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
    task: JoinHandle<Result<Served, WorkerError>>,
}

impl RunningWorker {
    fn start(config: WorkerConfig, queue: Arc<dyn JobQueue>, store: Arc<dyn ObjectStore>) -> Self {
        let (stop, stopped) = watch::channel(Stop::No);
        Self { stop, task: tokio::spawn(serve(config, queue, store, stopped)) }
    }

    async fn leave(self) -> Result<Served, WorkerError> {
        self.stop.send_replace(Stop::Drain);
        tokio::time::timeout(LIMIT, self.task).await.expect("the worker leaves").unwrap()
    }
}

async fn until(what: &str, condition: impl AsyncFnMut() -> bool) {
    bakeoff_test_servers::until(what, LIMIT, condition).await;
}

async fn emptied(queue: &dyn JobQueue, job: &Job) {
    until("the queue is empty", async || {
        queue.open_jobs(&job.sweep).await.is_ok_and(|open| open.is_empty())
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

#[tokio::test(flavor = "multi_thread")]
async fn a_job_leaves_a_record_a_document_and_a_timeline_a_cell() {
    let (queue, store) = (Arc::new(MemoryQueue::new()), store::memory());
    prepared(queue.as_ref()).await;
    let job = job("whole", 3);
    queue.publish(&job).await.unwrap();
    let script = Script { token_pause: Duration::from_millis(1), ..Script::default() };
    let mut config = config("w", &script);
    config.max_jobs = Some(1);
    let worker = RunningWorker::start(config, queue.clone(), store.clone());
    let served = tokio::time::timeout(LIMIT, worker.task).await.unwrap().unwrap().unwrap();
    assert_eq!(served.jobs, 1);
    emptied(queue.as_ref(), &job).await;
    let records = records(store.as_ref(), &job).await;
    assert_eq!(records.len(), 3);
    assert_documents(store.as_ref(), &job, &records).await;
    let metrics = &records[0].metrics;
    assert_eq!((metrics.tokens_generated, metrics.prompt_tokens), (40, 3));
    assert_eq!(records[0].inter_token_ms.len(), 39);
    assert!((metrics.tok_per_s - 40.0 / metrics.time_s).abs() < 1e-9);
    assert!(records[0].mismatches.is_empty(), "{:?}", records[0].mismatches);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_that_cannot_be_generated_leaves_the_others_alone() {
    let (queue, store) = (Arc::new(MemoryQueue::new()), store::memory());
    prepared(queue.as_ref()).await;
    let job = job("bad-cell", 3);
    queue.publish(&job).await.unwrap();
    let bad = Some(("prompt 1".to_owned(), FailureKind::ContextOverflow));
    let script = Script { bad_prompt: bad, ..Script::default() };
    let worker = RunningWorker::start(config("w", &script), queue.clone(), store.clone());
    emptied(queue.as_ref(), &job).await;
    worker.leave().await.unwrap();
    let failures = failures(store.as_ref(), &job).await;
    assert_eq!(failures.len(), 1);
    assert_eq!(
        (failures[0].kind, &failures[0].cell),
        (FailureKind::ContextOverflow, &job.cells[0].id)
    );
    assert_eq!(records(store.as_ref(), &job).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_can_never_load_fails_at_once_and_for_good() {
    let (queue, store) = (Arc::new(MemoryQueue::new()), store::memory());
    prepared(queue.as_ref()).await;
    let job = job("never", 2);
    queue.publish(&job).await.unwrap();
    let script = Script { open_error: Some(FailureKind::Quantised), ..Script::default() };
    let worker = RunningWorker::start(config("w", &script), queue.clone(), store.clone());
    emptied(queue.as_ref(), &job).await;
    worker.leave().await.unwrap();
    let failures = failures(store.as_ref(), &job).await;
    assert_eq!(failures.len(), 2);
    assert!(failures.iter().all(|f| f.kind == FailureKind::Quantised && f.attempts == 1));
    assert_eq!(script.opened.load(Ordering::SeqCst), 1);
}

async fn poison_job(queue: Arc<dyn JobQueue>) {
    let store = store::memory();
    prepared(queue.as_ref()).await;
    let job = job("poison", 2);
    queue.publish(&job).await.unwrap();
    let script = Script { open_error: Some(FailureKind::OutOfMemory), ..Script::default() };
    let worker = RunningWorker::start(config("w", &script), queue.clone(), store.clone());
    emptied(queue.as_ref(), &job).await;
    worker.leave().await.unwrap();
    let failures = failures(store.as_ref(), &job).await;
    assert_eq!(failures.len(), 2);
    for failure in failures {
        assert_eq!((failure.kind, failure.attempts), (FailureKind::AttemptsExhausted, 5));
    }
    assert_eq!(script.opened.load(Ordering::SeqCst), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poison_job_ends_at_the_fifth_attempt() {
    poison_job(Arc::new(MemoryQueue::new())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poison_job_ends_at_the_fifth_attempt_on_a_broker() {
    let server = NatsServer::start();
    poison_job(Arc::new(NatsQueue::connect(&server.args()).await.unwrap())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_preempted_ten_times_with_progress_completes() {
    let (queue, store) = (Arc::new(MemoryQueue::new()), store::memory());
    prepared(queue.as_ref()).await;
    let job = job("preempted", 11);
    queue.publish(&job).await.unwrap();
    let script = Script { token_pause: Duration::from_millis(2), ..Script::default() };
    for done in 1..=10 {
        let worker = RunningWorker::start(config("w", &script), queue.clone(), store.clone());
        until("another cell is done", async || records(store.as_ref(), &job).await.len() >= done)
            .await;
        // As a killed process would: nothing is handed back, the lease lapses.
        worker.task.abort();
    }
    let worker = RunningWorker::start(config("w", &script), queue.clone(), store.clone());
    emptied(queue.as_ref(), &job).await;
    worker.leave().await.unwrap();
    assert_eq!(records(store.as_ref(), &job).await.len(), 11);
    assert!(failures(store.as_ref(), &job).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_finishes_the_cell_and_hands_the_rest_back() {
    let (queue, store) = (Arc::new(MemoryQueue::new()), store::memory());
    prepared(queue.as_ref()).await;
    let job = job("drain", 2);
    queue.publish(&job).await.unwrap();
    let script = Script { token_pause: Duration::from_millis(20), ..Script::default() };
    let mut events = queue.events(&job.sweep).await.unwrap();
    let worker = RunningWorker::start(config("w", &script), queue.clone(), store.clone());
    // The warm-up asks for fewer tokens.
    let generating = |phase: &JobPhase| matches!(phase, JobPhase::Decoding { max_tokens: 40, .. });
    while !generating(&events.next().await.expect("events go on").phase) {}
    worker.leave().await.unwrap();
    assert_eq!(records(store.as_ref(), &job).await.len(), 1);
    // Handed back, not left to lapse.
    let stats = queue.stats(&[]).await.unwrap();
    assert_eq!((stats.pending, stats.in_flight), (1, 0));
    let (attempt, _) = queue.load_attempt(&job).await.unwrap().unwrap();
    assert_eq!(attempt.fruitless, 0);
}

/// During a rolling upgrade: the job is neither failed nor removed, it waits for a newer worker.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_a_later_version_is_left_to_a_newer_worker() {
    let (queue, store) = (Arc::new(MemoryQueue::new()), store::memory());
    prepared(queue.as_ref()).await;
    let later = Job { schema_version: SCHEMA_VERSION + 1, ..job("later", 2) };
    queue.publish(&later).await.unwrap();
    let script = Script::default();
    let config = config("old", &script);
    let meters = config.meters.clone();
    let worker = RunningWorker::start(config, queue.clone(), store.clone());
    until("it is handed back", async || {
        meters.render().contains("bakeoff_jobs_total{outcome=\"handed_back\"} 1\n")
    })
    .await;
    worker.leave().await.unwrap();
    let stats = queue.stats(&[]).await.unwrap();
    assert_eq!((stats.pending, stats.in_flight), (1, 0));
    assert!(failures(store.as_ref(), &later).await.is_empty());
    assert_eq!(script.opened.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_stops_at_the_next_token() {
    let (queue, store) = (Arc::new(MemoryQueue::new()), store::memory());
    prepared(queue.as_ref()).await;
    let job = job("cancelled", 2);
    queue.publish(&job).await.unwrap();
    let script = Script { token_pause: Duration::from_millis(200), ..Script::default() };
    let worker = RunningWorker::start(config("w", &script), queue.clone(), store.clone());
    until("it generates", async || script.opened.load(Ordering::SeqCst) == 1).await;
    queue.cancel(&job.sweep).await.unwrap();
    until("the failures are written", async || failures(store.as_ref(), &job).await.len() == 2)
        .await;
    worker.leave().await.unwrap();
    let failures = failures(store.as_ref(), &job).await;
    assert!(failures.iter().all(|failure| failure.kind == FailureKind::Cancelled));
    assert_eq!(script.generated.load(Ordering::SeqCst), 0);
}

/// The holder freezes past its lease; another does the job; the first comes back and finds it done.
#[tokio::test(flavor = "multi_thread")]
async fn the_loser_of_a_race_discards_its_own_files() {
    let server = NatsServer::start();
    let queue = Arc::new(NatsQueue::connect(&server.args()).await.unwrap());
    let store = store::memory();
    prepared(queue.as_ref()).await;
    let job = job("race", 1);
    queue.publish(&job).await.unwrap();
    let slow = Script { token_pause: Duration::from_millis(100), ..Script::default() };
    let mut frozen = config("frozen", &slow);
    // No renewal: as if the process had been stopped.
    frozen.heartbeat = Duration::from_secs(600);
    let first = RunningWorker::start(frozen, queue.clone(), store.clone());
    until("the first generates", async || slow.opened.load(Ordering::SeqCst) == 1).await;
    let fast = Script::default();
    let second = RunningWorker::start(config("second", &fast), queue.clone(), store.clone());
    until("both have generated", async || {
        fast.generated.load(Ordering::SeqCst) >= 1 && slow.generated.load(Ordering::SeqCst) == 1
    })
    .await;
    emptied(queue.as_ref(), &job).await;
    first.leave().await.unwrap();
    second.leave().await.unwrap();
    let records = records(store.as_ref(), &job).await;
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].worker, "second");
    assert_documents(store.as_ref(), &job, &records).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standstill_ends_the_attempt_and_the_worker() {
    let (queue, store) = (Arc::new(MemoryQueue::new()), store::memory());
    prepared(queue.as_ref()).await;
    let job = job("hung", 1);
    queue.publish(&job).await.unwrap();
    let script = Script { hangs_at: Some(3), ..Script::default() };
    let mut config = config("w", &script);
    config.stall_limit = Duration::from_millis(500);
    config.halt_limit = Duration::from_millis(500);
    let worker = RunningWorker::start(config, queue.clone(), store.clone());
    let left = tokio::time::timeout(LIMIT, worker.task).await.unwrap().unwrap();
    assert!(matches!(left, Err(WorkerError::Hung(_))), "{left:?}");
    assert_eq!(queue.open_jobs(&job.sweep).await.unwrap().len(), 1);
}

/// The broker dies with jobs queued and comes back; the store does not answer for a while, and
/// then loses an answer after it has committed.
#[tokio::test(flavor = "multi_thread")]
async fn outages_of_broker_and_store_lose_nothing() {
    let mut server = NatsServer::start();
    let s3 = S3Server::start();
    let proxy = Proxy::start(s3.port()).await.unwrap();
    let mut args = s3.args("outages");
    args.s3_endpoint = Some(format!("http://127.0.0.1:{}", proxy.port()));
    let (through, direct) =
        (store::open(&args).await.unwrap(), store::open(&s3.args("outages")).await.unwrap());
    let queue = Arc::new(NatsQueue::connect(&server.args()).await.unwrap());
    prepared(queue.as_ref()).await;
    let jobs = [job("outages", 2), job("outages-2", 2)];
    for job in &jobs {
        queue.publish(job).await.unwrap();
    }
    server.kill();
    server.restart();
    let script = Script { token_pause: Duration::from_millis(5), ..Script::default() };
    let worker = RunningWorker::start(config("w", &script), queue.clone(), through);
    until("a job is opened", async || script.opened.load(Ordering::SeqCst) >= 1).await;
    proxy.set(Fault::Cut);
    until("a cell is generated", async || script.generated.load(Ordering::SeqCst) >= 1).await;
    // Longer than the lease: it is kept only because the tries count as movement.
    tokio::time::sleep(ACK_WAIT * 2).await;
    proxy.set(Fault::DropAnswers);
    tokio::time::sleep(ACK_WAIT).await;
    proxy.set(Fault::None);
    for job in &jobs {
        emptied(queue.as_ref(), job).await;
    }
    worker.leave().await.unwrap();
    for job in &jobs {
        let records = records(direct.as_ref(), job).await;
        assert_eq!(records.len(), 2);
        assert_documents(direct.as_ref(), job, &records).await;
    }
}
