//! What `worker generate` says when it cannot: the value at fault, the next step, and the exit code.

use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::loopback_hub::{COMMIT, Hub};
use crate::models::{edit_json, golden_json, numbered, poison, spoiled, toy, words};
use crate::{path, ran, worker};

/// Runs a command that must fail: its code, its words, and not a byte on stdout.
fn refused(command: &mut Command, code: i32, words: &[&str]) {
    let ran = ran(command);
    assert_eq!(ran.code, Some(code), "{words:?}: {}", ran.stderr);
    assert_eq!(ran.stdout, "", "{words:?}");
    for word in words {
        assert!(ran.stderr.contains(word), "`{word}` is missing in: {}", ran.stderr);
    }
    let told = ran.stderr.lines().filter(|line| line.starts_with("error: ")).count();
    assert_eq!(told, 1, "told once: {}", ran.stderr);
}

/// `generate` with a short prompt and these arguments.
fn generate(args: &[&str]) -> Command {
    worker(&[&["generate", "--prompt", "1 2 3", "--dtype", "f32"], args].concat())
}

/// The checkpoint after `spoil`, refused with exit code 2.
fn bad_model(spoil: impl FnOnce(&Path), words: &[&str]) {
    let folder = spoiled(spoil);
    refused(&mut generate(&["--model", path(folder.path()), "--max-new-tokens", "4"]), 2, words);
}

fn weights(folder: &Path) -> PathBuf {
    folder.join("model.safetensors")
}

fn cut(file: &Path, bytes: u64) {
    let file = OpenOptions::new().write(true).open(file).expect("a file");
    file.set_len(bytes).expect("cut");
}

#[test]
fn a_model_that_is_not_there() {
    refused(
        &mut generate(&["--model", "builtin:nope"]),
        2,
        &["builtin:nope", "builtin:tiny-qwen3"],
    );
    refused(
        &mut generate(&["--model", "/nowhere/model"]),
        2,
        &["/nowhere/model does not exist", "hub id"],
    );
    refused(&mut generate(&["--model", "a b/c"]), 2, &["unknown model `a b/c`", "owner/name"]);
    let offline = ["HF_HUB_OFFLINE is set", "`owner/model`", "unset it"];
    refused(&mut generate(&["--model", "owner/model"]), 2, &offline);
    bad_model(
        |folder| fs::remove_file(weights(folder)).expect("removed"),
        &["has no model.safetensors"],
    );
    bad_model(
        |folder| fs::remove_file(folder.join("config.json")).expect("removed"),
        &["has no config.json"],
    );
    let shard = "model-00002-of-00003.safetensors";
    let sharded = numbered("qwen3-tied-sharded");
    fs::remove_file(sharded.path().join(shard)).expect("removed");
    refused(
        &mut generate(&["--model", path(sharded.path())]),
        2,
        &[shard, "complete the download"],
    );
}

#[test]
fn what_the_hub_does_not_have() {
    let (folder, home) = (numbered("qwen2"), tempfile::tempdir().expect("a folder"));
    fs::remove_file(folder.path().join("tokenizer.json")).expect("removed");
    let hub = Hub::of_folder(folder.path());
    let from_hub = |args: &[&str]| {
        let mut command = generate(args);
        command
            .env_remove("HF_HUB_OFFLINE")
            .env("HF_ENDPOINT", &hub.endpoint)
            .env("HF_HOME", home.path());
        command
    };
    refused(&mut from_hub(&["--model", "owner/other"]), 2, &["no model `owner/other`", "HF_TOKEN"]);
    let revision = ["--model", "owner/model", "--revision", "v9"];
    refused(&mut from_hub(&revision), 2, &["has no revision `v9`", "branch, tag or commit"]);
    refused(
        &mut from_hub(&["--model", "owner/model", "--revision", "../x"]),
        2,
        &["`../x`", "main"],
    );
    refused(&mut from_hub(&["--model", "owner/model"]), 2, &["owner/model has no tokenizer.json"]);
    assert!(hub.requests().iter().all(|request| !request.contains("..")));
}

#[test]
fn a_configuration_that_cannot_be_used() {
    let config = |change: fn(&mut Value)| {
        move |folder: &Path| edit_json(&folder.join("config.json"), change)
    };
    let without_size = config(|config| {
        config.as_object_mut().expect("an object").remove("hidden_size");
    });
    bad_model(without_size, &["config.json", "hidden_size"]);
    bad_model(config(|config| config["hidden_size"] = json!("wide")), &["hidden_size"]);
    let unknown = config(|config| config["architectures"] = json!(["MambaForCausalLM"]));
    bad_model(unknown, &["MambaForCausalLM", "Qwen3ForCausalLM"]);
    let awq = config(|config| config["quantization_config"] = json!({"quant_method": "awq"}));
    bad_model(awq, &["quantised", "awq"]);
    bad_model(
        |folder| fs::write(folder.join("config.json"), "{").expect("a file"),
        &["config.json"],
    );
    let generation = |folder: &Path| {
        fs::write(folder.join("generation_config.json"), r#"{"top_p": "x"}"#).expect("a file");
    };
    bad_model(generation, &["generation_config.json", "correct or remove it"]);
}

#[test]
fn weights_that_are_damaged() {
    let again = ["model.safetensors", "truncated or not a safetensors file", "download it again"];
    bad_model(|folder| cut(&weights(folder), 150_000), &again);
    bad_model(|folder| cut(&weights(folder), 0), &again);
    bad_model(|folder| fs::write(weights(folder), [b'x'; 4096]).expect("a file"), &again);
    let wider = |folder: &Path| {
        edit_json(&folder.join("config.json"), |config| config["intermediate_size"] = json!(128));
    };
    bad_model(wider, &["mlp.gate_proj.weight", "[96, 64]", "[128, 64]"]);
}

#[test]
fn weights_that_are_no_numbers_end_without_a_token() {
    let folder = spoiled(|folder| poison(&weights(folder), "model.norm.weight"));
    for engine in ["reference", "stock"] {
        let args = ["--model", path(folder.path()), "--engine", engine, "--max-new-tokens", "4"];
        refused(&mut generate(&args), 1, &["NaN"]);
    }
}

#[test]
fn a_tokenizer_or_template_that_cannot_be_used() {
    let tokenizer = |folder: &Path| folder.join("tokenizer.json");
    bad_model(
        |folder| fs::remove_file(tokenizer(folder)).expect("removed"),
        &["has no tokenizer.json", "save_pretrained"],
    );
    bad_model(
        |folder| fs::write(tokenizer(folder), "{}").expect("a file"),
        &["tokenizer.json", "download it again"],
    );
    let foreign = |folder: &Path| {
        edit_json(&tokenizer(folder), |tokenizer| tokenizer["model"]["vocab"]["1"] = json!(320));
    };
    bad_model(foreign, &["token 320", "of another model"]);
    let out = "--raw-prompt";
    for (template, words) in [
        ("{{ raise_exception('no system role') }}", ["fails", "no system role", out]),
        (
            "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
            ["loops", "steps", out],
        ),
        ("line one\n{% if %}", ["does not parse", "line 2", out]),
    ] {
        let folder = toy(template);
        refused(&mut generate(&["--model", path(folder.path())]), 2, &words);
    }
}

#[test]
fn lengths_that_do_not_fit_are_told_before_the_weights_are_read() {
    let folder = spoiled(|folder| cut(&weights(folder), 0));
    let model = ["--model", path(folder.path())];
    let asked = |args: &[&str]| worker(&[&["generate"], &model[..], args].concat());
    let long = format!("{} ", words(&golden_json("qwen2")["long_ids"])).repeat(2);
    let context = ["1200 tokens", "the model's context of 1024 tokens", "shorten the prompt"];
    refused(&mut asked(&["--prompt", &long]), 2, &context);
    let beyond = ["max_new_tokens = 1022", "the model's context of 1024 tokens"];
    refused(&mut asked(&["--prompt", "1 2 3", "--max-new-tokens", "1022"]), 2, &beyond);
    refused(
        &mut asked(&["--prompt", "1", "--max-new-tokens", "0"]),
        2,
        &["max_new_tokens is 0", "at least 1"],
    );
    refused(&mut asked(&["--prompt", ""]), 2, &["the prompt has no tokens"]);
    refused(&mut asked(&["--prompt", "1", "--max-new-tokens", "4"]), 2, &["truncated"]);
}

#[test]
fn values_out_of_range() {
    let tiny = |args: &[&str]| {
        worker(&[&["generate", "--model", "builtin:tiny-qwen3", "--prompt", "x"], args].concat())
    };
    refused(&mut tiny(&["--temperature=-1"]), 2, &["temperature = -1"]);
    refused(&mut tiny(&["--top-p", "1.5"]), 2, &["top_p = 1.5", "at most 1"]);
    refused(&mut tiny(&["--device", "tpu"]), 2, &["`tpu` is no device", "cuda:N"]);
    refused(&mut tiny(&["--dtype", "f16"]), 2, &["f16", "bf16, f32"]);
    refused(&mut tiny(&["--engine", "fused"]), 2, &["fused", "reference"]);
    refused(
        &mut tiny(&["--system", "x", "--raw-prompt"]),
        2,
        &["--raw-prompt", "cannot be used with"],
    );
    refused(&mut tiny(&["--prompt-file", "/dev/null"]), 2, &["cannot be used with"]);
}

#[test]
fn a_prompt_file_that_cannot_be_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("prompt");
    let asked =
        || worker(&["generate", "--model", "builtin:tiny-qwen3", "--prompt-file", path(&file)]);
    refused(&mut asked(), 2, &["--prompt-file", path(&file), "name a readable file"]);
    fs::write(&file, b"caf\xe9").expect("a file");
    refused(&mut asked(), 2, &[path(&file), "not UTF-8 (byte 3)", "save it as UTF-8"]);
    refused(&mut worker(&["generate", "--prompt", "x"]), 2, &["--model"]);
    refused(&mut worker(&["generate", "--model", "builtin:tiny-qwen3"]), 2, &["--prompt"]);
}

/// The limit on a file's size stands in for a full disk: the write that hits it fails in the same place,
/// and it needs no privilege.
#[test]
fn a_disk_that_fills_during_a_download_is_told_and_what_came_is_kept() {
    const ROOM: u64 = 100_000;
    let (folder, home) = (numbered("qwen2"), tempfile::tempdir().expect("a folder"));
    let hub = Hub::of_folder(folder.path());
    let from_hub = || {
        let mut command =
            generate(&["--model", "owner/model", "--greedy", "--max-new-tokens", "4", "--json"]);
        command
            .env_remove("HF_HUB_OFFLINE")
            .env("HF_ENDPOINT", &hub.endpoint)
            .env("HF_HOME", home.path());
        command
    };
    let mut full = from_hub();
    let limit = || {
        let room = libc::rlimit { rlim_cur: ROOM, rlim_max: ROOM };
        // SAFETY: two system calls with valid arguments, both allowed between fork and exec.
        let set = unsafe {
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            libc::setrlimit(libc::RLIMIT_FSIZE, &room)
        };
        if set == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: the closure only makes those system calls.
    unsafe { full.pre_exec(limit) };
    refused(&mut full, 1, &["cannot write", path(home.path()), "free space, or set HF_HOME"]);

    let whole = ran(&mut from_hub());
    assert_eq!(whole.code, Some(0), "{}", whole.stderr);
    let weights = format!("GET /owner/model/resolve/{COMMIT}/model.safetensors ");
    let requests = hub.requests();
    let mut of_weights = requests.iter().filter(|request| request.starts_with(&weights));
    let resumed = format!(" from {ROOM}");
    assert!(of_weights.any(|request| request.ends_with(&resumed)), "{requests:?}");
    let answer: Value = serde_json::from_str(&whole.stdout).expect("one JSON object");
    assert!(answer["metrics"]["download_s"].as_f64().is_some_and(|seconds| seconds > 0.0));
    let cached = ran(from_hub().env("HF_HUB_OFFLINE", "1"));
    let cached: Value = serde_json::from_str(&cached.stdout).expect("one JSON object");
    assert_eq!(cached["token_ids"], answer["token_ids"]);
    assert!(cached["metrics"]["download_s"].is_null());
}
