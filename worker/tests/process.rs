//! `worker run` as a process, on a real broker and with the demo models: killed, drained, frozen,
//! preempted, cut off. Whatever happens, each cell has one record and one markdown file.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bakeoff_model::{Dtype, EngineSettings, GenerationSettings, ModelSource};
use bakeoff_proto::{
    Attempt, CellId, Failure, FailureKind, Job, JobEvent, JobPhase, MetricsRecord, digest, names,
};
use bakeoff_test_servers::{Fault, NatsServer, Program, Proxy, S3Server, free_ports, jobs};
use bakeoff_transport::args::StoreArgs;
use bakeoff_transport::queue::nats::NatsQueue;
use bakeoff_transport::queue::{JobQueue, QueueSettings};
use bakeoff_transport::store;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::ObjectStore;
use tempfile::TempDir;

/// Every wait ends by its condition; this only bounds a test that fails.
const LIMIT: Duration = Duration::from_secs(120);
/// A lease that a test expects to lapse.
const SHORT_LEASE: Duration = Duration::from_secs(1);
/// The exit code of a worker that a signal stopped.
const STOPPED: Option<i32> = Some(4);
/// A lease that must not be what hands a job over.
const LONG_LEASE: Duration = Duration::from_secs(600);

/// A broker, a folder as the store, and what the tests ask them.
struct Bench {
    server: NatsServer,
    queue: NatsQueue,
    folder: TempDir,
    objects: Arc<dyn ObjectStore>,
}

impl Bench {
    async fn new(ack_wait: Duration) -> Self {
        let server = NatsServer::start();
        let queue = NatsQueue::connect(&server.args()).await.unwrap();
        let settings = QueueSettings { ack_wait, ..QueueSettings::default() };
        queue.prepare(&settings, &["any".into()]).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let objects = open(folder.path()).await;
        Self { server, queue, folder, objects }
    }

    async fn publish(&self, job: &Job) {
        self.queue.publish(job).await.unwrap();
    }

    async fn events(&self, job: &Job) -> BoxStream<'static, JobEvent> {
        self.queue.events(&job.sweep).await.unwrap()
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_worker"));
        command
            .args(["run", "--nats", &self.server.url(), "--name", name, "--heartbeat", "0.25"])
            .arg("--store")
            .arg(self.folder.path())
            .env("NO_COLOR", "1");
        command
    }

    fn worker(&self, name: &str) -> Program {
        Program::start(&mut self.command(name))
    }

    async fn records(&self, job: &Job) -> Vec<MetricsRecord> {
        records(self.objects.as_ref(), job).await
    }

    async fn recorded(&self, job: &Job, cell: &CellId) -> bool {
        let key = names::record_key(&job.sweep, cell);
        store::exists(self.objects.as_ref(), &key).await.unwrap()
    }

    async fn attempt(&self, job: &Job) -> Option<Attempt> {
        self.queue.load_attempt(job).await.unwrap().map(|(attempt, _)| attempt)
    }

    /// Waits until the job has left the queue.
    async fn emptied(&self, job: &Job) {
        until("the job leaves the queue", async || {
            self.queue.open_jobs(&job.sweep_id()).await.is_ok_and(|open| open.is_empty())
        })
        .await;
    }

    /// The worker stands still in the middle of a measured cell that has no record.
    async fn freeze_mid_cell(&self, job: &Job, worker: &Program, name: &str) -> CellId {
        let mut events = self.events(job).await;
        loop {
            let cell = generating(&mut events, job, name).await;
            worker.freeze();
            if !self.recorded(job, &cell).await {
                return cell;
            }
            worker.thaw();
        }
    }
}

async fn open(folder: &Path) -> Arc<dyn ObjectStore> {
    let args = StoreArgs { store: Some(folder.display().to_string()), ..StoreArgs::default() };
    store::open(&args).await.unwrap()
}

/// A job whose cells take a second or so each: so hot that an end-of-sequence token is rare.
fn job(sweep: &str, model: &str, cells: u32) -> Job {
    let generation = GenerationSettings {
        max_new_tokens: 900,
        temperature: Some(5.0),
        top_p: Some(1.0),
        ..GenerationSettings::default()
    };
    let prompt = "Write a Python function that returns the factorial of n.";
    let cells = (1..=cells).map(|run| jobs::cell(run, prompt, generation.clone()));
    let engine = EngineSettings { dtype: Dtype::F32, ..EngineSettings::default() };
    let source = ModelSource::Builtin { name: model.into() };
    jobs::job(sweep, source, engine, cells.collect())
}

async fn until(what: &str, condition: impl AsyncFnMut() -> bool) {
    bakeoff_test_servers::until(what, LIMIT, condition).await;
}

async fn next(events: &mut BoxStream<'static, JobEvent>) -> JobEvent {
    let next = tokio::time::timeout(LIMIT, events.next()).await;
    next.expect("an event comes").expect("the stream of events goes on")
}

/// Waits until a worker reports that it is in the first half of a measured cell (the warm-up asks
/// for fewer tokens).
async fn generating(events: &mut BoxStream<'static, JobEvent>, job: &Job, worker: &str) -> CellId {
    let measured = job.cells[0].generation.max_new_tokens;
    loop {
        let event = next(events).await;
        match event.phase {
            JobPhase::Decoding { cell, tokens, max_tokens, .. }
                if event.worker == worker && max_tokens == measured && tokens * 2 < measured =>
            {
                return cell;
            }
            _ => {}
        }
    }
}

async fn records(objects: &dyn ObjectStore, job: &Job) -> Vec<MetricsRecord> {
    let mut found = Vec::new();
    for cell in &job.cells {
        let key = names::record_key(&job.sweep, &cell.id);
        if let Some(bytes) = store::read(objects, &key).await.unwrap() {
            found.push(serde_json::from_slice(&bytes).unwrap());
        }
    }
    found
}

async fn failures(objects: &dyn ObjectStore, job: &Job) -> Vec<Failure> {
    let mut found = Vec::new();
    for meta in store::list(objects, &names::failures_prefix(&job.sweep)).await.unwrap() {
        let bytes = store::read(objects, meta.location.as_ref()).await.unwrap().unwrap();
        let failure: Failure = serde_json::from_slice(&bytes).unwrap();
        if failure.job == job.id {
            found.push(failure);
        }
    }
    found
}

/// Each cell has a record, each record its markdown as stored, and nothing else lies there.
async fn assert_each_cell_once(objects: &dyn ObjectStore, jobs: &[&Job]) -> Vec<MetricsRecord> {
    let mut all = Vec::new();
    for job in jobs {
        let records = records(objects, job).await;
        assert_eq!(records.len(), job.cells.len());
        all.extend(records);
    }
    let listed = store::list(objects, jobs[0].sweep.as_str()).await.unwrap();
    let count = |extension| {
        listed.iter().filter(|meta| meta.location.extension() == Some(extension)).count()
    };
    assert_eq!((count("md"), count("csv"), count("json")), (all.len(), all.len(), all.len()));
    for record in &all {
        let bytes = store::read(objects, &record.document.key).await.unwrap().unwrap();
        assert_eq!(digest::sha256_hex(&bytes), record.document.sha256);
    }
    all
}

fn by(records: &[MetricsRecord], worker: &str) -> usize {
    records.iter().filter(|record| record.worker == worker).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_in_the_middle_of_a_cell_costs_that_cell_and_no_more() {
    let bench = Bench::new(SHORT_LEASE).await;
    let job = job("killed", "tiny-qwen2", 3);
    let mut events = bench.events(&job).await;
    bench.publish(&job).await;
    let mut first = bench.worker("first");
    // The second cell, so that there is one to be kept.
    while bench.records(&job).await.is_empty() {
        next(&mut events).await;
    }
    let cell = bench.freeze_mid_cell(&job, &first, "first").await;
    let kept = bench.records(&job).await.len();
    first.kill();
    let _second = bench.worker("second");
    bench.emptied(&job).await;
    let records = assert_each_cell_once(bench.objects.as_ref(), &[&job]).await;
    assert_eq!((by(&records, "first"), by(&records, "second")), (kept, 3 - kept));
    assert!(kept >= 1);
    assert!(records.iter().any(|record| record.cell == cell && record.worker == "second"));
    assert_eq!(bench.attempt(&job).await.unwrap().number, 2);
}

/// The lease is far too long to lapse: what the worker does not finish, it hands back.
#[tokio::test(flavor = "multi_thread")]
async fn sigterm_finishes_the_cell_and_hands_the_others_back() {
    let bench = Bench::new(LONG_LEASE).await;
    let job = job("drained", "tiny-qwen2", 3);
    let mut events = bench.events(&job).await;
    bench.publish(&job).await;
    let mut first = bench.worker("first");
    let cell = generating(&mut events, &job, "first").await;
    first.terminate();
    assert_eq!(first.wait(LIMIT).code(), STOPPED, "{}", first.stderr());
    assert!(bench.recorded(&job, &cell).await, "{}", first.stderr());
    let kept = bench.records(&job).await.len();
    assert!(kept < 3, "the test was too late to see anything handed back");
    let stats = bench.queue.stats(&[]).await.unwrap();
    assert_eq!(
        (stats.pending + stats.in_flight, bench.attempt(&job).await.unwrap().fruitless),
        (1, 0)
    );

    let mut second = Program::start(bench.command("second").arg("--once"));
    assert_eq!(second.wait(LIMIT).code(), Some(0), "{}", second.stderr());
    bench.emptied(&job).await;
    let records = assert_each_cell_once(bench.objects.as_ref(), &[&job]).await;
    assert_eq!((by(&records, "first"), by(&records, "second")), (kept, 3 - kept));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_stops_at_the_next_token_and_hands_the_job_back() {
    let bench = Bench::new(LONG_LEASE).await;
    let job = job("stopped", "tiny-qwen2", 2);
    bench.publish(&job).await;
    let mut first = bench.worker("first");
    let cell = bench.freeze_mid_cell(&job, &first, "first").await;
    first.terminate();
    first.thaw();
    first.wait_for_stderr("stopping on a signal", LIMIT);
    first.interrupt();
    assert_eq!(first.wait(LIMIT).code(), STOPPED, "{}", first.stderr());
    assert!(!bench.recorded(&job, &cell).await, "the cell was finished all the same");

    let mut second = Program::start(bench.command("second").arg("--once"));
    assert_eq!(second.wait(LIMIT).code(), Some(0), "{}", second.stderr());
    let records = assert_each_cell_once(bench.objects.as_ref(), &[&job]).await;
    assert!(records.iter().any(|record| record.cell == cell && record.worker == "second"));
    // A worker that is stopped has not failed.
    assert_eq!(bench.attempt(&job).await.unwrap().fruitless, 1);
}

/// Frozen past its lease, thawed when another has done the job: what it then makes is discarded.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_frozen_past_its_lease_discards_what_another_has_recorded() {
    let bench = Bench::new(SHORT_LEASE).await;
    let job = job("frozen", "tiny-qwen2", 1);
    bench.publish(&job).await;
    let mut first = Program::start(bench.command("first").arg("--once"));
    let cell = bench.freeze_mid_cell(&job, &first, "first").await;
    let mut second = Program::start(bench.command("second").arg("--once"));
    assert_eq!(second.wait(LIMIT).code(), Some(0), "{}", second.stderr());
    assert!(bench.recorded(&job, &cell).await);
    first.thaw();
    assert_eq!(first.wait(LIMIT).code(), Some(0), "{}", first.stderr());
    assert!(
        first.stderr().contains("another attempt has recorded this cell"),
        "{}",
        first.stderr()
    );
    let records = assert_each_cell_once(bench.objects.as_ref(), &[&job]).await;
    assert_eq!(by(&records, "second"), 1);
}

/// Six attempts, each killed after one more record: more than fruitless ones would be allowed.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_preempted_again_and_again_completes_because_each_attempt_brings_a_record() {
    let bench = Bench::new(SHORT_LEASE).await;
    let job = job("preempted", "tiny-qwen2", 6);
    bench.publish(&job).await;
    for done in 1..=5 {
        let mut worker = bench.worker(&format!("spot-{done}"));
        until("one more record", async || bench.records(&job).await.len() >= done).await;
        worker.kill();
    }
    let _last = bench.worker("last");
    bench.emptied(&job).await;
    assert_each_cell_once(bench.objects.as_ref(), &[&job]).await;
    assert!(failures(bench.objects.as_ref(), &job).await.is_empty());
}

/// As the kernel kills a process that takes too much memory: at the same job, each time.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_kills_its_workers_is_given_up_by_the_fifth_and_harms_no_other() {
    let bench = Bench::new(SHORT_LEASE).await;
    let poison = job("poison", "tiny-qwen2", 2);
    let other = job("poison", "tiny-qwen3", 1);
    bench.publish(&poison).await;
    bench.publish(&other).await;
    for number in 1..=4 {
        let mut worker = bench.worker(&format!("victim-{number}"));
        until("the job is claimed", async || {
            bench.attempt(&poison).await.is_some_and(|attempt| attempt.number == number)
        })
        .await;
        worker.kill();
    }
    let _fifth = bench.worker("fifth");
    bench.emptied(&poison).await;
    bench.emptied(&other).await;
    let failures = failures(bench.objects.as_ref(), &poison).await;
    assert_eq!(failures.len(), 2);
    for failure in failures {
        assert_eq!((failure.kind, failure.attempts), (FailureKind::AttemptsExhausted, 5));
        assert_eq!(failure.worker.as_deref(), Some("fifth"));
    }
    assert!(bench.records(&poison).await.is_empty());
    assert_eq!(bench.records(&other).await.len(), 1);
}

/// The broker dies without a word and stays away for longer than a lease; the worker goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_killed_and_restarted_costs_no_cell() {
    let mut bench = Bench::new(SHORT_LEASE).await;
    let jobs = [job("broker", "tiny-qwen2", 2), job("broker", "tiny-qwen3", 1)];
    for job in &jobs {
        bench.publish(job).await;
    }
    let mut events = bench.events(&jobs[0]).await;
    let mut worker = bench.worker("w");
    generating(&mut events, &jobs[0], "w").await;
    let before = bench.records(&jobs[0]).await.len();
    bench.server.kill();
    until("a cell is recorded without a broker", async || {
        bench.records(&jobs[0]).await.len() > before
    })
    .await;
    bench.server.restart();
    for job in &jobs {
        bench.emptied(job).await;
    }
    assert!(worker.is_running());
    assert_each_cell_once(bench.objects.as_ref(), &[&jobs[0], &jobs[1]]).await;
    worker.terminate();
    assert_eq!(worker.wait(LIMIT).code(), STOPPED, "{}", worker.stderr());
}

/// The store is cut off for longer than a lease, then takes what it is sent and loses the answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_and_then_loses_answers_costs_no_cell() {
    let bench = Bench::new(SHORT_LEASE).await;
    let s3 = S3Server::start();
    let proxy = Proxy::start(s3.port()).await.unwrap();
    let objects = store::open(&s3.args("outage")).await.unwrap();
    let job = job("outage", "tiny-qwen2", 2);
    let mut events = bench.events(&job).await;
    bench.publish(&job).await;
    let mut worker = Program::start(
        Command::new(env!("CARGO_BIN_EXE_worker"))
            .args(["run", "--nats", &bench.server.url(), "--name", "w", "--heartbeat", "0.25"])
            .args(["--store", "s3://results/outage"])
            .envs(s3.env())
            .env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", proxy.port()))
            .env("NO_COLOR", "1"),
    );
    generating(&mut events, &job, "w").await;
    proxy.set(Fault::Cut);
    // The pauses between the tries double: by the fifth, a lease without renewal had lapsed.
    until("the store is tried again and again", async || {
        worker.stderr().matches("the store is tried again").count() >= 5
    })
    .await;
    proxy.set(Fault::DropAnswersToWrites);
    until("a file arrives without an answer", async || {
        !store::list(objects.as_ref(), "outage").await.unwrap().is_empty()
    })
    .await;
    proxy.set(Fault::None);
    bench.emptied(&job).await;
    assert_each_cell_once(objects.as_ref(), &[&job]).await;
    // The lease was kept through it all: nobody else was given the job.
    assert_eq!(bench.attempt(&job).await.unwrap().number, 1);
    worker.terminate();
    assert_eq!(worker.wait(LIMIT).code(), STOPPED, "{}", worker.stderr());
}

/// A controller that wants a worker here tells one that was stopped from one that has nothing to
/// do.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_leaves_by_itself_ends_with_0_and_one_that_is_stopped_with_4() {
    let bench = Bench::new(LONG_LEASE).await;
    let mut idle = Program::start(bench.command("idle").args(["--idle-exit", "1"]));
    assert_eq!(idle.wait(LIMIT).code(), Some(0), "{}", idle.stderr());

    let mut waiting = bench.worker("waiting");
    waiting.wait_for_stderr("serving the queue", LIMIT);
    waiting.interrupt();
    assert_eq!(waiting.wait(LIMIT).code(), STOPPED, "{}", waiting.stderr());

    // While it still tries to connect.
    let [port] = free_ports();
    let mut connecting = Program::start(
        Command::new(env!("CARGO_BIN_EXE_worker"))
            .args(["run", "--nats", &format!("nats://127.0.0.1:{port}"), "--store", "memory:"])
            .args(["--nats-connect-s", "600", "--health-addr", "127.0.0.1:0"])
            .env("NO_COLOR", "1"),
    );
    connecting.wait_for_stderr("serving /healthz", LIMIT);
    connecting.terminate();
    assert_eq!(connecting.wait(LIMIT).code(), STOPPED, "{}", connecting.stderr());
}
