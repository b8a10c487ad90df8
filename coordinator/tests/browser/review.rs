//! `coordinator review`: the page, from the first star to the matrix of the report.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use bakeoff_coordinator::review::CRITERIA;
use bakeoff_test_servers::wait_until;
use serde_json::json;

use super::chromium::Page;
use super::common::Made;
use super::{FOREIGN, Stage, hostile, url};

const LIMIT: Duration = Duration::from_secs(60);

/// `coordinator review --web` as a process; killed when dropped, as by a power cut.
struct Server {
    process: Child,
    /// `http://127.0.0.1:<port>/`
    address: String,
}

impl Server {
    fn start(stage: &Stage, sweep: &str) -> Self {
        let mut process = stage
            .command(&["review", sweep, "--web", "--reviewer", "Ana"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the coordinator starts");
        let mut line = String::new();
        let stdout = process.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("it tells its address");
        let address = line.split_whitespace().find(|word| word.starts_with("http://"));
        let address = address.unwrap_or_else(|| panic!("no address in {line:?}")).to_owned();
        Self { process, address }
    }

    fn port(&self) -> u16 {
        let port = self.address.trim_end_matches('/').rsplit(':').next().expect("a port");
        port.parse().expect("a number")
    }

    /// Sends a request by hand; the status.
    fn request(&self, head: &str, body: &str) -> u16 {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port())).expect("it listens");
        let length = body.len();
        write!(socket, "{head}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")
            .expect("it reads");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("it answers");
        answer[9..12].parse().expect("a status")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only for a process that has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const SERVICE: &str = "Here it is:\n\n```python\nfrom fastapi import FastAPI, HTTPException\n\napp = FastAPI()\n\n\n@app.get(\"/health\")\nasync def health() -> dict:\n    \"\"\"Alive.\"\"\"\n    return {}\n```\n\nRun `uvicorn main:app`.\n";
const SCRIPT: &str = "```python\nprint('no service')\n```\n";

async fn two_models(stage: &Stage) {
    let text = "name = \"two\"\n[generation]\nruns = 1\n[[prompts]]\nid = \"p\"\ntext = \"Serve it.\"\nrubric = \"python-service\"\n[[models]]\nid = \"builtin:tiny-qwen2\"\n[[models]]\nid = \"builtin:tiny-qwen3\"\n";
    stage
        .store(text, |model, _| {
            let fast = model.ends_with("qwen2");
            let output = if fast { SERVICE } else { SCRIPT };
            Some(Made { tok_per_s: if fast { 50.0 } else { 25.0 }, ..Made::new(output) })
        })
        .await;
}

/// Shows another output than before.
fn go(page: &mut Page, key: &str) -> String {
    let before = page.eval("document.body.dataset.shown");
    page.key(key);
    page.wait_for(&format!("document.body.dataset.shown !== {before}"));
    page.eval("document.body.dataset.shown").as_str().expect("a name").to_owned()
}

#[tokio::test]
async fn from_the_first_star_to_the_matrix_by_keyboard_alone() {
    let stage = Stage::new();
    two_models(&stage).await;
    let file = stage.path().join("reviews.toml");
    let saved = || std::fs::read_to_string(&file).unwrap_or_default();
    let wait_saved = |text: &str| wait_until(text, LIMIT, || saved().contains(text));
    let server = Server::start(&stage, "two");
    let mut page = Page::open();
    page.goto(&server.address);
    page.wait_for("document.body.dataset.shown");
    let text = "document.body.innerText";
    assert!(!page.eval(text).to_string().contains("tiny-qwen"), "the model is not told");

    // One star is in the file at once, and survives that the process is killed.
    page.key("4");
    wait_saved("correctness = 4");
    assert!(!page.eval(text).to_string().contains("tiny-qwen"), "nor by one star");
    drop(server);
    let server = Server::start(&stage, "two");
    page.goto(&server.address);
    page.wait_for("document.body.dataset.shown");
    let stars = "[...document.querySelectorAll('.criterion')].map(c => c.querySelectorAll('[aria-pressed=true]').length && c.querySelector('[aria-pressed=true]').textContent + c.textContent.match(/★*/g).join('').length)";
    assert_eq!(page.eval(stars), json!(["★4", 0, 0, 0, 0]));

    // The rest of this output: stars, readiness, words. The evidence is marked in the code.
    page.key("ArrowDown");
    for _ in 1..CRITERIA.len() {
        page.key("5");
    }
    for key in ["r", "r", "r", "s"] {
        page.key(key);
    }
    page.type_text("short: 1 file");
    page.key("Escape");
    page.key("b");
    page.type_text("chat </textarea><script>");
    page.key("Escape");
    wait_saved("operations = 5");
    wait_saved("readiness = \"needs-work\"");
    wait_saved("strengths = \"short: 1 file\"");
    wait_saved("</textarea><script>");
    page.wait_for("document.getElementById('model').innerText.includes('tiny-qwen')");
    let first = page.eval("document.getElementById('model').innerText").to_string();

    // The other output: it does not tell its model yet.
    go(&mut page, "n");
    page.wait_for("document.getElementById('model').innerText === ''");
    for star in ["2", "1", "2", "1", "2"] {
        page.key(star);
    }
    page.wait_for("document.getElementById('model').innerText.includes('tiny-qwen')");
    assert_ne!(page.eval("document.getElementById('model').innerText").to_string(), first);
    page.wait_for("document.getElementById('where').textContent.includes('2 reviewed')");
    assert_eq!(page.complaints(), Vec::<String>::new());

    // A value that is out of range is refused with its line, and nothing is stored.
    let good = saved();
    let line = 1 + good.lines().position(|l| l == "operations = 5").expect("it was given");
    std::fs::write(&file, good.replace("operations = 5", "operations = 6")).expect("written");
    let refused = stage.run(&["review", "two", "--push"]);
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{message}");
    assert!(
        message.contains(&format!("reviews.toml:{line}: ")) && message.contains("1 to 5"),
        "{message}"
    );
    assert!(!stage.path().join("results/two/reviews.toml").exists());
    std::fs::write(&file, good).expect("written");

    // Pushed, collected: the matrix names the models beside their stars.
    let pushed = stage.must(&["review", "two", "--push"]);
    assert!(pushed.starts_with("2 reviews stored"), "{pushed}");
    let address = stage.collect("two");
    page.goto(&address);
    let matrix =
        page.eval("[...document.querySelectorAll('#matrix tbody tr')].map(r => r.innerText)");
    let rows: Vec<String> =
        matrix.as_array().expect("rows").iter().map(|row| row.to_string()).collect();
    assert_eq!(rows.len(), 2);
    let good = rows.iter().find(|row| row.contains("4.8")).expect("the first review");
    assert!(good.contains("needs-work") && good.contains("short: 1 file"), "{good}");
    assert!(good.contains("chat </textarea><script>"), "{good}");
    assert!(rows.iter().any(|row| row.contains("1.6")), "{rows:?}");
    assert!(rows[0].contains("tiny-qwen2") && rows[1].contains("tiny-qwen3"), "{rows:?}");
    assert_eq!(page.eval("document.scripts.length"), json!(0));
    assert_eq!(page.complaints(), Vec::<String>::new());
}

#[tokio::test]
async fn the_page_shows_code_beside_evidence_and_is_accessible() {
    let stage = Stage::new();
    two_models(&stage).await;
    let server = Server::start(&stage, "two");
    let mut page = Page::open();
    page.goto(&server.address);
    page.wait_for("document.body.dataset.shown");
    if page.eval("document.querySelectorAll('#evidence .on').length") == json!(0) {
        go(&mut page, "ArrowRight");
    }
    // Each line of evidence is marked, and the key leads to the first: the import of the framework.
    let lines = page.eval(
        "[...document.querySelectorAll('#code .proof')].map(l => l.dataset.n + ' ' + l.innerText)",
    );
    assert!(lines.to_string().contains("6 app = FastAPI()"), "{lines}");
    page.key("e");
    page.wait_for("document.querySelector('#code .here.proof')");
    assert!(page.eval("document.querySelectorAll('#code .code i.k').length").as_u64() > Some(2));
    let views = [("light", 1280), ("dark", 1280), ("light", 820), ("dark", 400)];
    for (scheme, width) in views {
        page.media("screen", scheme);
        page.size(width, 900);
        assert_eq!(page.layout_faults(), Vec::<String>::new(), "{scheme} {width}");
        assert_eq!(page.accessibility(), Vec::<String>::new(), "{scheme} {width}");
    }
    assert_eq!(page.complaints(), Vec::<String>::new());
    let foreign: Vec<_> =
        page.requests().into_iter().filter(|url| !url.starts_with(&server.address)).collect();
    assert!(foreign.iter().all(|url| url.starts_with("data:")), "{foreign:?}");
}

#[tokio::test]
async fn a_hostile_output_does_not_run_in_the_review() {
    let stage = Stage::new();
    let text = "name = \"hostile\"\n[generation]\nruns = 1\n[[prompts]]\nid = \"p\"\ntext = \"</pre><script>window.ran=1</script>\"\n[[models]]\nid = \"builtin:tiny-qwen2\"\n";
    stage.store(text, |_, _| Some(Made::new(hostile()))).await;
    let server = Server::start(&stage, "hostile");
    let mut page = Page::open();
    page.goto(&server.address);
    page.wait_for("document.body.dataset.shown");
    page.key("p");
    let shown = page.eval("document.getElementById('code').textContent");
    assert!(shown.as_str().is_some_and(|text| text.contains("<svg onload=window.ran=1>")));
    assert_eq!(page.eval(FOREIGN), json!([]));
    assert_eq!(page.eval("document.scripts.length"), json!(1));
    assert_eq!(page.eval("typeof window.ran"), json!("undefined"));
    assert_eq!(page.layout_faults(), Vec::<String>::new());
    assert_eq!(page.complaints(), Vec::<String>::new());
    // Even if an output got through unescaped, the page's policy would not let it run.
    page.eval("document.getElementById('prompt').innerHTML = '<img src=x onerror=window.ran=1>'");
    page.eval("document.getElementById('prompt').append(Object.assign(document.createElement('script'), {textContent: 'window.ran=1'}))");
    page.eval("new Promise(done => setTimeout(done, 50))");
    assert_eq!(page.eval("typeof window.ran"), json!("undefined"));
}

#[tokio::test]
async fn other_sites_and_other_machines_are_turned_away() {
    let stage = Stage::new();
    two_models(&stage).await;
    let server = Server::start(&stage, "two");
    let mut page = Page::open();
    page.goto(&server.address);
    page.wait_for("document.body.dataset.shown");
    let name = page.eval("document.body.dataset.shown");
    let path = format!("/api/reviews/{}", name.as_str().expect("a name"));
    let host = format!("127.0.0.1:{}", server.port());
    let body = "{\"stars\":{\"correctness\":1}}";
    let json = "content-type: application/json";
    let put = |host: &str, more: &str| {
        server.request(&format!("PUT {path} HTTP/1.1\r\nhost: {host}\r\n{json}{more}"), body)
    };
    let before = std::fs::read(stage.path().join("reviews.toml")).expect("blanks");
    assert_eq!(put("evil.example", ""), 403, "a name that resolves here");
    assert_eq!(put(&host, "\r\norigin: http://evil.example"), 403);
    assert_eq!(put(&host, "\r\norigin: null"), 403);
    assert_eq!(put(&host, &format!("\r\norigin: http://127.0.0.1:{}", server.port() ^ 1)), 403);
    let post = format!("POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: text/plain");
    assert_eq!(server.request(&post, body), 405, "what a form could send");
    let plain = format!("PUT {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: text/plain");
    assert_eq!(server.request(&plain, body), 415);

    // From a page of another origin, in the browser itself.
    let other = stage.path().join("other.html");
    std::fs::write(&other, "<!doctype html><title>other</title>").expect("written");
    page.goto(&url(&other));
    let target = format!("{}{}", server.address.trim_end_matches('/'), path);
    let outcome = page.eval(&format!(
        "fetch('{target}', {{method: 'PUT', headers: {{'content-type': 'application/json'}}, body: '{body}'}}).then(r => 'answered', e => 'refused')"
    ));
    assert_eq!(outcome, json!("refused"));
    page.eval(&format!("fetch('{target}', {{method: 'POST', mode: 'no-cors', body: '{body}'}})"));
    assert_eq!(std::fs::read(stage.path().join("reviews.toml")).expect("kept"), before);
    assert_eq!(put(&host, &format!("\r\norigin: http://{host}")), 200, "the page's own");

    // It listens on the loopback address alone.
    let port = format!(":{:04X} ", server.port());
    let tables = ["tcp", "tcp6"]
        .map(|table| std::fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default());
    let listening: Vec<&str> = tables
        .iter()
        .flat_map(|table| table.lines())
        .filter(|line| line.contains(" 0A ") && line.contains(&port))
        .filter_map(|line| line.split_whitespace().nth(1))
        .collect();
    assert_eq!(listening, [format!("0100007F{}", port.trim_end())]);
}
