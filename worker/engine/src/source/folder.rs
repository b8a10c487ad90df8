//! A model in a folder, laid out as on the hub.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bakeoff_proto::FailureKind;

use super::files::{ModelFiles, WeightFiles};
use super::hub::name::is_plain_path;
use crate::EngineError;

/// Files beside the weights, each small enough to be read whole.
pub(super) const CONFIG: &str = "config.json";
pub(super) const GENERATION_CONFIG: &str = "generation_config.json";
pub(super) const TOKENIZER: &str = "tokenizer.json";
pub(super) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
pub(super) const CHAT_TEMPLATE: &str = "chat_template.jinja";
pub(super) const SINGLE: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// No configuration, template or tokenizer comes near this.
const MAX_SMALL_BYTES: u64 = 256 << 20;

/// Finds a model's files in `folder`; error messages call the model `id`.
///
/// # Errors
/// [`FailureKind::ModelNotFound`] naming the folder or file that is missing,
/// [`FailureKind::BadWeights`] for an index that cannot be read.
pub(super) fn read(id: &str, folder: &Path, weights: bool) -> Result<ModelFiles, EngineError> {
    if !folder.is_dir() {
        let what =
            if folder.exists() { "is not a folder" } else { "does not exist on this machine" };
        return Err(EngineError::new(
            FailureKind::ModelNotFound,
            format!(
                "the model's folder {} {what}: give a folder with config.json, tokenizer.json and \
                 safetensors, a hub id (owner/name) or builtin:NAME",
                folder.display()
            ),
        ));
    }
    let config = small(folder, CONFIG)?.ok_or_else(|| missing(folder, CONFIG))?;
    let chat_template = small(folder, CHAT_TEMPLATE)?.map(|bytes| {
        String::from_utf8(bytes).map_err(|error| {
            let path = folder.join(CHAT_TEMPLATE);
            let message = format!("{} is not UTF-8: save it as UTF-8 text", path.display());
            EngineError::caused(FailureKind::BadTemplate, message, error.utf8_error())
        })
    });
    Ok(ModelFiles {
        id: id.to_owned(),
        revision: None,
        config,
        generation_config: small(folder, GENERATION_CONFIG)?,
        tokenizer: small(folder, TOKENIZER)?,
        tokenizer_config: small(folder, TOKENIZER_CONFIG)?,
        chat_template: chat_template.transpose()?,
        weights: if weights { WeightFiles::Paths(locate(folder)?) } else { WeightFiles::Absent },
        download_s: None,
    })
}

/// The safetensors files of a folder, in order.
fn locate(folder: &Path) -> Result<Vec<PathBuf>, EngineError> {
    let single = folder.join(SINGLE);
    if single.exists() {
        return Ok(vec![single]);
    }
    let Some(index) = small(folder, INDEX)? else {
        return Err(missing(folder, "model.safetensors or model.safetensors.index.json"));
    };
    let shards = shards(&index).map_err(|error| {
        let path = folder.join(INDEX);
        let message =
            format!("cannot use {}; download it again, or use another revision", path.display());
        EngineError::caused(FailureKind::BadWeights, message, error)
    })?;
    let paths: Vec<PathBuf> = shards.iter().map(|name| folder.join(name)).collect();
    match paths.iter().position(|path| !path.exists()) {
        Some(at) => Err(missing(folder, &format!("{}, which {INDEX} names", shards[at]))),
        None => Ok(paths),
    }
}

/// The files that an index names, each once, in the order of their names.
///
/// # Errors
/// [`IndexError`].
pub(super) fn shards(index: &[u8]) -> Result<Vec<String>, IndexError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: std::collections::BTreeMap<String, String>,
    }
    let index: Index = serde_json::from_slice(index)?;
    let names: BTreeSet<String> = index.weight_map.into_values().collect();
    if names.is_empty() {
        return Err(IndexError::Empty);
    }
    match names.iter().find(|name| !is_plain_path(name)) {
        Some(name) => Err(IndexError::Outside(name.clone())),
        None => Ok(names.into_iter().collect()),
    }
}

/// Why an index of weight files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    #[error("it is not valid JSON with a `weight_map`")]
    Json(#[from] serde_json::Error),
    #[error("its `weight_map` is empty")]
    Empty,
    #[error("it names the file `{0}`, outside the model's folder")]
    Outside(String),
}

fn small(folder: &Path, name: &str) -> Result<Option<Vec<u8>>, EngineError> {
    let path = folder.join(name);
    let read = fs::metadata(&path).and_then(|facts| {
        if facts.len() > MAX_SMALL_BYTES {
            return Err(io::Error::other(format!(
                "it has {} bytes, expected at most {MAX_SMALL_BYTES}",
                facts.len()
            )));
        }
        fs::read(&path)
    });
    match read {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            let message = format!("cannot read {}; make it a readable file", path.display());
            Err(EngineError::caused(FailureKind::ModelNotFound, message, error))
        }
    }
}

fn missing(folder: &Path, what: &str) -> EngineError {
    EngineError::new(
        FailureKind::ModelNotFound,
        format!(
            "{} has no {what}: complete the download, or give the folder that holds the model",
            folder.display()
        ),
    )
}
