//! No secret shows in anything a run leaves: logs at trace level, messages of failure, help, records,
//! the plan, the reports. Every way to hand one over is used.

use std::process::Command;

use bakeoff_transport::store;
use bakeoff_test_servers::{NatsServer, S3Server, free_ports};
use nkeys::KeyPair;

use super::loopback_hub::{Hub, State};
use super::programs::{Ended, coordinator, run, worker};

const URL_PASSWORD: &str = "url-password-81b2";
const PASSWORD: &str = "nats-password-5c7d";
const HUB_TOKEN: &str = "hf_token0a9e4471b2";
const HUB_PASSWORD: &str = "mirror-password-77aa";
const COLLECTOR_TOKEN: &str = "collector-token-33fe";
const JWT: &str = "e30.e30.c2lnbmF0dXJl";

const SWEEP: &str = r#"
name = "secret"
[generation]
runs = 1
max_new_tokens = 64
[[prompts]]
id = "p"
text = "Write a Python function that returns the factorial of n."
[[models]]
id = "builtin:tiny-qwen2"
[[models]]
id = "owner/model"
"#;

/// All that was written, and where it was.
#[derive(Default)]
struct Left(Vec<(String, String)>);

impl Left {
    fn keep(&mut self, command: &mut Command) -> Ended {
        let what = format!("{:?}", command.get_args().collect::<Vec<_>>());
        let ended = run(command);
        self.0.push((format!("stdout of {what}"), ended.stdout.clone()));
        self.0.push((format!("stderr of {what}"), ended.stderr.clone()));
        ended
    }

    fn assert_without(&self, secret: &str) {
        for (place, text) in &self.0 {
            let line = text.lines().find(|line| line.contains(secret));
            assert!(line.is_none(), "{secret} is in {place}: {}", line.unwrap_or_default());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_run_leaves_holds_a_secret() {
    let nkey = KeyPair::new_user();
    let seed = nkey.seed().unwrap();
    let broker = NatsServer::start_with(&format!(
        "authorization {{ users: [{{ nkey: {} }}, {{ user: c, password: \"{URL_PASSWORD}\" }}, \
         {{ user: p, password: \"{PASSWORD}\" }}] }}",
        nkey.public_key()
    ));
    let s3 = S3Server::start();
    let hub = Hub::start(State::default());
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let seed_file = file("worker.nk", &seed);
    let creds_file = file(
        "user.creds",
        &format!(
            "-----BEGIN NATS USER JWT-----\n{JWT}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        ),
    );
    file("secret.toml", SWEEP);
    let plain_url = broker.url();
    let with_password = format!("nats://c:{URL_PASSWORD}@127.0.0.1:{}", broker.port());
    let by = |mut command: Command, args: &[&str], env: &[(&str, &str)]| {
        command.current_dir(folder.path()).envs(s3.env()).env_remove("HF_HUB_OFFLINE");
        command.env("BAKEOFF_STORE", "s3://results/secrets").env("RUST_LOG", "trace");
        command.env("HF_HOME", hub.home.path()).env("HF_TOKEN", HUB_TOKEN);
        command.env("HF_ENDPOINT", &hub.endpoint);
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1");
        command.env("OTEL_EXPORTER_OTLP_HEADERS", format!("authorization={COLLECTOR_TOKEN}"));
        command.args(args).envs(env.iter().copied());
        command
    };
    let mut left = Left::default();

    // The coordinator by a password in the URL, the worker by an nkey, in both forms of log.
    let by_url = [("NATS_URL", with_password.as_str())];
    left.keep(&mut by(coordinator(), &["submit", "secret.toml"], &by_url)).expect(0);
    let by_nkey = [("NATS_URL", plain_url.as_str()), ("NATS_NKEY", seed_file.as_str())];
    let json = [&by_nkey[..], &[("BAKEOFF_LOG_FORMAT", "json")]].concat();
    left.keep(&mut by(worker(), &["run", "--once"], &by_nkey)).expect(0);
    left.keep(&mut by(worker(), &["run", "--once"], &json)).expect(0);
    left.keep(&mut by(worker(), &["doctor", "--json"], &by_nkey));
    for args in [&["watch", "secret"][..], &["collect", "secret"], &["status", "secret", "--json"]]
    {
        left.keep(&mut by(coordinator(), args, &by_url));
    }
    let by_password =
        [("NATS_URL", plain_url.as_str()), ("NATS_USER", "p"), ("NATS_PASSWORD", PASSWORD)];
    left.keep(&mut by(coordinator(), &["status"], &by_password)).expect(0);

    // What is refused is told, and not with the secret.
    let [closed] = free_ports();
    let nobody = format!("nats://c:{URL_PASSWORD}@127.0.0.1:{closed}");
    for env in [
        vec![("NATS_URL", nobody.as_str()), ("BAKEOFF_NATS_CONNECT_S", "1")],
        vec![("NATS_URL", plain_url.as_str()), ("NATS_CREDS", creds_file.as_str())],
        vec![("NATS_URL", plain_url.as_str()), ("NATS_USER", "x"), ("NATS_PASSWORD", PASSWORD)],
    ] {
        left.keep(&mut by(coordinator(), &["submit", "secret.toml"], &env)).expect(2);
        let ended = left.keep(&mut by(worker(), &["run", "--once"], &env));
        assert_ne!(ended.code, Some(0), "{}", ended.stderr);
    }
    let other_key = [("AWS_ACCESS_KEY_ID", "nobody")];
    left.keep(&mut by(coordinator(), &["collect", "secret"], &other_key)).expect(2);
    let mirror = hub.endpoint.replace("http://", &format!("http://u:{HUB_PASSWORD}@"));
    let mirror = [("HF_ENDPOINT", mirror.as_str())];
    left.keep(&mut by(worker(), &["fetch", "owner/model@nope"], &mirror)).expect(2);
    left.keep(&mut by(worker(), &["doctor"], &mirror));
    left.keep(&mut by(coordinator(), &["plan", "secret.toml"], &mirror));

    for command in ["run", "submit", "watch", "status", "collect", "review", "plan"] {
        left.keep(&mut by(coordinator(), &[command, "--help"], &by_password)).expect(0);
    }
    for command in ["run", "doctor", "generate", "fetch", "bench"] {
        left.keep(&mut by(worker(), &[command, "--help"], &by_url)).expect(0);
    }

    let objects = store::open(&s3.args("secrets")).await.unwrap();
    let stored = store::list(objects.as_ref(), "secret").await.unwrap();
    for meta in &stored {
        let key = meta.location.to_string();
        let bytes = store::read(objects.as_ref(), &key).await.unwrap().expect("a listed object");
        left.0.push((key, String::from_utf8_lossy(&bytes).into_owned()));
    }
    let has = |part: &str| left.0.iter().any(|(place, _)| place.contains(part));
    for part in ["sweep.json", "metrics/", "failed/", "report.md", "report.html", "telemetry/"] {
        assert!(has(part), "the run left no {part}: {stored:?}");
    }
    let traced = left.0.iter().filter(|(_, text)| text.contains("TRACE")).count();
    assert!(traced >= 4, "logs at trace level are among it: {traced}");
    let asked = hub.state.lock().unwrap().authorizations.clone();
    assert!(asked.iter().any(|value| value.contains(HUB_TOKEN)), "the token was used: {asked:?}");

    for secret in [
        URL_PASSWORD,
        PASSWORD,
        HUB_TOKEN,
        HUB_PASSWORD,
        COLLECTOR_TOKEN,
        S3Server::SECRET_ACCESS_KEY,
        seed.as_str(),
        JWT,
    ] {
        left.assert_without(secret);
    }
}
