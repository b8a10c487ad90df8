//! A small hub on loopback, with one model, that drops connections, refuses, and sends damaged files.

// Each test binary uses its own part of this.
#![allow(dead_code)]

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use bakeoff_proto::digest::sha256_hex;

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the hub does and has seen.
#[derive(Default)]
pub struct State {
    /// Break off the first transfer of the weights after so many bytes.
    pub drop_after: Option<usize>,
    pub declared_size: Option<u64>,
    pub declared_sha256: Option<String>,
    pub refuse: Option<(u16, &'static str)>,
    pub requests: Vec<String>,
    /// Values of the Authorization headers that came.
    pub authorizations: Vec<String>,
}

pub struct Hub {
    pub endpoint: String,
    pub state: Arc<Mutex<State>>,
    pub weights: Vec<u8>,
    pub home: tempfile::TempDir,
}

impl Hub {
    pub fn start(state: State) -> Self {
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
}

fn serve(mut stream: TcpStream, state: &Mutex<State>, weights: &[u8]) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    let request = lines.next()?.ok()?;
    let (mut from, mut authorization) = (0, None);
    for line in lines.by_ref().map_while(Result::ok).take_while(|line| !line.is_empty()) {
        if let Some(range) = line.to_lowercase().strip_prefix("range: bytes=") {
            from = range.split('-').next()?.parse().ok()?;
        }
        if line.to_lowercase().starts_with("authorization: ") {
            authorization = line.split_once(": ").map(|(_, value)| value.to_owned());
        }
    }
    let mut state = state.lock().ok()?;
    state.authorizations.extend(authorization);
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
        let json = serde_json::json!({"id": "owner/model", "sha": COMMIT, "siblings": [
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
