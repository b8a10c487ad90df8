//! Downloads from a small hub on loopback that drops connections, refuses, and sends damaged files.

mod loopback_hub;

use std::ops::ControlFlow;
use std::time::Duration;

use bakeoff_engine::EngineError;
use bakeoff_engine::source::hub::HubSettings;
use bakeoff_engine::source::{ModelFiles, SourceOptions, WeightFiles, resolve};
use bakeoff_model::{ModelSource};
use bakeoff_proto::{FailureKind};
use loopback_hub::{COMMIT, Hub, State};

fn resolve_from(hub: &Hub, revision: &str, offline: bool) -> Result<ModelFiles, EngineError> {
    let mut settings = HubSettings::from_env();
    settings.endpoint = hub.endpoint.clone();
    settings.cache_dir = hub.home.path().to_owned();
    settings.offline = offline;
    settings.first_delay = Duration::from_millis(1);
    settings.stall = Duration::from_secs(10);
    settings.fruitless_tries = 3;
    let source = ModelSource::Hub { id: "owner/model".into(), revision: revision.into() };
    let options = SourceOptions { weights: true, hub: settings };
    resolve(&source, &options, &mut |_| ControlFlow::Continue(()))
}

#[test]
fn a_broken_transfer_is_resumed_and_then_needs_no_network() {
    let hub = Hub::start(State { drop_after: Some(100_000), ..State::default() });
    let files = resolve_from(&hub, "main", false).expect("resolved");
    assert_eq!(files.revision.as_deref(), Some(COMMIT));
    assert!(files.download_s.is_some());
    let WeightFiles::Paths(paths) = &files.weights else { panic!("weights on disk") };
    assert_eq!(std::fs::read(&paths[0]).expect("weights"), hub.weights);
    let seen = hub.state.lock().expect("state").requests.len();
    let resumed =
        hub.state.lock().expect("state").requests.iter().any(|r| r.ends_with("from 100000"));
    assert!(resumed, "the second transfer starts where the first broke off");
    for (revision, offline) in [(COMMIT, false), ("main", true)] {
        assert_eq!(resolve_from(&hub, revision, offline).expect("cached").download_s, None);
    }
    assert_eq!(hub.state.lock().expect("state").requests.len(), seen, "no request more");
}

fn refused(state: State, revision: &str) -> EngineError {
    resolve_from(&Hub::start(state), revision, false).expect_err("must fail")
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
