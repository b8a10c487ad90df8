//! From a model's name to its files: a folder, the hub, or a model inside the engine.

pub mod builtin;
mod folder;
pub mod hub;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use bakeoff_model::ModelSource;

use crate::EngineError;
use hub::HubSettings;

/// Where a model's weights are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WeightFiles {
    /// Safetensors files, sharded or not, in the order of the index.
    Paths(Vec<PathBuf>),
    /// One safetensors file inside the program.
    Embedded(&'static [u8]),
    /// None were looked for: the load format is dummy.
    Absent,
}

/// The files of one model, found and small ones read; weights are only located.
#[derive(Debug, Clone)]
pub struct ModelFiles {
    /// Hub id, `builtin:NAME` or the folder.
    pub id: String,
    /// The commit the files come from, when the hub told it.
    pub revision: Option<String>,
    pub config: Vec<u8>,
    pub generation_config: Option<Vec<u8>>,
    pub tokenizer: Option<Vec<u8>>,
    pub tokenizer_config: Option<Vec<u8>>,
    /// `chat_template.jinja`, which wins over the template in `tokenizer_config.json`.
    pub chat_template: Option<String>,
    pub weights: WeightFiles,
    /// Seconds spent downloading; `None` if everything was on disk or built in.
    pub download_s: Option<f64>,
}

/// What a resolution is told beside the source.
#[derive(Debug, Clone)]
pub struct SourceOptions {
    /// False leaves the weights where they are (the load format is dummy).
    pub weights: bool,
    pub hub: HubSettings,
}

impl SourceOptions {
    /// With the hub's settings from the environment.
    pub fn from_env(weights: bool) -> Self {
        Self { weights, hub: HubSettings::from_env() }
    }
}

/// Bytes on disk, of all that the model needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DownloadProgress {
    pub bytes: u64,
    pub total_bytes: u64,
}

/// Where progress goes, several times a second while a download runs; a `Break` abandons it.
pub type OnDownload<'a> = &'a mut dyn FnMut(DownloadProgress) -> ControlFlow<()>;

/// Finds a model's files, downloading what is not on disk yet. Blocks; may be called from anywhere.
///
/// # Errors
/// No such model, revision or file; a download that broke off; a full disk. Each message says what to do.
pub fn resolve(
    source: &ModelSource,
    options: &SourceOptions,
    on_progress: OnDownload<'_>,
) -> Result<ModelFiles, EngineError> {
    match source {
        ModelSource::Path { path } => folder::read(path, Path::new(path), options.weights),
        ModelSource::Builtin { name } => builtin::read(name, options.weights),
        ModelSource::Hub { id, revision } => {
            let snapshot = hub::fetch(&options.hub, id, revision, options.weights, on_progress)?;
            let files = folder::read(id, &snapshot.folder, options.weights)?;
            Ok(ModelFiles {
                revision: Some(snapshot.commit),
                download_s: snapshot.download_s,
                ..files
            })
        }
    }
}
