//! What `worker doctor` tells, and its exit code.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use bakeoff_test_servers::NatsServer;
use serde_json::Value;

use crate::loopback_hub::{Hub, TOKEN};
use crate::{path, ran, worker};

/// One line of the report: health and detail.
fn line(told: &Value, what: &str) -> (String, String) {
    let findings = told["findings"].as_array().expect("findings");
    let finding = findings.iter().find(|finding| finding["what"] == what).expect(what);
    let text = |field: &str| finding[field].as_str().expect("a text").to_owned();
    (text("health"), text("detail"))
}

/// The report as JSON; it must be healthy or not, as expected.
fn examine(args: &[&str], variables: &[(&str, &str)], healthy: bool) -> Value {
    let mut command = worker(&[&["doctor", "--json"], args].concat());
    let ran = ran(command.envs(variables.iter().copied()));
    assert_eq!(ran.code, Some(i32::from(!healthy)), "{}{}", ran.stdout, ran.stderr);
    serde_json::from_str(&ran.stdout).expect("one JSON object")
}

fn expect(told: &Value, what: &str, health: &str, words: &[&str]) {
    let (found, detail) = line(told, what);
    assert_eq!(found, health, "{what}: {detail}");
    for word in words {
        assert!(detail.contains(word), "`{word}` is missing in {what}: {detail}");
    }
}

#[test]
fn a_machine_for_which_nothing_was_asked_is_well() {
    let ran = ran(&mut worker(&["doctor"]));
    assert_eq!(ran.code, Some(0), "{}", ran.stdout);
    for start in [
        "worker ",
        "ok    machine: ",
        "-     gpu: ",
        "-     nats: not set",
        "-     store: not set",
        "-     hub: not asked: HF_HUB_OFFLINE",
    ] {
        assert!(ran.stdout.lines().any(|line| line.starts_with(start)), "{start}: {}", ran.stdout);
    }
    let told = examine(&[], &[], true);
    expect(&told, "model cache", "not_asked", &["/nowhere/hub does not exist", "HF_HOME"]);
}

#[test]
fn a_hub_is_asked_with_the_token_of_the_machine() {
    let home = tempfile::tempdir().expect("a folder");
    let hub = Hub::of_folder(home.path());
    let with = |more: &[(&str, &str)], healthy| {
        let hub = [
            ("HF_HUB_OFFLINE", "0"),
            ("HF_ENDPOINT", &hub.endpoint),
            ("HF_HOME", path(home.path())),
        ];
        examine(&[], &[&hub, more].concat(), healthy)
    };
    let anonymous = with(&[], true);
    expect(&anonymous, "hub", "works", &[&hub.endpoint, "HF_TOKEN"]);
    expect(&anonymous, "model cache", "works", &[path(home.path()), "GB free"]);
    expect(&with(&[("HF_TOKEN", TOKEN)], true), "hub", "works", &["as tester"]);
    let refused = with(&[("HF_TOKEN", "hf_other")], false);
    expect(&refused, "hub", "broken", &[&hub.endpoint, "refuses the token", "set HF_TOKEN"]);
    assert!(!refused.to_string().contains("hf_other"), "{refused}");
    let no_hub = format!("{}/nothing/here", hub.endpoint);
    let told = with(&[("HF_ENDPOINT", &no_hub)], false);
    expect(&told, "hub", "broken", &["HTTP status 404", "HF_ENDPOINT must be"]);
    let asked = hub.requests().len();
    expect(&with(&[("HF_HUB_OFFLINE", "1")], true), "hub", "not_asked", &["HF_HUB_OFFLINE"]);
    assert_eq!(hub.requests().len(), asked, "offline asks nobody");
}

#[test]
fn a_hub_that_says_nothing_is_given_up_soon() {
    // Takes connections, by the system's queue, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", silent.local_addr().expect("an address"));
    let started = Instant::now();
    let told = examine(&[], &[("HF_HUB_OFFLINE", "0"), ("HF_ENDPOINT", &endpoint)], false);
    expect(&told, "hub", "broken", &[&endpoint, "does not answer", "HF_HUB_OFFLINE=1"]);
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    drop(silent);
    let told = examine(&[], &[("HF_HUB_OFFLINE", "0"), ("HF_ENDPOINT", &endpoint)], false);
    expect(&told, "hub", "broken", &["does not answer", "check the network"]);
}

#[test]
fn every_line_that_fails_says_what_to_do() {
    let gone = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let gone = gone.expect("an address").to_string();
    let file = tempfile::NamedTempFile::new().expect("a file");
    let (nats, s3) = (format!("nats://{gone}"), format!("http://{gone}"));
    let args = ["--nats", &nats, "--store", "s3://results", "--device", "cuda:7"];
    let variables = [
        ("BAKEOFF_NATS_CONNECT_S", "1"),
        ("AWS_ENDPOINT_URL", &s3),
        ("AWS_ACCESS_KEY_ID", "k"),
        ("AWS_SECRET_ACCESS_KEY", "s"),
        ("HF_HUB_OFFLINE", "0"),
        ("HF_ENDPOINT", &s3),
        ("HF_HOME", path(file.path())),
    ];
    let told = examine(&args, &variables, false);
    expect(&told, "nats", "broken", &[&gone, "check that it runs"]);
    expect(&told, "store", "broken", &["results", "check that it runs"]);
    expect(&told, "gpu", "broken", &["NVML", "NVIDIA driver", "nvidia.com/gpu"]);
    expect(&told, "hub", "broken", &[&s3, "check the network"]);
    expect(&told, "model cache", "broken", &[path(file.path()), "make the folder writable"]);
    let lines = ran(worker(&[&["doctor"], &args[..]].concat()).envs(variables));
    assert_eq!(lines.stdout.matches("FAIL  ").count(), 5, "{}", lines.stdout);
}

#[test]
fn a_broker_and_a_store_that_answer_are_told() {
    let server = NatsServer::start();
    let folder = tempfile::tempdir().expect("a folder");
    let told = examine(&["--nats", &server.url(), "--store", path(folder.path())], &[], true);
    expect(&told, "nats", "works", &["nats-server 2."]);
    expect(&told, "store", "works", &[path(folder.path())]);
}
