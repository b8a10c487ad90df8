//! A hub on loopback with one model, `owner/model`, and one account's token.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use bakeoff_proto::digest::sha256_hex;
use serde_json::{Value, json};

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
pub const TOKEN: &str = "hf_of_the_test";

pub struct Hub {
    pub endpoint: String,
    shared: Arc<Shared>,
}

struct Shared {
    files: Vec<(String, Vec<u8>)>,
    requests: Mutex<Vec<String>>,
}

impl Hub {
    /// Serves the files of a folder.
    pub fn serve(folder: &Path) -> Self {
        let files = std::fs::read_dir(folder).expect("a folder").map(|entry| {
            let entry = entry.expect("an entry");
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, std::fs::read(entry.path()).expect("a file"))
        });
        let shared = Arc::new(Shared { files: files.collect(), requests: Mutex::default() });
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let answering = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = answering.clone();
                std::thread::spawn(move || shared.answer(stream));
            }
        });
        Self { endpoint, shared }
    }

    /// Method, path and first byte asked for of every request so far.
    pub fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().expect("the requests").clone()
    }
}

impl Shared {
    fn answer(&self, mut stream: TcpStream) -> Option<()> {
        let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
        let request = lines.next()?.ok()?;
        let (mut from, mut token) = (0, None);
        for line in lines.by_ref().map_while(Result::ok).take_while(|line| !line.is_empty()) {
            if let Some(range) = line.to_lowercase().strip_prefix("range: bytes=") {
                from = range.split('-').next()?.parse().ok()?;
            }
            if let Some((name, value)) = line.split_once(": Bearer ") {
                token = name.eq_ignore_ascii_case("authorization").then(|| value.to_owned());
            }
        }
        let mut words = request.split(' ');
        let (method, path) = (words.next()?, words.next()?.split('?').next()?);
        self.requests.lock().ok()?.push(format!("{method} {path} from {from}"));
        let (status, code, body) = self.body(path, from, token.as_deref());
        write!(
            stream,
            "HTTP/1.1 {status} X\r\nx-error-code: {code}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        )
        .ok()?;
        if method != "HEAD" {
            stream.write_all(&body).ok()?;
        }
        Some(())
    }

    fn body(&self, path: &str, from: usize, token: Option<&str>) -> (u16, &'static str, Vec<u8>) {
        let revision = path.strip_prefix("/api/models/owner/model/revision/");
        let file = path.strip_prefix(&format!("/owner/model/resolve/{COMMIT}/")[..]);
        match (path, revision, file) {
            ("/api/models", ..) => (200, "", b"[]".to_vec()),
            ("/api/whoami-v2", ..) if token == Some(TOKEN) => {
                (200, "", br#"{"name": "tester"}"#.to_vec())
            }
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
                file["lfs"] = json!({"sha256": sha256, "size": bytes.len(), "pointerSize": 135});
            }
            file
        };
        json!({"sha": COMMIT, "siblings": self.files.iter().map(file).collect::<Vec<_>>()})
    }
}
