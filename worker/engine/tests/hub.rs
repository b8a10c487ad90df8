//! Downloads from a small hub on loopback that drops connections, refuses, and sends damaged files.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bakeoff_engine::EngineError;
use bakeoff_engine::source::hub::HubSettings;
use bakeoff_engine::source::{ModelFiles, SourceOptions, WeightFiles, resolve};
use bakeoff_proto::{FailureKind, ModelSource, digest::sha256_hex};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the hub does and has seen.
#[derive(Default)]
struct State {
    /// Break off the first transfer of the weights after so many bytes.
    drop_after: Option<usize>,
    declared_size: Option<u64>,
    declared_sha256: Option<String>,
    refuse: Option<(u16, &'static str)>,
    requests: Vec<String>,
}

struct Hub {
    endpoint: String,
    state: Arc<Mutex<State>>,
    weights: Vec<u8>,
    home: tempfile::TempDir,
}

impl Hub {
    fn start(state: State) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let state = Arc::new(Mutex::new(state));
        let weights: Vec<u8> = (0..300_000_u32).map(|i| (i * 7 % 251) as u8).collect();
        let (shared, bytes) = (state.clone(), weights.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (shared, bytes) = (shared.clone(), bytes.clone());
                std::thread::spawn(move || serve(stream, &shared, &bytes));
            }
        });
        Self { endpoint, state, weights, home: tempfile::tempdir().expect("a folder") }
    }

    fn resolve(&self, revision: &str, offline: bool) -> Result<ModelFiles, EngineError> {
        let mut hub = HubSettings::from_env();
        hub.endpoint = self.endpoint.clone();
        hub.cache_dir = self.home.path().to_owned();
        hub.offline = offline;
        hub.first_delay = Duration::from_millis(1);
        hub.stall = Duration::from_secs(10);
        hub.fruitless_tries = 3;
        let source = ModelSource::Hub { id: "owner/model".into(), revision: revision.into() };
        let options = SourceOptions { weights: true, hub };
        resolve(&source, &options, &mut |_| ControlFlow::Continue(()))
    }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>, weights: &[u8]) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    let request = lines.next()?.ok()?;
    let mut from = 0;
    for line in lines.by_ref().map_while(Result::ok).take_while(|line| !line.is_empty()) {
        if let Some(range) = line.to_lowercase().strip_prefix("range: bytes=") {
            from = range.split('-').next()?.parse().ok()?;
        }
    }
    let mut state = state.lock().ok()?;
    state.requests.push(format!("{request} from {from}"));
    let head = request.starts_with("HEAD");
    let path = request.split(' ').nth(1)?.to_owned();
    let (status, code, body): (u16, &str, Vec<u8>) = if let Some((status, code)) = state.refuse {
        (status, code, Vec::new())
    } else if path.starts_with("/api/models/owner/model/revision/main")
        || path.contains(COMMIT) && path.starts_with("/api")
    {
        let sha = state.declared_sha256.clone().unwrap_or_else(|| sha256_hex(weights));
        let size = state.declared_size.unwrap_or(weights.len() as u64);
        let json = serde_json::json!({"sha": COMMIT, "siblings": [
            {"rfilename": "config.json", "size": 2, "blobId": "a".repeat(40)},
            {"rfilename": "model.safetensors", "size": size, "blobId": "b".repeat(40),
             "lfs": {"sha256": sha, "size": size, "pointerSize": 135}}]});
        (200, "", json.to_string().into_bytes())
    } else if path.starts_with("/api") {
        (404, "RevisionNotFound", Vec::new())
    } else if path.ends_with("config.json") {
        (200, "", b"{}".to_vec())
    } else {
        (if from > 0 { 206 } else { 200 }, "", weights[from..].to_vec())
    };
    let sent = if path.ends_with("safetensors") && !head { state.drop_after.take() } else { None };
    drop(state);
    write!(stream, "HTTP/1.1 {status} X\r\nx-error-code: {code}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len()).ok()?;
    if !head {
        stream.write_all(&body[..sent.unwrap_or(body.len())]).ok()?;
    }
    Some(())
}

#[test]
fn a_broken_transfer_is_resumed_and_then_needs_no_network() {
    let hub = Hub::start(State { drop_after: Some(100_000), ..State::default() });
    let files = hub.resolve("main", false).expect("resolved");
    assert_eq!(files.revision.as_deref(), Some(COMMIT));
    assert!(files.download_s.is_some());
    let WeightFiles::Paths(paths) = &files.weights else { panic!("weights on disk") };
    assert_eq!(std::fs::read(&paths[0]).expect("weights"), hub.weights);
    let seen = hub.state.lock().expect("state").requests.len();
    let resumed =
        hub.state.lock().expect("state").requests.iter().any(|r| r.ends_with("from 100000"));
    assert!(resumed, "the second transfer starts where the first broke off");
    for (revision, offline) in [(COMMIT, false), ("main", true)] {
        assert_eq!(hub.resolve(revision, offline).expect("cached").download_s, None);
    }
    assert_eq!(hub.state.lock().expect("state").requests.len(), seen, "no request more");
}

fn refused(state: State, revision: &str) -> EngineError {
    Hub::start(state).resolve(revision, false).expect_err("must fail")
}

#[test]
fn refusals_say_what_to_do() {
    for (status, code, words) in [
        (401, "RepoNotFound", "has no model `owner/model`"),
        (404, "RepoNotFound", "check the id"),
        (403, "GatedRepo", "set HF_TOKEN"),
    ] {
        let error = refused(State { refuse: Some((status, code)), ..State::default() }, "main");
        assert_eq!(error.kind, FailureKind::ModelNotFound);
        assert!(error.message.contains(words), "{error}");
    }
    let revision = refused(State::default(), "nope");
    assert!(revision.message.contains("has no revision `nope`"), "{revision}");
    let down = refused(State { refuse: Some((503, "")), ..State::default() }, "main");
    assert_eq!(down.kind, FailureKind::Download);
}

#[test]
fn damage_and_a_full_disk_are_told() {
    let damaged = State { declared_sha256: Some("0".repeat(64)), ..State::default() };
    let error = refused(damaged, "main");
    assert_eq!(error.kind, FailureKind::Download);
    assert!(error.message.contains("came damaged twice"), "{error}");
    let full = refused(State { declared_size: Some(1 << 60), ..State::default() }, "main");
    assert_eq!(full.kind, FailureKind::Disk);
    assert!(full.message.contains("bytes free"), "{full}");
    assert!(full.message.contains(&(1_u64 << 60).to_string()), "{full}");
}
