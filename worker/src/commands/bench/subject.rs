//! A model to measure: a folder with weights, or a lone configuration with random ones.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bakeoff_engine::source::{ModelFiles, WeightFiles};
use bakeoff_model::LoadFormat;

use crate::error::CommandError;

/// A model to measure.
#[derive(Debug)]
pub struct Subject {
    /// As given, or the name of its folder or file.
    pub id: String,
    pub files: ModelFiles,
    pub load_format: LoadFormat,
}

impl Subject {
    /// `[ID=]PATH`. Without a load format: dummy where there are no weights.
    ///
    /// # Errors
    /// A path that cannot be read.
    pub fn read(model: &str, load_format: Option<LoadFormat>) -> Result<Self, CommandError> {
        let (id, path) = match model.split_once('=') {
            Some((id, path)) => (Some(id.to_owned()), Path::new(path)),
            None => (None, Path::new(model)),
        };
        let unreadable = |path: &Path| {
            let (model, path) = (model.to_owned(), path.to_owned());
            move |source| CommandError::ModelFile { model, path, source }
        };
        let folder = path.is_dir();
        let config = if folder { path.join("config.json") } else { path.to_owned() };
        let config = fs::read(&config).map_err(unreadable(&config))?;
        let stem = if folder { path.file_name() } else { path.file_stem() };
        let id = id.or_else(|| stem.map(|stem| stem.to_string_lossy().into_owned()));
        let id = id.unwrap_or_else(|| model.to_owned());
        let weights =
            if folder { weight_files(path).map_err(unreadable(path))? } else { Vec::new() };
        let load_format = load_format.unwrap_or(match weights.is_empty() {
            true => LoadFormat::Dummy,
            false => LoadFormat::Safetensors,
        });
        let files = ModelFiles {
            id: id.clone(),
            revision: None,
            config,
            generation_config: None,
            tokenizer: None,
            tokenizer_config: None,
            chat_template: None,
            weights: match load_format {
                LoadFormat::Safetensors => WeightFiles::Paths(weights),
                LoadFormat::Dummy => WeightFiles::Absent,
            },
            download_s: None,
        };
        Ok(Self { id, files, load_format })
    }
}

/// The safetensors files of a folder, in the order of their names.
fn weight_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("model") && name.ends_with(".safetensors") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}
