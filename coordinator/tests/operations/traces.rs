//! One trace a job, from its publication by the coordinator to its acknowledgement by a worker, as
//! a collector receives it; and log lines that carry the same names.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use prost::Message;

use super::bench::Bench;
use super::programs::{run, worker};

const SWEEP: &str = r#"
name = "traced"
[generation]
runs = 2
max_new_tokens = 64
[[prompts]]
id = "p"
text = "Write a Python function that returns the factorial of n."
[[models]]
id = "builtin:tiny-qwen2"
[[models]]
id = "builtin:tiny-qwen3"
"#;

/// A span as it arrived.
#[derive(Debug, Clone)]
struct Span {
    service: String,
    name: String,
    id: Vec<u8>,
    parent: Vec<u8>,
    attributes: BTreeMap<String, String>,
}

/// What a collector has received.
#[derive(Default)]
struct Received {
    /// By trace.
    spans: BTreeMap<Vec<u8>, Vec<Span>>,
    authorizations: Vec<String>,
}

/// A collector: OTLP over HTTP on loopback.
struct Collector {
    endpoint: String,
    received: Arc<Mutex<Received>>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let received = Arc::new(Mutex::new(Received::default()));
        let shared = received.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = shared.clone();
                std::thread::spawn(move || receive(stream, &shared));
            }
        });
        Self { endpoint, received }
    }
}

/// Answers one request, and closes.
fn receive(mut stream: TcpStream, received: &Mutex<Received>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let (name, value) = line.trim().split_once(": ").unwrap_or((line.trim(), ""));
        match name.to_lowercase().as_str() {
            "" => break,
            "content-length" => length = value.parse().ok()?,
            "authorization" => received.lock().ok()?.authorizations.push(value.to_owned()),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let request = ExportTraceServiceRequest::decode(body.as_slice()).expect("OTLP in protobuf");
    for of_resource in request.resource_spans {
        let resource = of_resource.resource.unwrap_or_default();
        let service = attributes(resource.attributes).remove("service.name").unwrap_or_default();
        for span in of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            let arrived = Span {
                service: service.clone(),
                name: span.name,
                id: span.span_id,
                parent: span.parent_span_id,
                attributes: attributes(span.attributes),
            };
            received.lock().ok()?.spans.entry(span.trace_id).or_default().push(arrived);
        }
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").ok()
}

fn attributes(found: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Option<Value>| match value {
        Some(Value::StringValue(text)) => text,
        other => format!("{other:?}"),
    };
    found.into_iter().map(|kv| (kv.key, text(kv.value.and_then(|v| v.value)))).collect()
}

/// One trace a job: publish is the root, the worker's job hangs below it, and all stages below
/// that.
fn assert_traces(collector: &Collector, publisher: &str, server: &str) {
    let received = collector.received.lock().unwrap();
    assert_eq!(received.spans.len(), 2, "a trace a job: {:#?}", received.spans);
    for spans in received.spans.values() {
        let named = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();
        let one = |name: &str| {
            let found = named(name);
            assert_eq!(found.len(), 1, "`{name}` in {spans:#?}");
            found[0].clone()
        };
        let (publish, job) = (one("publish"), one("job"));
        assert!(publish.parent.is_empty(), "{publish:?}");
        assert_eq!((publish.service.as_str(), job.service.as_str()), (publisher, server));
        assert_eq!(job.parent, publish.id);
        assert_eq!((named("generate").len(), named("store").len()), (2, 2));
        one("load");
        one("ack");
        for name in ["load", "warm_up", "generate", "store", "ack"] {
            for span in named(name) {
                assert_eq!(span.parent, job.id, "{name}");
                for key in ["sweep", "job", "attempt"] {
                    let value = span.attributes.get(key).map(String::as_str).unwrap_or_default();
                    assert!(!value.is_empty(), "{name} has no {key}: {span:?}");
                    assert_eq!(Some(value), job.attributes.get(key).map(String::as_str), "{name}");
                }
            }
        }
    }
}

#[test]
fn a_job_is_one_trace_from_the_coordinator_over_the_broker_to_the_workers_ack() {
    let (bench, collector) = (Bench::new(), Collector::start());
    bench.sweep("sweep.toml", SWEEP);
    let traced = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer of-the-test"),
    ];
    run(bench.coordinator(&["submit", "sweep.toml"]).envs(traced)).expect(0);
    let serve = ["run", "--log-format", "json", "--max-jobs", "2"];
    let served = run(bench.at(worker(), &serve).envs(traced)).expect(0);
    // All spans are sent before a program ends.
    assert_traces(&collector, "bakeoff-coordinator", "bakeoff-worker");
    let sent = collector.received.lock().unwrap().authorizations.clone();
    assert!(!sent.is_empty() && sent.iter().all(|value| value == "Bearer of-the-test"), "{sent:?}");

    let lines = served.stderr.lines().map(|line| {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|_| panic!("JSON: {line}"))
    });
    let done: Vec<_> = lines.filter(|line| line["message"] == "cell done").collect();
    assert_eq!(done.len(), 4, "{}", served.stderr);
    for line in done {
        for key in ["sweep", "job", "attempt"] {
            assert!(line["span"][key].as_str().is_some_and(|value| !value.is_empty()), "{line}");
        }
    }
}

#[test]
fn a_run_on_one_machine_is_traced_as_one_process() {
    let (bench, collector) = (Bench::new(), Collector::start());
    bench.sweep("sweep.toml", SWEEP);
    let mut here = bench.coordinator(&["run", "sweep.toml"]);
    here.env_remove("NATS_URL").env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint);
    run(&mut here).expect(0);
    assert_traces(&collector, "bakeoff-coordinator", "bakeoff-coordinator");
}

#[test]
fn a_collector_that_is_gone_costs_the_traces_and_nothing_else() {
    let bench = Bench::new();
    bench.sweep("sweep.toml", SWEEP);
    let mut here = bench.coordinator(&["run", "sweep.toml"]);
    here.env_remove("NATS_URL").env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1");
    let ended = run(&mut here).expect(0);
    assert!(ended.stdout.starts_with("traced: 4 of 4 done"), "{}", ended.stdout);
    assert!(ended.stderr.contains("OTLP export"), "it is told: {}", ended.stderr);
}
