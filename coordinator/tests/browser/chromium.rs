//! A headless Chromium of its own for each test, driven over its DevTools protocol. It reaches no
//! address but this machine's, and is gone when dropped.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bakeoff_test_servers::{axe_core, wait_until};
use serde_json::{Value, json};
use tempfile::TempDir;
use tungstenite::{Message, WebSocket};

/// How long the browser may take over one command or event.
const PATIENCE: Duration = Duration::from_secs(60);

/// One browser with one open page.
pub struct Page {
    process: Child,
    socket: WebSocket<TcpStream>,
    session: Option<String>,
    last_id: u64,
    /// Everything the browser told without being asked, oldest first.
    events: Vec<Value>,
    _profile: TempDir,
}

impl Page {
    /// Starts Chromium (Debian's `chromium`, or what `$CHROMIUM` names) with an empty profile.
    ///
    /// # Panics
    /// When it cannot be had: pages that no browser has shown are not tested.
    pub fn open() -> Self {
        let program = std::env::var_os("CHROMIUM").unwrap_or_else(|| "chromium".into());
        let profile = tempfile::tempdir().expect("a folder for the profile");
        let process = Command::new(&program)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--remote-debugging-port=0",
                // Whatever a page asks for elsewhere fails here, and is seen as a request all the same.
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!(
                    "cannot start {}: {error}; install Debian's `chromium`, or name a browser in $CHROMIUM",
                    program.display()
                )
            });
        let socket = connect(&profile.path().join("DevToolsActivePort"));
        let mut page = Self {
            process,
            socket,
            session: None,
            last_id: 0,
            events: Vec::new(),
            _profile: profile,
        };
        let target = page.call("Target.createTarget", json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = page.call("Target.attachToTarget", attach);
        page.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Network", "Runtime", "Log"] {
            page.call(&format!("{domain}.enable"), json!({}));
        }
        page.size(1280, 900);
        page
    }

    /// Sends a command and returns its result.
    ///
    /// # Panics
    /// When the browser refuses it.
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.last_id += 1;
        let id = self.last_id;
        let mut command = json!({"id": id, "method": method, "params": params});
        if let Some(session) = &self.session {
            command["sessionId"] = json!(session);
        }
        self.socket.send(Message::text(command.to_string())).expect("the browser listens");
        loop {
            let message = self.read(method);
            if message["id"] == json!(id) {
                assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                return message["result"].clone();
            }
            self.events.push(message);
        }
    }

    fn read(&mut self, waiting_for: &str) -> Value {
        loop {
            let message = self.socket.read().unwrap_or_else(|error| {
                panic!("the browser said nothing for {PATIENCE:?} ({waiting_for}): {error}")
            });
            if let Message::Text(text) = message {
                return serde_json::from_str(&text).expect("the protocol is JSON");
            }
        }
    }

    /// The parameters of every event of this name since the last [`Page::goto`].
    pub fn events(&self, method: &str) -> Vec<&Value> {
        let named = |event: &&Value| event["method"] == json!(method);
        self.events.iter().filter(named).map(|event| &event["params"]).collect()
    }

    /// Loads a page and waits until everything it asks for is there.
    pub fn goto(&mut self, url: &str) {
        self.events.clear();
        let answer = self.call("Page.navigate", json!({"url": url}));
        assert!(answer["errorText"].is_null(), "{url}: {}", answer["errorText"]);
        while self.events("Page.loadEventFired").is_empty() {
            let event = self.read("Page.loadEventFired");
            self.events.push(event);
        }
    }

    /// The value of an expression; promises are waited for.
    ///
    /// # Panics
    /// When it throws.
    pub fn eval(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let answer = self.call("Runtime.evaluate", params);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer:#}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub fn wait_for(&mut self, expression: &str) {
        wait_until(expression, PATIENCE, || self.eval(&format!("!!({expression})")) == json!(true));
    }

    /// Presses a key, as named by `KeyboardEvent.key`.
    pub fn key(&mut self, key: &str) {
        let text = if key.chars().count() == 1 { json!(key) } else { Value::Null };
        let mut down = json!({"type": "keyDown", "key": key, "code": code(key)});
        if text.is_string() {
            down["text"] = text;
        } else {
            down["windowsVirtualKeyCode"] = json!(virtual_key(key));
        }
        self.call("Input.dispatchKeyEvent", down);
        self.call(
            "Input.dispatchKeyEvent",
            json!({"type": "keyUp", "key": key, "code": code(key)}),
        );
    }

    /// Types text where the focus is.
    pub fn type_text(&mut self, text: &str) {
        self.call("Input.insertText", json!({"text": text}));
    }

    pub fn size(&mut self, width: u32, height: u32) {
        let metrics =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", metrics);
    }

    /// `media` is `screen` or `print`, `scheme` is `light` or `dark`.
    pub fn media(&mut self, media: &str, scheme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", json!({"media": media, "features": features}));
    }

    /// What the page complained of: errors and warnings of the console, uncaught exceptions, failed
    /// loads, violations of its own policy.
    pub fn complaints(&mut self) -> Vec<String> {
        // Everything sent before the answer to this has been read then.
        self.eval("new Promise(done => setTimeout(done))");
        let said: Vec<String> = self
            .events("Runtime.consoleAPICalled")
            .into_iter()
            .filter(|event| matches!(event["type"].as_str(), Some("error" | "warning" | "assert")))
            .chain(self.events("Runtime.exceptionThrown"))
            .chain(self.events("Log.entryAdded"))
            .chain(self.events("Page.javascriptDialogOpening"))
            .map(Value::to_string)
            .collect();
        said
    }

    /// The addresses asked for since the last [`Page::goto`], the page itself included.
    pub fn requests(&self) -> Vec<String> {
        self.events("Network.requestWillBeSent")
            .into_iter()
            .filter_map(|event| event["request"]["url"].as_str().map(str::to_owned))
            .collect()
    }

    /// What axe-core, the accessibility checker, finds wrong; each with the element.
    pub fn accessibility(&mut self) -> Vec<String> {
        let script = std::fs::read_to_string(axe_core()).expect("axe-core can be read");
        self.eval(&format!("{script};1"));
        let found = self.eval(
            "axe.run(document, {resultTypes: ['violations']}).then(r => r.violations.flatMap(v => \
             v.nodes.map(n => `${v.id}: ${n.html.slice(0, 200)}: ${n.failureSummary}`)))",
        );
        strings(&found)
    }

    /// Text that is cut off, runs out of the page or over other text, see `layout.js`.
    pub fn layout_faults(&mut self) -> Vec<String> {
        let found = self.eval(include_str!("layout.js"));
        strings(&found)
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // Both fail only for a browser that has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Connects to the address that the browser writes into its profile once it listens.
fn connect(port_file: &PathBuf) -> WebSocket<TcpStream> {
    let mut address = None;
    wait_until("Chromium opens its DevTools port", PATIENCE, || {
        let text = std::fs::read_to_string(port_file).unwrap_or_default();
        address = text
            .split_once('\n')
            .map(|(port, path)| (port.trim().to_owned(), path.trim().to_owned()));
        address.as_ref().is_some_and(|(_, path)| !path.is_empty())
    });
    let (port, path) = address.expect("it was just read");
    let stream = TcpStream::connect(format!("127.0.0.1:{port}")).expect("the port is open");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out can be set");
    let url = format!("ws://127.0.0.1:{port}{path}");
    tungstenite::client(url, stream).expect("the browser speaks WebSocket").0
}

fn strings(value: &Value) -> Vec<String> {
    let list = value.as_array().expect("a list");
    list.iter().map(|item| item.as_str().unwrap_or_default().to_owned()).collect()
}

fn code(key: &str) -> String {
    match key {
        digit if digit.len() == 1 && digit.as_bytes()[0].is_ascii_digit() => {
            format!("Digit{digit}")
        }
        letter if letter.len() == 1 => format!("Key{}", letter.to_uppercase()),
        named => named.to_owned(),
    }
}

fn virtual_key(key: &str) -> u32 {
    match key {
        "Tab" => 9,
        "Enter" => 13,
        "Escape" => 27,
        "ArrowLeft" => 37,
        "ArrowUp" => 38,
        "ArrowRight" => 39,
        "ArrowDown" => 40,
        _ => panic!("no key code for {key} here: add it"),
    }
}
