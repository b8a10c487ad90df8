//! Who may connect, how, and what the others are told: broker and store out of reach, wrong
//! credentials, TLS, missing permissions, messages that are too large. Exit code 2, at once.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bakeoff_test_servers::{Authority, NatsServer, S3Server, free_ports};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::programs::{Ended, coordinator, run, worker};

const SWEEP: &str = r#"
name = "access"
[generation]
runs = 1
[[prompts]]
id = "p"
text = "x"
[[models]]
id = "builtin:tiny-qwen2"
"#;

/// A folder with a sweep, and where both programs keep their results.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().expect("a temporary folder can be made") };
        place.write("sweep.toml", SWEEP);
        place
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).expect("the folder is writable");
        path
    }

    /// `coordinator submit`: needs the store, then all that a coordinator may do on the broker.
    fn submit(&self, access: &[(&str, &str)]) -> Ended {
        self.run(coordinator().args(["submit", "sweep.toml"]), access)
    }

    /// `worker run` until no job comes.
    fn serve(&self, access: &[(&str, &str)]) -> Ended {
        self.run(worker().args(["run", "--idle-exit", "1"]), access)
    }

    fn run(&self, command: &mut Command, access: &[(&str, &str)]) -> Ended {
        let results = self.folder.path().join("results");
        command.current_dir(self.folder.path()).env("BAKEOFF_STORE", results);
        command.env("BAKEOFF_NATS_CONNECT_S", "1").envs(access.iter().copied());
        run(command)
    }

    /// Both programs are refused with 2, and each says this.
    fn both_refused(&self, access: &[(&str, &str)], expected: &[&str]) {
        for ended in [self.submit(access), self.serve(access)] {
            let ended = ended.expect(2);
            for part in expected {
                assert!(ended.stderr.contains(part), "\"{part}\" is not in: {}", ended.stderr);
            }
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary path is UTF-8")
}

#[test]
fn a_broker_out_of_reach_is_told_with_its_address() {
    let [port] = free_ports();
    let url = format!("nats://user:hunter2@127.0.0.1:{port}");
    let place = Place::new();
    let address = format!("no answer from the broker at nats://127.0.0.1:{port}");
    place.both_refused(&[("NATS_URL", &url)], &[&address, "--nats"]);
    let shown = place.serve(&[("NATS_URL", &url)]).stderr;
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn a_user_is_let_in_by_password_or_nkey_and_refused_without() {
    let (known, unknown) = (KeyPair::new_user(), KeyPair::new_user());
    let server = NatsServer::start_with(&format!(
        "authorization {{ users: [ {{ user: bakeoff, password: right }}, {{ nkey: {} }} ] }}",
        known.public_key()
    ));
    let url = server.url();
    let place = Place::new();
    let refused = format!("the broker at {url} refused the credentials");
    let user = ["NATS_URL", "NATS_USER", "NATS_PASSWORD"];
    let login = |password| [(user[0], url.as_str()), (user[1], "bakeoff"), (user[2], password)];
    place.submit(&login("right")).expect(0);
    place.serve(&login("right")).expect(0);
    place.both_refused(&login("wrong"), &[&refused, "check the credentials file, nkey or user"]);
    place.both_refused(&[("NATS_URL", &url)], &[&refused]);

    let nkey = |key: &KeyPair| place.write("user.nk", &format!("{}\n", key.seed().unwrap()));
    let path = nkey(&known);
    place.submit(&[("NATS_URL", &url), ("NATS_NKEY", text(&path))]).expect(0);
    place.serve(&[("NATS_URL", &url), ("NATS_NKEY", text(&path))]).expect(0);
    let path = nkey(&unknown);
    place.both_refused(&[("NATS_URL", &url), ("NATS_NKEY", text(&path))], &[&refused]);
    let path = place.write("user.nk", "no seed");
    place.both_refused(
        &[("NATS_URL", &url), ("NATS_NKEY", text(&path))],
        &[text(&path), "holds no nkey seed"],
    );
    place.both_refused(
        &[("NATS_URL", &url), ("NATS_NKEY", "/no/such/file")],
        &["/no/such/file", "No such file"],
    );
}

/// As nsc makes them: an operator signs an account, the account signs the user.
#[test]
fn a_credentials_file_lets_its_user_in_and_another_does_not() {
    let operator = KeyPair::new_operator();
    let (system, account) = (KeyPair::new_account(), KeyPair::new_account());
    let limits = account_limits();
    let preload = |account: &KeyPair, nats: &Value| {
        format!("{}: {}", account.public_key(), jwt(&operator, account, "account", nats.clone()))
    };
    let server = NatsServer::start_with(&format!(
        "operator: {}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{ {}\n{} }}",
        jwt(&operator, &operator, "operator", json!({})),
        system.public_key(),
        preload(&system, &json!({"limits": {"conn": -1, "subs": -1, "data": -1, "payload": -1}})),
        preload(&account, &limits),
    ));
    let url = server.url();
    let place = Place::new();
    let path = place.write("user.creds", &credentials(&account));
    place.submit(&[("NATS_URL", &url), ("NATS_CREDS", text(&path))]).expect(0);
    place.serve(&[("NATS_URL", &url), ("NATS_CREDS", text(&path))]).expect(0);
    let refused = format!("the broker at {url} refused the credentials");
    let path = place.write("other.creds", &credentials(&KeyPair::new_account()));
    place.both_refused(&[("NATS_URL", &url), ("NATS_CREDS", text(&path))], &[&refused]);
    let path = place.write("empty.creds", "");
    place.both_refused(&[("NATS_URL", &url), ("NATS_CREDS", text(&path))], &[text(&path)]);
}

fn account_limits() -> Value {
    json!({"limits": {
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
        "conn": -1, "leaf": -1, "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1,
    }})
}

fn credentials(account: &KeyPair) -> String {
    let user = KeyPair::new_user();
    let jwt = jwt(account, &user, "user", json!({"subs": -1, "data": -1, "payload": -1}));
    format!(
        "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        user.seed().unwrap()
    )
}

/// A token of kind `kind` about `subject`, signed by `issuer`.
fn jwt(issuer: &KeyPair, subject: &KeyPair, kind: &str, mut nats: Value) -> String {
    nats["type"] = json!(kind);
    nats["version"] = json!(2);
    let claims = json!({
        "jti": "1", "iat": 1_700_000_000, "name": kind,
        "iss": issuer.public_key(), "sub": subject.public_key(), "nats": nats,
    });
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let header = encode(br#"{"typ":"JWT","alg":"ed25519-nkey"}"#);
    let signed = format!("{header}.{}", encode(claims.to_string().as_bytes()));
    let signature = issuer.sign(signed.as_bytes()).expect("a pair with its seed can sign");
    format!("{signed}.{}", encode(&signature))
}

#[test]
fn tls_holds_with_the_right_authority_and_name_and_is_refused_otherwise() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let server = tls_server(&authority, "127.0.0.1", "");
    let url = format!("tls://127.0.0.1:{}", server.port());
    let place = Place::new();
    let ca = authority.pem();
    place.submit(&[("NATS_URL", &url), ("NATS_CA", text(&ca))]).expect(0);
    place.serve(&[("NATS_URL", &url), ("NATS_CA", text(&ca))]).expect(0);
    let refused = format!("no secure connection to the broker at {url}");
    place.both_refused(&[("NATS_URL", &url)], &[&refused, "UnknownIssuer", "--nats-ca"]);
    let other = stranger.pem();
    place.both_refused(
        &[("NATS_URL", &url), ("NATS_CA", text(&other))],
        &[&refused, "--nats-ca (NATS_CA)"],
    );
    place.both_refused(
        &[("NATS_URL", &url), ("NATS_CA", "/no/such/ca.pem")],
        &["/no/such/ca.pem", "No such file"],
    );

    let elsewhere = tls_server(&authority, "broker.example", "");
    let url = format!("tls://127.0.0.1:{}", elsewhere.port());
    place.both_refused(
        &[("NATS_URL", &url), ("NATS_CA", text(&ca))],
        &["not valid for name", "connect by a host name that the broker's certificate holds"],
    );

    let plain = NatsServer::start();
    let url = format!("tls://127.0.0.1:{}", plain.port());
    place.both_refused(
        &[("NATS_URL", &url), ("NATS_CA", text(&ca))],
        &["no secure connection", "does the broker at this address speak TLS?"],
    );
}

#[test]
fn mutual_tls_wants_a_certificate_of_the_authority() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let server = tls_server(&authority, "127.0.0.1", "verify: true");
    let url = format!("tls://127.0.0.1:{}", server.port());
    let place = Place::new();
    let ca = authority.pem();
    let (ours, theirs) = (authority.sign(&["client"]), stranger.sign(&["client"]));
    let access = |of: &'static str| {
        let one = if of == "ours" { &ours } else { &theirs };
        [
            ("NATS_URL", url.as_str()),
            ("NATS_CA", text(&ca)),
            ("NATS_CERT", text(&one.certificate)),
            ("NATS_KEY", text(&one.key)),
        ]
    };
    place.submit(&access("ours")).expect(0);
    place.serve(&access("ours")).expect(0);
    place.both_refused(&access("theirs"), &["no secure connection", "--nats-cert"]);
    place.both_refused(
        &access("ours")[..2],
        &["no secure connection", "--nats-cert and --nats-key"],
    );
}

fn tls_server(authority: &Authority, name: &str, more: &str) -> NatsServer {
    let own = authority.sign(&[name]);
    NatsServer::start_with(&format!(
        "tls {{ cert_file: \"{}\", key_file: \"{}\", ca_file: \"{}\", {more} }}",
        own.certificate.display(),
        own.key.display(),
        authority.pem().display(),
    ))
}

/// A denied request would look like a time-out, a denied publish like a success.
#[test]
fn what_a_user_may_not_do_is_told_with_the_permission_that_lacks() {
    let server = NatsServer::start_with(
        "authorization { users: [
           { user: all, password: x }
           { user: reader, password: x, permissions: { publish: { deny: \"$JS.API.STREAM.>\" } } }
           { user: mute, password: x, permissions: { publish: { deny: \"bakeoff.jobs.>\" } } }
           { user: idle, password: x, permissions: { publish: { deny: \"$JS.API.CONSUMER.MSG.NEXT.>\" } } }
         ] }",
    );
    let url = server.url();
    let place = Place::new();
    let as_user = |user| [("NATS_URL", url.as_str()), ("NATS_USER", user), ("NATS_PASSWORD", "x")];
    let told = |ended: Ended, parts: &[&str]| {
        let ended = ended.expect(2);
        for part in parts {
            assert!(ended.stderr.contains(part), "\"{part}\" is not in: {}", ended.stderr);
        }
    };
    let reader = place.submit(&as_user("reader"));
    told(reader, &["the broker denied creating the stream BAKEOFF_JOBS", "$JS.API.STREAM."]);
    let mute = place.submit(&as_user("mute"));
    told(mute, &["the broker denied publishing job", "bakeoff.jobs.any."]);
    place.submit(&as_user("all")).expect(0);
    let idle = place.serve(&as_user("idle"));
    told(idle, &["the broker denied pulling jobs of class any", "$JS.API.CONSUMER.MSG.NEXT."]);
}

#[test]
fn a_store_that_refuses_is_told_with_what_to_check() {
    let s3 = S3Server::start();
    let server = NatsServer::start();
    let url = server.url();
    let endpoint = s3.endpoint();
    let place = Place::new();
    let as_user = |store: &'static str, key: &'static str, secret: &'static str| {
        [
            ("NATS_URL", url.as_str()),
            ("BAKEOFF_STORE", store),
            ("AWS_ENDPOINT_URL", endpoint.as_str()),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", key),
            ("AWS_SECRET_ACCESS_KEY", secret),
        ]
    };
    let (key, secret) = (S3Server::ACCESS_KEY_ID, S3Server::SECRET_ACCESS_KEY);
    place.submit(&as_user("s3://results/a", key, secret)).expect(0);
    place.serve(&as_user("s3://results/a", key, secret)).expect(0);
    place.both_refused(
        &as_user("s3://results/a", key, "hunter2"),
        &["refused the credentials", "AWS_SECRET_ACCESS_KEY"],
    );
    place.both_refused(
        &as_user("s3://results/a", "nobody", secret),
        &["refused the credentials", "AWS_ACCESS_KEY_ID"],
    );
    place.both_refused(
        &as_user("s3://nothing/a", key, secret),
        &["the bucket of s3://nothing/a does not exist: create it, or correct --store"],
    );
    let [port] = free_ports();
    let away = format!("http://127.0.0.1:{port}");
    // Without a key the library asks the machine's metadata service, which is not there either.
    let mut access = as_user("s3://results/a", key, secret);
    access[4] = ("AWS_METADATA_ENDPOINT", &away);
    place.both_refused(
        &access[..5],
        &["no credentials for the object store: set AWS_ACCESS_KEY_ID"],
    );
    let mut access = as_user("s3://results/a", key, secret);
    access[2].1 = &away;
    let started = std::time::Instant::now();
    place.both_refused(&access, &["no answer from the object store", "AWS_ENDPOINT_URL"]);
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

/// NATS takes no message over its limit: refused before anything is queued, with the sizes.
#[test]
fn a_job_that_no_message_holds_is_refused_with_its_size() {
    let server = NatsServer::start_with("max_payload: 65536");
    let url = server.url();
    let place = Place::new();
    let sweep = |kilobytes: usize| {
        place.write("prompt.txt", &"x".repeat(kilobytes * 1024));
        place.write("sweep.toml", &SWEEP.replace("text = \"x\"", "file = \"prompt.txt\""));
    };
    sweep(1025);
    for command in ["plan", "submit"] {
        let mut program = coordinator();
        let ended = place.run(program.args([command, "sweep.toml"]), &[("NATS_URL", &url)]);
        let stderr = ended.expect(2).stderr;
        assert!(stderr.contains("a job of model `builtin:tiny-qwen2` is 10"), "{stderr}");
        assert!(stderr.contains("a message holds at most 1044480"), "{stderr}");
        assert!(stderr.contains("cells_per_job"), "{stderr}");
    }
    // Within our limit, but not within this broker's.
    sweep(100);
    let stderr = place.submit(&[("NATS_URL", &url)]).expect(2).stderr;
    assert!(stderr.contains("the broker takes at most 65536"), "{stderr}");
    sweep(50);
    let mut program = coordinator();
    place
        .run(program.args(["submit", "sweep.toml", "--as", "small"]), &[("NATS_URL", &url)])
        .expect(0);
}
