//! A small hub on loopback, with one model, `owner/model`, and one account. It drops connections,
//! refuses, and sends damaged files.

// Each test binary uses its own part of this.
#![allow(dead_code)]

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use bakeoff_proto::digest::sha256_hex;
use serde_json::{Value, json};

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// The token of the account `tester`.
pub const TOKEN: &str = "hf_of_the_test";

/// What the hub does and has seen.
#[derive(Default)]
pub struct State {
    /// The model's files by name; with none it is an empty configuration and weights that are none.
    pub files: Vec<(String, Vec<u8>)>,
    /// Break off the first transfer of the weights after so many bytes.
    pub drop_after: Option<usize>,
    /// Of the weights, instead of the true ones.
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
    pub fn start(mut state: State) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let weights: Vec<u8> = (0..300_000_u32).map(|i| (i * 7 % 251) as u8).collect();
        if state.files.is_empty() {
            let files = [("config.json", b"{}".to_vec()), ("model.safetensors", weights.clone())];
            state.files = files.map(|(name, bytes)| (name.to_owned(), bytes)).into();
        }
        let state = Arc::new(Mutex::new(state));
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = shared.clone();
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        Self { endpoint, state, weights, home: tempfile::tempdir().expect("a folder") }
    }

    /// A hub whose model is the files of a folder.
    pub fn of_folder(folder: &Path) -> Self {
        let files = std::fs::read_dir(folder).expect("a folder").map(|entry| {
            let entry = entry.expect("an entry");
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, std::fs::read(entry.path()).expect("a file"))
        });
        Self::start(State { files: files.collect(), ..State::default() })
    }

    /// The request lines so far, each with the first byte that was asked for.
    pub fn requests(&self) -> Vec<String> {
        self.state.lock().expect("the state").requests.clone()
    }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>) -> Option<()> {
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
    let known = authorization.as_deref() == Some(&format!("Bearer {TOKEN}"));
    state.authorizations.extend(authorization);
    state.requests.push(format!("{request} from {from}"));
    let head = request.starts_with("HEAD");
    let path = request.split(' ').nth(1)?.split('?').next()?.to_owned();
    let (status, code, body) = state.answer(&path, from, known);
    let sent = if path.ends_with("safetensors") && !head { state.drop_after.take() } else { None };
    drop(state);
    let length = body.len();
    let head_lines = format!(
        "HTTP/1.1 {status} X\r\nx-error-code: {code}\r\nconnection: close\r\n\
         content-length: {length}\r\n\r\n"
    );
    stream.write_all(head_lines.as_bytes()).ok()?;
    if !head {
        stream.write_all(&body[..sent.unwrap_or(body.len())]).ok()?;
    }
    Some(())
}

impl State {
    fn answer(&self, path: &str, from: usize, known: bool) -> (u16, &'static str, Vec<u8>) {
        let revision = path.strip_prefix("/api/models/owner/model/revision/");
        let file = path.strip_prefix(&format!("/owner/model/resolve/{COMMIT}/")[..]);
        match (path, revision, file) {
            _ if self.refuse.is_some() => {
                let (status, code) = self.refuse.unwrap_or_default();
                (status, code, Vec::new())
            }
            ("/api/models", ..) => (200, "", b"[]".to_vec()),
            ("/api/whoami-v2", ..) if known => (200, "", br#"{"name": "tester"}"#.to_vec()),
            ("/api/whoami-v2", ..) => (401, "", Vec::new()),
            (_, Some("main" | COMMIT), _) => (200, "", self.listing().to_string().into_bytes()),
            (_, Some(_), _) => (404, "RevisionNotFound", Vec::new()),
            (_, _, Some(file)) => match self.files.iter().find(|(name, _)| name == file) {
                Some((_, bytes)) => (if from > 0 { 206 } else { 200 }, "", bytes[from..].to_vec()),
                None => (404, "EntryNotFound", Vec::new()),
            },
            _ => (404, "RepoNotFound", Vec::new()),
        }
    }

    fn listing(&self) -> Value {
        let file = |(name, bytes): &(String, Vec<u8>)| {
            let sha256 = sha256_hex(bytes);
            let mut file = json!({"rfilename": name, "size": bytes.len(), "blobId": sha256[..40]});
            if name.ends_with(".safetensors") {
                let size = self.declared_size.unwrap_or(bytes.len() as u64);
                let sha256 = self.declared_sha256.clone().unwrap_or(sha256);
                file["lfs"] = json!({"sha256": sha256, "size": size, "pointerSize": 135});
            }
            file
        };
        let siblings: Vec<_> = self.files.iter().map(file).collect();
        json!({"id": "owner/model", "sha": COMMIT, "siblings": siblings})
    }
}
