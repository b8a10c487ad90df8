//! What a worker shows while it works: `/healthz`, `/readyz` and `/metrics` of a real process, scraped
//! during a sweep, through outages of store and broker, to the drain.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bakeoff_model::{EngineSettings, GenerationSettings, ModelSource};
use bakeoff_proto::{Job, MetricsRecord, names};
use bakeoff_transport::queue::nats::NatsQueue;
use bakeoff_transport::queue::{JobQueue, QueueSettings};
use bakeoff_transport::store;
use bakeoff_test_servers::{
    Fault, NatsServer, Program, Proxy, S3Server, free_ports, jobs, wait_until,
};
use object_store::ObjectStore;

const LIMIT: Duration = Duration::from_secs(60);
const MODEL: &str = "builtin:tiny-qwen3";

/// The probes and metrics of one worker.
struct Shown {
    port: u16,
}

impl Shown {
    /// Status and body; `None` while nobody listens.
    fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: w\r\nconnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    fn status(&self, path: &str) -> u16 {
        self.get(path).map_or(0, |(status, _)| status)
    }

    /// Waits until `/readyz` answers with this status and says this.
    fn until_ready_says(&self, status: u16, words: &str) {
        until(&format!("/readyz: {status} {words}"), || {
            self.get("/readyz").is_some_and(|(s, body)| s == status && body.contains(words))
        });
    }

    /// The value of one sample, named with its labels.
    fn metric(&self, sample: &str) -> Option<f64> {
        let (_, text) = self.get("/metrics")?;
        let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '))?;
        line.parse().ok()
    }
}

fn until(what: &str, condition: impl FnMut() -> bool) {
    wait_until(what, LIMIT, condition);
}

fn job(sweep: &str, runs: u32) -> Job {
    let generation = GenerationSettings { max_new_tokens: 200, ..GenerationSettings::default() };
    let prompt = "Write a Python function that returns the factorial of n.";
    let cells = (1..=runs).map(|run| jobs::cell(run, prompt, generation.clone()));
    let source = ModelSource::Builtin { name: "tiny-qwen3".into() };
    jobs::job(sweep, source, EngineSettings::default(), cells.collect())
}

async fn tokens_recorded(store: &dyn ObjectStore, job: &Job) -> u64 {
    let mut tokens = 0;
    for cell in &job.cells {
        let bytes = store::read(store, &names::record_key(&job.sweep, &cell.id)).await.unwrap();
        let record: MetricsRecord = serde_json::from_slice(&bytes.expect("a record")).unwrap();
        tokens += u64::from(record.metrics.tokens_generated);
    }
    tokens
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_and_metrics_tell_what_a_worker_does_from_start_to_drain() {
    let mut broker = NatsServer::start();
    let s3 = S3Server::start();
    let proxy = Proxy::start(s3.port()).await.unwrap();
    let objects = store::open(&s3.args("observe")).await.unwrap();
    let queue = Arc::new(NatsQueue::connect(&broker.args()).await.unwrap());
    queue.prepare(&QueueSettings::default(), &["any".into()]).await.unwrap();

    // Only `any` is laid out: a worker whose own class has no consumer serves it all the same.
    // Somebody held the job before.
    let first = job("first", 8);
    queue.publish(&first).await.unwrap();
    let held = queue.pull(&["any".into()], LIMIT).await.unwrap().expect("the job");
    held.nak(Duration::ZERO).await.unwrap();

    let [port] = free_ports();
    let shown = Shown { port };
    let mut command = Command::new(env!("CARGO_BIN_EXE_worker"));
    command.env_clear().envs(s3.env()).args(["run", "--heartbeat", "0.3", "--grace", "50"]);
    command.args(["--store", "s3://results/observe", "--nats", &broker.url()]);
    command.args(["--s3-endpoint", &format!("http://127.0.0.1:{}", proxy.port())]);
    command.args(["--health-addr", &format!("127.0.0.1:{port}")]);
    let mut worker = Program::start(&mut command);
    until("/healthz answers", || shown.status("/healthz") == 200);
    until("the job is decoded", || {
        shown.metric("bakeoff_job_phase{phase=\"decoding\"}") == Some(1.0)
    });
    let lease = shown.metric("bakeoff_lease_age_seconds").unwrap();
    assert!(lease < 30.0, "{lease} s since the lease was renewed");
    shown.until_ready_says(200, "\"broker\":\"connected\",\"store\":\"reachable\"");
    until("the job is done", || shown.metric("bakeoff_jobs_total{outcome=\"done\"}") == Some(1.0));

    let of_model = |name: &str| shown.metric(&format!("{name}{{model=\"{MODEL}\"}}")).unwrap();
    let tokens = tokens_recorded(objects.as_ref(), &first).await;
    assert_eq!(of_model("bakeoff_tokens_generated_total"), tokens as f64);
    assert_eq!(of_model("bakeoff_ttft_seconds_count"), 8.0);
    assert_eq!(of_model("bakeoff_tpot_seconds_count"), 8.0);
    assert!(of_model("bakeoff_ttft_seconds_sum") > 0.0);
    assert_eq!(of_model("bakeoff_model_load_seconds_count"), 1.0);
    assert_eq!(shown.metric("bakeoff_cells_total{outcome=\"done\"}"), Some(8.0));
    assert_eq!(shown.metric("bakeoff_job_redeliveries_total"), Some(1.0));
    assert_eq!(shown.metric("bakeoff_store_retries_total"), Some(0.0));
    assert_eq!(shown.metric("bakeoff_job_phase{phase=\"idle\"}"), Some(1.0));
    assert_eq!(shown.metric("bakeoff_lease_age_seconds"), Some(0.0));
    let (_, text) = shown.get("/metrics").unwrap();
    assert!(text.contains("bakeoff_build_info{version=") && text.ends_with("# EOF\n"), "{text}");

    // The store is gone: not ready, but alive; and the job waits for it.
    proxy.set(Fault::Cut);
    shown.until_ready_says(503, "\"store\":\"unreachable\"");
    queue.publish(&job("second", 1)).await.unwrap();
    until("the store is tried again", || {
        shown.metric("bakeoff_store_retries_total").is_some_and(|retries| retries > 0.0)
    });
    assert_eq!(shown.status("/healthz"), 200);
    proxy.set(Fault::None);
    until("the job is done", || shown.metric("bakeoff_jobs_total{outcome=\"done\"}") == Some(2.0));
    shown.until_ready_says(200, "\"store\":\"reachable\"");

    broker.kill();
    shown.until_ready_says(503, "\"broker\":\"disconnected\"");
    assert_eq!(shown.status("/healthz"), 200);
    broker.restart();
    shown.until_ready_says(200, "\"broker\":\"connected\"");

    // Draining: the job in hand is held up by the store, so that there is time to look.
    proxy.set(Fault::Cut);
    until("the third job is queued", || {
        let published = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(queue.publish(&job("third", 1)))
        });
        published.is_ok()
    });
    until("it is held", || shown.metric("bakeoff_lease_age_seconds").is_some_and(|age| age > 0.0));
    worker.terminate();
    shown.until_ready_says(503, "\"draining\":true");
    proxy.set(Fault::None);
    assert_eq!(worker.wait(LIMIT).code(), Some(0));
}

#[test]
fn an_address_that_is_taken_is_told() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let refused = Command::new(env!("CARGO_BIN_EXE_worker"))
        .env_clear()
        .args(["run", "--nats", "nats://127.0.0.1:1", "--store", "/tmp", "--health-addr", &address])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains(&address) && said.contains("--health-addr"), "{said}");
}
