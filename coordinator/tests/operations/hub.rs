//! Branches of hub models become commits, by one question to a hub on loopback.

use std::path::Path;

use super::loopback_hub::{COMMIT, Hub, State, TOKEN};
use super::programs::{Ended, coordinator, run};

const SWEEP: &str =
    "name = \"s\"\n[[prompts]]\nid = \"p\"\ntext = \"x\"\n[[models]]\nid = \"ID\"\n";

/// `plan` of a sweep with one model; `HF_HUB_OFFLINE` is not set unless `env` does.
fn plan(folder: &Path, model: &str, env: &[(&str, &str)]) -> Ended {
    std::fs::write(folder.join("sweep.toml"), SWEEP.replace("ID", model)).unwrap();
    let mut command = coordinator();
    command.env_remove("HF_HUB_OFFLINE").current_dir(folder);
    run(command.args(["plan", "sweep.toml", "--json"]).envs(env.iter().copied()))
}

fn revision(ended: &Ended) -> String {
    ended.json()["jobs"][0]["source"]["revision"].as_str().expect("a revision").to_owned()
}

#[test]
fn a_branch_becomes_the_commit_that_the_hub_names() {
    let hub = Hub::start(State::default());
    let folder = hub.home.path();
    let endpoint = format!("{}/", hub.endpoint);
    let env = [("HF_ENDPOINT", endpoint.as_str()), ("HF_TOKEN", TOKEN)];
    let planned = plan(folder, "owner/model", &env).expect(0);
    assert_eq!(revision(&planned), COMMIT);
    assert_eq!(planned.stderr, "");
    let asked = hub.requests();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert!(asked[0].starts_with("GET /api/models/owner/model/revision/main "), "{asked:?}");
    let tokens = hub.state.lock().unwrap().authorizations.clone();
    assert_eq!(tokens, [format!("Bearer {TOKEN}")]);

    // The token may stand in the file that Hugging Face's own tool writes.
    std::fs::write(folder.join("token"), format!("{TOKEN}\n")).unwrap();
    let home = folder.display().to_string();
    let env = [("HF_ENDPOINT", endpoint.as_str()), ("HF_HOME", &home)];
    plan(folder, "owner/model", &env).expect(0);
    assert_eq!(hub.state.lock().unwrap().authorizations.len(), 2);
}

#[test]
fn what_the_hub_does_not_have_is_bad_input() {
    let hub = Hub::start(State::default());
    let folder = hub.home.path();
    let env = [("HF_ENDPOINT", hub.endpoint.as_str())];
    let missing = plan(folder, "owner/other", &env).expect(2).stderr;
    assert!(missing.contains("no model `owner/other` at http://127.0.0.1:"), "{missing}");
    let branch = "owner/model\"\nrevision = \"feature/x";
    let missing = plan(folder, branch, &env).expect(2).stderr;
    assert!(missing.contains("model `owner/model` has no revision `feature/x`"), "{missing}");
    let asked = hub.requests();
    assert!(asked[1].contains("/revision/feature%2Fx "), "{asked:?}");
    hub.state.lock().unwrap().refuse = Some((401, ""));
    let private = plan(folder, "owner/model", &env).expect(2).stderr;
    assert!(private.contains("does not show model `owner/model`"), "{private}");
    let bad = plan(folder, "owner/model", &[("HF_ENDPOINT", "hub")]).expect(2).stderr;
    assert!(bad.contains("HF_ENDPOINT \"hub\" cannot be used"), "{bad}");
}

#[test]
fn a_hub_out_of_reach_is_a_warning() {
    let hub = Hub::start(State { refuse: Some((503, "")), ..State::default() });
    let folder = hub.home.path();
    let [closed] = bakeoff_test_servers::free_ports();
    let closed = format!("http://127.0.0.1:{closed}");
    for (env, reason) in [
        (vec![("HF_ENDPOINT", hub.endpoint.as_str())], "answered 503"),
        (vec![("HF_ENDPOINT", closed.as_str())], "Connection refused"),
        (vec![("HF_HUB_OFFLINE", "1")], "HF_HUB_OFFLINE is set"),
    ] {
        let planned = plan(folder, "owner/model", &env).expect(0);
        assert_eq!(revision(&planned), "main");
        assert!(planned.stderr.contains("not resolved to commits"), "{}", planned.stderr);
        assert!(planned.stderr.contains(reason), "{reason}: {}", planned.stderr);
    }
    assert_eq!(hub.requests().len(), 1);
}

#[test]
fn a_proxy_is_used() {
    let hub = Hub::start(State::default());
    let env = [("HF_ENDPOINT", "http://hub.example"), ("HTTP_PROXY", hub.endpoint.as_str())];
    plan(hub.home.path(), "owner/model", &env);
    let asked = hub.requests();
    let whole = "GET http://hub.example/api/models/owner/model/revision/main ";
    assert!(asked.iter().any(|request| request.starts_with(whole)), "{asked:?}");
}
