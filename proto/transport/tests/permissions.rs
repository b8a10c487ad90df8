//! The permission matrix of `deploy/nats.conf`: a real broker with that very file and TLS, its two
//! users, all that each must be able to do, and all that each must not.

use std::future::Future;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event, ServerError};
use bakeoff_model::{EngineSettings, GenerationSettings, ModelSource};
use bakeoff_proto::{Attempt, AttemptId, Job, JobEvent, JobPhase, SweepId, SweepName};
use bakeoff_test_servers::{NatsServer, jobs, until};
use bakeoff_transport::args::NatsArgs;
use bakeoff_transport::queue::nats::NatsQueue;
use bakeoff_transport::queue::{JobQueue, Published, QueueError, QueueSettings};
use futures::StreamExt;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Within this time a refusal must show. A request that nobody answers takes ten seconds.
const PROMPTLY: Duration = Duration::from_secs(3);
const SOON: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy)]
enum User {
    Coordinator,
    Worker,
}

impl User {
    fn name(self) -> &'static str {
        match self {
            User::Coordinator => "coordinator",
            User::Worker => "worker",
        }
    }

    fn inbox(self) -> String {
        format!("_INBOX_{}", self.name())
    }
}

/// A broker as it is deployed: the file, and keys made as the runbook says.
struct Deployed {
    server: NatsServer,
    secrets: TempDir,
}

impl Deployed {
    fn start() -> Self {
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
        let secrets = make_secrets(&deploy);
        let keys = std::fs::read_to_string(secrets.path().join("nats.env")).unwrap();
        let env = keys.lines().map(|line| {
            let (name, value) = line.split_once('=').expect("NAME=value");
            (name.to_owned(), value.to_owned())
        });
        let file = std::fs::read_to_string(deploy.join("nats.conf")).unwrap();
        let server = NatsServer::start_as(env, |port, data| {
            let text = replace(&file, "\"0.0.0.0:4222\"", &format!("\"127.0.0.1:{port}\""));
            let text = replace(&text, "\"0.0.0.0:8222\"", "\"127.0.0.1:-1\"");
            let text = replace(&text, "/etc/nats-tls", &secrets.path().display().to_string());
            replace(&text, "\"/data\"", &format!("\"{}\"", data.display()))
        });
        Self { server, secrets }
    }

    fn url(&self) -> String {
        format!("tls://127.0.0.1:{}", self.server.port())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.secrets.path().join(name)
    }

    fn args(&self, user: User) -> NatsArgs {
        NatsArgs {
            nats: Some(self.url()),
            nats_nkey: Some(self.file(&format!("{}.nk", user.name()))),
            nats_ca: Some(self.file("ca.crt")),
            nats_inbox: Some(user.inbox()),
            nats_connect_s: 5,
            ..NatsArgs::default()
        }
    }

    async fn queue(&self, user: User) -> NatsQueue {
        NatsQueue::connect(&self.args(user)).await.unwrap()
    }

    /// Both users' queues, laid out as the coordinator does.
    async fn queues(&self) -> (NatsQueue, NatsQueue) {
        let coordinator = self.queue(User::Coordinator).await;
        coordinator.prepare(&QueueSettings::default(), &classes()).await.unwrap();
        (coordinator, self.queue(User::Worker).await)
    }

    /// A bare client of a user, with what the broker refuses it.
    async fn client(&self, user: User) -> (Client, mpsc::UnboundedReceiver<String>) {
        let (sender, violations) = mpsc::unbounded_channel();
        let seed = std::fs::read_to_string(self.file(&format!("{}.nk", user.name()))).unwrap();
        let options = ConnectOptions::new()
            .nkey(seed.trim().to_owned())
            .add_root_certificates(self.file("ca.crt"))
            .require_tls(true)
            .custom_inbox_prefix(user.inbox())
            .event_callback(move |event| {
                if let Event::ServerError(ServerError::Other(message)) = event {
                    // Nobody listens any more at the end of the test.
                    let _ = sender.send(message);
                }
                async {}
            });
        (options.connect(self.url()).await.unwrap(), violations)
    }
}

fn make_secrets(deploy: &Path) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(deploy.join("make-secrets.sh"))
        .arg(folder.path())
        .args(["127.0.0.1", "localhost"])
        .output()
        .expect("deploy/make-secrets.sh runs: it needs bash, openssl 3 and python3");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "deploy/make-secrets.sh failed: {said}");
    folder
}

/// Replaces what must be there, so that a changed file cannot silently go untested.
fn replace(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "deploy/nats.conf holds no {from}");
    text.replace(from, to)
}

fn classes() -> Vec<String> {
    vec!["any".into(), "cpu".into()]
}

fn sweep() -> SweepName {
    "permissions".parse().unwrap()
}

fn sweep_id() -> SweepId {
    SweepId { name: sweep(), incarnation: None }
}

fn job(prompt: &str) -> Job {
    let source = ModelSource::Builtin { name: "tiny-qwen2".into() };
    let cells = vec![jobs::cell(1, prompt, GenerationSettings::default())];
    jobs::job(sweep().as_str(), source, EngineSettings::default(), cells)
}

fn attempt() -> Attempt {
    Attempt {
        id: AttemptId("a".into()),
        worker: "w".into(),
        number: 1,
        fruitless: 1,
        done_at_start: 0,
    }
}

fn event(job: &Job) -> JobEvent {
    JobEvent {
        sweep: sweep(),
        job: job.id.clone(),
        generation: 1,
        attempt: None,
        worker: "w".into(),
        at: jiff::Timestamp::UNIX_EPOCH,
        phase: JobPhase::Done,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_two_users_can_run_a_sweep() {
    let deployed = Deployed::start();
    let (coordinator, worker) = deployed.queues().await;
    // Laid out once more, as the next submission does.
    coordinator.prepare(&QueueSettings::default(), &classes()).await.unwrap();

    let first = job("x");
    assert_eq!(coordinator.publish(&first).await.unwrap(), Published::Queued);
    assert_eq!(coordinator.publish(&first).await.unwrap(), Published::AlreadyQueued);
    let open = coordinator.open_jobs(&sweep_id()).await.unwrap();
    assert_eq!(open, std::slice::from_ref(&first.id));
    // A consumer counts a message a moment after the stream has it.
    until("the job is counted", SOON, async || coordinator.stats(&[]).await.unwrap().pending == 1)
        .await;
    let mut events = coordinator.events(&sweep()).await.unwrap();

    let held = worker.pull(&classes(), SOON).await.unwrap().expect("the job is delivered");
    held.progress().await.unwrap();
    assert!(worker.load_attempt(&first).await.unwrap().is_none());
    let claimed = worker.store_attempt(&first, &attempt(), None).await.unwrap();
    assert_eq!(worker.load_attempt(&first).await.unwrap(), Some((attempt(), claimed)));
    worker.store_attempt(&first, &attempt(), Some(claimed)).await.unwrap();
    worker.emit(&event(&first)).await.unwrap();
    let seen = timeout(SOON, events.next()).await.expect("the event arrives");
    assert_eq!(seen, Some(event(&first)));
    assert_eq!(coordinator.event_count().await.unwrap(), 1);

    let mut cancelled = worker.watch_cancel(&sweep_id()).await.unwrap();
    coordinator.publish(&job("y")).await.unwrap();
    coordinator.cancel(&sweep_id()).await.unwrap();
    timeout(SOON, cancelled.wait_for(|now| *now)).await.expect("in time").unwrap();
    held.ack().await.unwrap();
    assert!(coordinator.open_jobs(&sweep_id()).await.unwrap().is_empty());
    coordinator.clear_cancel(&sweep_id()).await.unwrap();
    timeout(SOON, cancelled.wait_for(|now| !*now)).await.expect("in time").unwrap();

    coordinator.publish(&job("z")).await.unwrap();
    let back = worker.pull(&classes(), SOON).await.unwrap().expect("another job");
    back.nak(Duration::ZERO).await.unwrap();
    let again = worker.pull(&classes(), SOON).await.unwrap().expect("handed back");
    again.term("enough").await.unwrap();
}

/// The operation fails in time, as a denial that names what was not allowed.
async fn denied<T: std::fmt::Debug>(
    subject: &str,
    operation: impl Future<Output = Result<T, QueueError>>,
) {
    let outcome = timeout(PROMPTLY, operation).await;
    match outcome.unwrap_or_else(|_| panic!("{subject}: no refusal within {PROMPTLY:?}")) {
        Err(error @ QueueError::Denied { .. }) => {
            let message = error.to_string();
            assert!(message.contains(subject), "{subject} is not in: {message}");
            assert!(message.contains("Permissions Violation"), "{message}");
        }
        other => panic!("{subject}: expected a denial, got {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_may_not_do_what_a_coordinator_does() {
    let deployed = Deployed::start();
    let (coordinator, worker) = deployed.queues().await;
    let queued = job("x");
    coordinator.publish(&queued).await.unwrap();

    let settings = QueueSettings::default();
    denied("$JS.API.STREAM.UPDATE.BAKEOFF_JOBS", worker.prepare(&settings, &classes())).await;
    denied("bakeoff.jobs.any.", worker.publish(&job("y"))).await;
    denied("$JS.API.STREAM.INFO.BAKEOFF_JOBS", worker.open_jobs(&sweep_id())).await;
    denied("$JS.API.STREAM.INFO.BAKEOFF_JOBS", worker.stats(&[])).await;
    denied("$JS.API.STREAM.INFO.BAKEOFF_EVENTS", async {
        worker.events(&sweep()).await.map(|_| "events")
    })
    .await;
    denied("$KV.BAKEOFF_CONTROL.cancel.", worker.cancel(&sweep_id())).await;
    denied("$KV.BAKEOFF_CONTROL.cancel.", worker.clear_cancel(&sweep_id())).await;

    assert_eq!(coordinator.open_jobs(&sweep_id()).await.unwrap(), [queued.id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_may_not_do_what_a_worker_does() {
    let deployed = Deployed::start();
    let (coordinator, worker) = deployed.queues().await;
    let queued = job("x");
    coordinator.publish(&queued).await.unwrap();

    denied("$JS.API.CONSUMER.INFO.BAKEOFF_JOBS.workers-any", async {
        coordinator.pull(&classes(), SOON).await.map(|pulled| pulled.is_some())
    })
    .await;
    denied("KV_BAKEOFF_ATTEMPTS", coordinator.load_attempt(&queued)).await;
    denied("KV_BAKEOFF_ATTEMPTS", coordinator.store_attempt(&queued, &attempt(), None)).await;
    denied("$JS.API.CONSUMER.CREATE.KV_BAKEOFF_CONTROL", coordinator.watch_cancel(&sweep_id()))
        .await;

    let held = worker.pull(&classes(), SOON).await.unwrap();
    held.expect("the job is still there").ack().await.unwrap();
}

/// Everything worth trying for someone who holds a user's seed but not our code.
const NO_USER_MAY_PUBLISH: [&str; 20] = [
    "$JS.API.STREAM.CREATE.OTHER",
    "$JS.API.STREAM.DELETE.BAKEOFF_JOBS",
    "$JS.API.STREAM.DELETE.BAKEOFF_EVENTS",
    "$JS.API.STREAM.DELETE.KV_BAKEOFF_ATTEMPTS",
    "$JS.API.STREAM.DELETE.KV_BAKEOFF_CONTROL",
    "$JS.API.STREAM.PURGE.BAKEOFF_EVENTS",
    "$JS.API.STREAM.PURGE.KV_BAKEOFF_ATTEMPTS",
    "$JS.API.STREAM.PURGE.KV_BAKEOFF_CONTROL",
    "$JS.API.STREAM.MSG.GET.BAKEOFF_JOBS",
    "$JS.API.STREAM.MSG.DELETE.BAKEOFF_JOBS",
    "$JS.API.DIRECT.GET.BAKEOFF_JOBS",
    "$JS.API.STREAM.LIST",
    "$JS.API.STREAM.NAMES",
    "$JS.API.STREAM.SNAPSHOT.BAKEOFF_JOBS",
    "$JS.API.STREAM.RESTORE.BAKEOFF_JOBS",
    "$JS.API.CONSUMER.DELETE.BAKEOFF_JOBS.workers-any",
    "$JS.API.CONSUMER.CREATE.KV_BAKEOFF_ATTEMPTS.spy",
    "$JS.API.CONSUMER.MSG.NEXT.KV_BAKEOFF_ATTEMPTS.spy",
    "$SYS.REQ.SERVER.PING",
    "_INBOX.forged.answer",
];
const NO_USER_MAY_SUBSCRIBE: [&str; 8] = [
    ">",
    "bakeoff.>",
    "bakeoff.jobs.>",
    "bakeoff.events.>",
    "$KV.>",
    "$JS.>",
    "$SYS.>",
    "_INBOX.>",
];
const A_WORKER_MAY_NOT_PUBLISH: [&str; 12] = [
    "bakeoff.jobs.any.x.y",
    "$JS.API.STREAM.UPDATE.BAKEOFF_JOBS",
    "$JS.API.STREAM.PURGE.BAKEOFF_JOBS",
    "$JS.API.STREAM.INFO.BAKEOFF_JOBS",
    "$JS.API.CONSUMER.LIST.BAKEOFF_JOBS",
    "$JS.API.CONSUMER.CREATE.BAKEOFF_JOBS.spy",
    "$JS.API.CONSUMER.DURABLE.CREATE.BAKEOFF_JOBS.spy",
    "$JS.API.CONSUMER.CREATE.BAKEOFF_EVENTS.spy",
    "$JS.API.CONSUMER.MSG.NEXT.BAKEOFF_EVENTS.spy",
    "$JS.ACK.BAKEOFF_EVENTS.spy.1.1.1.1.0",
    "$KV.BAKEOFF_CONTROL.cancel.0123456789abcdef",
    "_INBOX_coordinator.forged.answer",
];
const A_COORDINATOR_MAY_NOT_PUBLISH: [&str; 6] = [
    "bakeoff.events.x.y",
    "$JS.API.CONSUMER.MSG.NEXT.BAKEOFF_JOBS.workers-any",
    "$JS.ACK.BAKEOFF_JOBS.workers-any.1.1.1.1.0",
    "$KV.BAKEOFF_ATTEMPTS.x.y.1",
    "$JS.API.CONSUMER.CREATE.KV_BAKEOFF_CONTROL.spy",
    "_INBOX_worker.forged.answer",
];

#[tokio::test(flavor = "multi_thread")]
async fn whoever_holds_a_seed_can_do_no_more_than_its_user() {
    let deployed = Deployed::start();
    let (coordinator, _) = deployed.queues().await;
    let queued = job("x");
    coordinator.publish(&queued).await.unwrap();

    for (user, publish, other) in [
        (User::Worker, A_WORKER_MAY_NOT_PUBLISH.as_slice(), User::Coordinator),
        (User::Coordinator, A_COORDINATOR_MAY_NOT_PUBLISH.as_slice(), User::Worker),
    ] {
        let (client, mut violations) = deployed.client(user).await;
        for subject in NO_USER_MAY_PUBLISH.iter().chain(publish) {
            client.publish(*subject, "{}".into()).await.unwrap();
            refused(user, &mut violations, "Publish", subject).await;
        }
        let inbox = format!("{}.>", other.inbox());
        for subject in NO_USER_MAY_SUBSCRIBE.into_iter().chain([inbox.as_str()]) {
            let subscription = client.subscribe(subject.to_owned()).await.unwrap();
            refused(user, &mut violations, "Subscription", subject).await;
            drop(subscription);
        }
    }
    assert_eq!(coordinator.open_jobs(&sweep_id()).await.unwrap(), [queued.id]);
    assert_eq!(coordinator.stats(&[]).await.unwrap().pending, 1);
}

async fn refused(
    user: User,
    violations: &mut mpsc::UnboundedReceiver<String>,
    deed: &str,
    subject: &str,
) {
    let message = timeout(PROMPTLY, violations.recv()).await;
    let message = message.unwrap_or_else(|_| panic!("{user:?} may use {subject}")).unwrap();
    let expected = format!("Permissions Violation for {deed} to \"{subject}\"");
    assert!(message.contains(&expected), "{user:?} at {subject}: {message}");
}

/// The inbox is subscribed once, and the broker says only once that it may not be.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_cannot_receive_answers_learns_what_to_set() {
    let deployed = Deployed::start();
    let (coordinator, _) = deployed.queues().await;
    coordinator.publish(&job("x")).await.unwrap();
    let args = NatsArgs { nats_inbox: None, ..deployed.args(User::Worker) };
    let worker = NatsQueue::connect(&args).await.unwrap();
    for _ in 0..2 {
        let pull = async { worker.pull(&classes(), SOON).await.map(|_| "a job") };
        denied("\"_INBOX.", pull).await;
    }
    let error = worker.load_attempt(&job("x")).await.unwrap_err();
    assert!(error.to_string().contains("NATS_INBOX_PREFIX"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_refused_at_once_with_the_reason() {
    let deployed = Deployed::start();
    let connect = |args: NatsArgs| async move {
        let outcome = timeout(SOON, NatsQueue::connect(&args)).await;
        outcome.expect("an answer in time").err().expect("a refusal")
    };
    let known = deployed.args(User::Worker);

    let anonymous = connect(NatsArgs { nats_nkey: None, ..known.clone() }).await;
    assert!(matches!(anonymous, QueueError::Unauthorized { .. }), "{anonymous}");

    let elsewhere = make_secrets(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy"));
    let strange_key = Some(elsewhere.path().join("worker.nk"));
    let stranger = connect(NatsArgs { nats_nkey: strange_key, ..known.clone() }).await;
    assert!(matches!(stranger, QueueError::Unauthorized { .. }), "{stranger}");

    let strange_ca = Some(elsewhere.path().join("ca.crt"));
    let other_authority = connect(NatsArgs { nats_ca: strange_ca, ..known.clone() }).await;
    assert!(other_authority.to_string().contains("certificate"), "{other_authority}");

    // A client that is not set to use TLS learns of it from the broker, and trusts no unknown
    // authority.
    let plain = format!("nats://127.0.0.1:{}", deployed.server.port());
    let plain = connect(NatsArgs { nats: Some(plain), nats_ca: None, ..known }).await;
    assert!(plain.to_string().contains("certificate"), "{plain}");
}

#[test]
fn a_client_that_speaks_no_tls_gets_no_further_than_the_greeting() {
    let deployed = Deployed::start();
    let mut stream = TcpStream::connect(("127.0.0.1", deployed.server.port())).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
        .write_all(b"CONNECT {\"verbose\":true}\r\nPUB bakeoff.jobs.any.x.y 2\r\n{}\r\n")
        .unwrap();
    let mut heard = Vec::new();
    // The broker closes: an end of file, or a reset when it has not read all.
    let end = stream.read_to_end(&mut heard);
    if let Err(error) = &end {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    }
    let heard = String::from_utf8_lossy(&heard);
    assert!(heard.starts_with("INFO ") && heard.contains("\"tls_required\":true"), "{heard}");
    assert!(!heard.contains("+OK"), "{heard}");
}
