//! The files of a model, and the progress of their download.

use std::ops::ControlFlow;
use std::path::PathBuf;

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
    /// The commit the files come from, when the hub reported it.
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

/// Bytes on disk, of all that the model needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DownloadProgress {
    pub bytes: u64,
    pub total_bytes: u64,
}

/// Where progress goes, several times a second while a download runs; a `Break` abandons it.
pub type OnDownload<'a> = &'a mut dyn FnMut(DownloadProgress) -> ControlFlow<()>;
