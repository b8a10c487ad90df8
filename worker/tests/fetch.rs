//! `worker fetch` as a user or a prefetch Job runs it, against a hub on loopback.

#[path = "../engine/tests/loopback_hub/mod.rs"]
mod loopback_hub;

use std::process::{Command, Output};

use loopback_hub::{COMMIT, Hub, State};

fn worker(hub: &Hub, args: &[&str], more: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_worker"))
        .args(args)
        .env_clear()
        .env("HF_HOME", hub.home.path())
        .env("HF_ENDPOINT", &hub.endpoint)
        .envs(more.iter().copied())
        .output()
        .expect("the worker starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_model_is_fetched_through_a_broken_transfer_and_then_served_offline() {
    let hub = Hub::start(State { drop_after: Some(100_000), ..State::default() });
    let fetched = worker(&hub, &["fetch", "--json", "owner/model"], &[]);
    assert!(fetched.status.success(), "{}", text(&fetched.stderr));
    let told: serde_json::Value = serde_json::from_slice(&fetched.stdout).expect("JSON");
    assert_eq!((&told["model"], &told["commit"]), (&"owner/model".into(), &COMMIT.into()));
    assert!(told["download_s"].as_f64().is_some());
    let folder = std::path::Path::new(told["folder"].as_str().expect("a folder"));
    assert!(folder.starts_with(hub.home.path()), "{}", folder.display());
    assert_eq!(std::fs::read(folder.join("model.safetensors")).expect("weights"), hub.weights);
    assert!(text(&fetched.stderr).contains("owner/model: "), "progress is told");
    let resumed = || {
        let state = hub.state.lock().expect("state");
        state.requests.iter().any(|request| request.ends_with("from 100000"))
    };
    assert!(resumed(), "the second transfer starts where the first broke off");

    let pinned = format!("owner/model@{COMMIT}");
    let again = worker(&hub, &["fetch", &pinned, "owner/model"], &[("HF_HUB_OFFLINE", "1")]);
    assert!(again.status.success(), "{}", text(&again.stderr));
    let lines = text(&again.stdout);
    assert_eq!(lines.matches("in the cache already").count(), 2, "{lines}");
}

#[test]
fn what_cannot_be_fetched_says_why_by_message_and_exit_code() {
    let hub = Hub::start(State::default());
    let refused = |args: &[&str], more: &[(&str, &str)], code: i32, words: &str| {
        let output = worker(&hub, args, more);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(words), "{args:?}: {said}");
        assert_eq!(text(&output.stdout), "");
    };
    refused(&["fetch", "owner/model"], &[("HF_HUB_OFFLINE", "1")], 2, "HF_HUB_OFFLINE is set");
    refused(&["fetch", "owner/model@nope"], &[], 2, "has no revision `nope`");
    refused(&["fetch", "owner/model", "--revision", "nope"], &[], 2, "has no revision `nope`");
    refused(&["fetch", "../model"], &[], 2, "unknown model `../model`");
    refused(&["fetch"], &[], 2, "MODEL[@REV]");
    hub.state.lock().expect("state").declared_sha256 = Some("0".repeat(64));
    refused(&["fetch", "owner/model"], &[], 1, "was damaged in two downloads");
}
