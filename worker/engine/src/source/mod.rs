//! From a model's name to its files: a folder, the hub, or a model inside the engine.

pub mod builtin;
mod files;
mod folder;
pub mod hub;

use std::path::Path;

use bakeoff_model::ModelSource;

use crate::EngineError;
pub use files::{DownloadProgress, ModelFiles, OnDownload, WeightFiles};
use hub::HubSettings;

/// What finding a model's files needs besides its source.
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

/// Finds a model's files, downloading what is not on disk yet. Blocks; may be called from anywhere.
///
/// # Errors
/// No such model, revision or file; a download that broke off; a full disk. Each message says what
/// to do.
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
