//! Folders with models: the engine's golden checkpoints, whole and spoiled.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

fn engine() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("engine")
}

/// What transformers computed on a golden checkpoint.
pub fn golden_json(case: &str) -> Value {
    let path = engine().join("goldens/models").join(case).join("golden.json");
    serde_json::from_slice(&fs::read(path).expect("golden.json")).expect("JSON")
}

/// A golden checkpoint with a tokenizer whose tokens are the numbers of their ids, so that a prompt
/// is a list of ids.
pub fn numbered(case: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let source = engine().join("goldens/models").join(case);
    for entry in fs::read_dir(source).expect("a golden checkpoint") {
        let entry = entry.expect("an entry");
        if !entry.file_name().to_string_lossy().starts_with("golden.") {
            fs::copy(entry.path(), folder.path().join(entry.file_name())).expect("a copy");
        }
    }
    let config = read_json(&folder.path().join("config.json"));
    let ids = 0..config["vocab_size"].as_u64().expect("a vocabulary");
    let vocab: Value =
        ids.map(|id| (id.to_string(), json!(id))).collect::<serde_json::Map<_, _>>().into();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "0"},
    });
    write_json(&folder.path().join("tokenizer.json"), &tokenizer);
    folder
}

/// A list of ids as the tokenizer of [`numbered`] writes it.
pub fn words(ids: &Value) -> String {
    let ids = ids.as_array().expect("a list of ids");
    ids.iter().map(Value::to_string).collect::<Vec<_>>().join(" ")
}

/// A trained demo model in a folder of its own, with another chat template.
pub fn toy(template: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for entry in fs::read_dir(engine().join("demo-models/tiny-qwen3")).expect("the demo model") {
        let entry = entry.expect("an entry");
        symlink(entry.path(), folder.path().join(entry.file_name())).expect("a link");
    }
    fs::write(folder.path().join("chat_template.jinja"), template).expect("a template");
    folder
}

/// The golden checkpoint `qwen2` after `spoil` had its way with the folder.
pub fn spoiled(spoil: impl FnOnce(&Path)) -> TempDir {
    let folder = numbered("qwen2");
    spoil(folder.path());
    folder
}

/// Changes a JSON file in place.
pub fn edit_json(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = read_json(path);
    change(&mut value);
    write_json(path, &value);
}

/// Overwrites the first number of a BF16 tensor with NaN.
pub fn poison(weights: &Path, tensor: &str) {
    let mut bytes = fs::read(weights).expect("weights");
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).expect("a header");
    assert_eq!(header[tensor]["dtype"], "BF16");
    let first =
        8 + length + header[tensor]["data_offsets"][0].as_u64().expect("an offset") as usize;
    bytes[first..first + 2].copy_from_slice(&0x7fc0_u16.to_le_bytes());
    fs::write(weights, bytes).expect("weights");
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("a file")).expect("JSON")
}

fn write_json(path: &Path, value: &Value) {
    fs::write(path, value.to_string()).expect("a file");
}
