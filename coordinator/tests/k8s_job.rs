//! `coordinator k8s-job`: the documents it prints are those in `k8s/test/jobs`, which `k8s/test.sh` holds to the
//! schemas and to all that must be true of pods; and what it refuses, before it prints anything.
//!
//! `UPDATE_JOBS=1` writes them anew.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const IMAGE: &str = "localhost/bakeoff/coordinator:0.1.0";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn k8s_job(args: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_coordinator"))
        .arg("k8s-job")
        .args(args)
        .current_dir(repository())
        .env_clear()
        .env("HF_HUB_OFFLINE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the coordinator starts");
    let mut input = child.stdin.take().expect("stdin is piped");
    // A command that refuses its arguments does not read.
    let _ = input.write_all(stdin.as_bytes());
    drop(input);
    child.wait_with_output().expect("the coordinator ends")
}

fn printed(args: &[&str], stdin: &str) -> String {
    let output = k8s_job(args, stdin);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {said}");
    assert_eq!(said, "", "{args:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Exit code 2, nothing on stdout, and the message.
fn refused(args: &[&str], stdin: &str) -> String {
    let output = k8s_job(args, stdin);
    assert_eq!(output.status.code(), Some(2), "{args:?}");
    assert_eq!(output.stdout, b"", "{args:?}");
    String::from_utf8(output.stderr).expect("UTF-8")
}

fn is_kept(name: &str, args: &[&str]) {
    let path = repository().join(format!("k8s/test/jobs/{name}.yaml"));
    let found = printed(args, "");
    if std::env::var_os("UPDATE_JOBS").is_some() {
        std::fs::write(&path, &found).expect("k8s/test/jobs can be written");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, kept, "{} is another; UPDATE_JOBS=1 writes it anew", path.display());
}

const DEMO: &str = "coordinator/src/demo.toml";
const QWEN: &str = "deploy/sweeps/qwen-codegen.toml";

#[test]
fn a_sweeps_objects_are_those_that_the_schemas_were_tried_on() {
    is_kept("sweep", &[QWEN, "--image", IMAGE]);
    is_kept("files", &["deploy/sweeps/bakeoff-ten.toml", "--image", IMAGE]);
    is_kept("prefetch", &[QWEN, "--prefetch", "--image", "localhost/bakeoff/worker-cpu:0.1.0"]);
    let local = "k8s/rendered/local.yaml";
    is_kept("rerun", &[DEMO, "--as", "demo_2", "--rerun", "2", "--template", local]);
}

#[test]
fn an_installations_template_brings_its_image_and_namespace() {
    let local = std::fs::read_to_string(repository().join("k8s/rendered/local.yaml")).unwrap();
    let elsewhere = local.replace("namespace: bakeoff", "namespace: lab");
    let job = printed(&[DEMO, "--template", "-"], &elsewhere);
    assert!(job.contains(IMAGE) && !job.contains("namespace: bakeoff"), "{job}");
    let named = printed(&[DEMO, "--template", "-", "--namespace", "other"], &elsewhere);
    assert_eq!(named.matches("namespace: other").count(), 2);
}

#[test]
fn nothing_is_printed_of_what_could_not_run() {
    let place = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = place.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let demo = std::fs::read_to_string(repository().join(DEMO)).unwrap();
    let invalid = write("invalid.toml", &demo.replace("runs = 2", "runs = 0"));
    let said = refused(&[&invalid, "--image", IMAGE], "");
    assert!(said.contains("invalid.toml:") && said.contains("runs"), "{said}");

    // Each fits into a job's message, both together not into a ConfigMap.
    write("prompt.txt", &"x".repeat(600 << 10));
    let prompt = |id| format!("[[prompts]]\nid = \"{id}\"\nfile = \"{id}.txt\"\n");
    write("other.txt", &"x".repeat(500 << 10));
    let sweep = format!(
        "name = \"large\"\n[queue]\ncells_per_job = 1\n{}{}[[models]]\nid = \"builtin:tiny-qwen2\"\n",
        prompt("prompt"),
        prompt("other"),
    );
    let large = write("large.toml", &sweep);
    let said = refused(&[&large, "--image", IMAGE], "");
    assert!(said.contains("a ConfigMap holds 1048576") && said.contains("prompt.txt"), "{said}");

    let said = refused(&[DEMO], "");
    assert!(said.contains("registry.invalid/") && said.contains("--image"), "{said}");
    let said = refused(&[DEMO, "--prefetch", "--image", IMAGE], "");
    assert!(said.contains("nothing to fetch"), "{said}");
    let said = refused(&[DEMO, "--template", "-"], "kind: Pod");
    assert!(said.contains("no CronJob bakeoff-coordinator"), "{said}");
    let said = refused(&[DEMO, "--template", "nowhere.yaml"], "");
    assert!(said.contains("nowhere.yaml cannot be read"), "{said}");
    for wrong in [["--namespace", "A"], ["--rerun", "a-b"], ["--as", "a/b"]] {
        let said = refused(&[DEMO, "--image", IMAGE, wrong[0], wrong[1]], "");
        assert!(said.contains(wrong[1]), "{said}");
    }
}
