//! Safetensors files: headers read and checked before a byte of weights is, values read in place.

use std::{
    collections::HashMap,
    fs::File,
    ops::{Deref, Range},
    path::Path,
};

use bakeoff_proto::{FailureKind, digest};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};

use super::plan::{BufferPlan, Part};
use crate::{EngineError, source::WeightFiles};

/// An opened checkpoint.
pub struct Checkpoint {
    files: Vec<WeightFile>,
    tensors: HashMap<String, StoredTensor>,
}

/// One safetensors file in memory or mapped from disk.
pub struct WeightFile {
    /// Its path, for messages and for readers that go past the map.
    pub name: String,
    data: FileData,
    header_bytes: usize,
}

enum FileData {
    Mapped(Mmap),
    Embedded(&'static [u8]),
}

impl Deref for FileData {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Embedded(bytes) => bytes,
        }
    }
}

/// Where a tensor lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTensor {
    pub file: usize,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// Byte range in the file.
    pub range: Range<usize>,
}

impl Checkpoint {
    /// Opens the files and reads their headers.
    ///
    /// # Errors
    /// A file that is missing or unreadable, truncated, or no safetensors.
    pub fn open(weights: &WeightFiles) -> Result<Self, EngineError> {
        let mut checkpoint = Self { files: Vec::new(), tensors: HashMap::new() };
        match weights {
            WeightFiles::Embedded(bytes) => {
                checkpoint.add("the built-in weights".to_owned(), FileData::Embedded(bytes))?;
            }
            WeightFiles::Paths(paths) => {
                for path in paths {
                    checkpoint.add(path.display().to_string(), FileData::Mapped(map(path)?))?;
                }
            }
            WeightFiles::Absent => {}
        }
        if checkpoint.files.is_empty() {
            return Err(EngineError::new(
                FailureKind::ModelNotFound,
                "the model has no safetensors files: use a checkpoint with them, or \
                 `--load-format dummy` for random weights",
            ));
        }
        Ok(checkpoint)
    }

    fn add(&mut self, name: String, data: FileData) -> Result<(), EngineError> {
        let (header, metadata) = SafeTensors::read_metadata(&data).map_err(|error| {
            bad(format!(
                "{name} ({} bytes) is truncated or no safetensors file ({error}): fetch it again",
                data.len()
            ))
        })?;
        // The length of the header precedes it in 8 bytes.
        let header_bytes = 8 + header;
        for (tensor, info) in metadata.tensors() {
            let (start, end) = info.data_offsets;
            let stored = StoredTensor {
                file: self.files.len(),
                dtype: info.dtype,
                shape: info.shape.clone(),
                range: header_bytes + start..header_bytes + end,
            };
            if let Some(other) = self.tensors.insert(tensor.clone(), stored) {
                return Err(bad(format!(
                    "tensor {tensor} is in {name} and in {}: remove the files that do not belong \
                     to this checkpoint",
                    self.files.get(other.file).map_or(name.as_str(), |file| &file.name)
                )));
            }
        }
        self.files.push(WeightFile { name, data, header_bytes });
        Ok(())
    }

    /// Checks that every planned tensor is there, in a number format we read and the planned shape.
    /// Tensors beyond the plan are reported in the log.
    ///
    /// # Errors
    /// The first tensor that is missing or different, by name, with what was expected and found.
    pub fn check(&self, plan: &[BufferPlan]) -> Result<(), EngineError> {
        let mut planned = 0;
        for part in plan.iter().flat_map(|buffer| &buffer.parts) {
            self.check_part(part)?;
            planned += 1;
        }
        if planned < self.tensors.len() {
            let known: std::collections::HashSet<&str> =
                plan.iter().flat_map(|b| &b.parts).map(|part| part.name.as_str()).collect();
            let mut extra: Vec<&str> = self
                .tensors
                .keys()
                .map(String::as_str)
                .filter(|name| !known.contains(name) && !is_derived(name))
                .collect();
            extra.sort_unstable();
            if let Some(first) = extra.first() {
                tracing::warn!(
                    count = extra.len(),
                    first,
                    "the checkpoint has tensors that its configuration does not call for; they are not used"
                );
            }
        }
        Ok(())
    }

    fn check_part(&self, part: &Part) -> Result<(), EngineError> {
        let Some(stored) = self.tensors.get(&part.name) else {
            return Err(self.missing(part));
        };
        let file = &self.files[stored.file].name;
        if is_quantised(stored.dtype) {
            return Err(quantised(&part.name, stored.dtype, file));
        }
        if !matches!(stored.dtype, Dtype::BF16 | Dtype::F16 | Dtype::F32) {
            return Err(bad(format!(
                "tensor {} in {file} has dtype {:?}, expected BF16, F16 or F32",
                part.name, stored.dtype
            )));
        }
        if stored.shape != part.shape {
            return Err(bad(format!(
                "tensor {} in {file} has shape {:?}, config.json asks for {:?}: the files are not \
                 of the same model",
                part.name, stored.shape, part.shape
            )));
        }
        Ok(())
    }

    fn missing(&self, part: &Part) -> EngineError {
        let mut quantised_tensors: Vec<_> =
            self.tensors.iter().filter(|(_, stored)| is_quantised(stored.dtype)).collect();
        quantised_tensors.sort_by_key(|(name, _)| name.as_str());
        if let Some((name, stored)) = quantised_tensors.first() {
            return quantised(name, stored.dtype, &self.files[stored.file].name);
        }
        bad(format!(
            "tensor {} {:?} is in none of the {} safetensors files: the download is incomplete, or \
             config.json is of another model",
            part.name,
            part.shape,
            self.files.len()
        ))
    }

    /// The bytes of a tensor that [`Checkpoint::check`] has passed, and their format.
    pub fn bytes(&self, name: &str) -> Option<(&[u8], Dtype)> {
        let stored = self.tensors.get(name)?;
        Some((self.files[stored.file].data.get(stored.range.clone())?, stored.dtype))
    }

    /// Where a tensor lies, for a loader that reads files itself.
    pub fn stored(&self, name: &str) -> Option<&StoredTensor> {
        self.tensors.get(name)
    }

    pub fn files(&self) -> &[WeightFile] {
        &self.files
    }

    /// Bytes of the planned tensors as stored.
    pub fn stored_bytes(&self, plan: &[BufferPlan]) -> u64 {
        plan.iter()
            .flat_map(|buffer| &buffer.parts)
            .filter_map(|part| self.tensors.get(&part.name))
            .map(|stored| stored.range.len() as u64)
            .sum()
    }

    /// A digest over the files' sizes and headers and a sample of each tensor's values, so that a
    /// fine-tuned model differs from its base although both have the same header. Where the folder
    /// lies does not matter.
    pub fn digest(&self) -> String {
        let mut text = String::new();
        for file in &self.files {
            let header = digest::sha256_hex(&file.data[..file.header_bytes]);
            text.push_str(&format!("{} {header}\n", file.data.len()));
        }
        let mut names: Vec<_> = self.tensors.iter().collect();
        names.sort_by_key(|(name, _)| name.as_str());
        for (name, stored) in names {
            let bytes = &self.files[stored.file].data[stored.range.clone()];
            let middle = bytes.len() / 2;
            let sample = &bytes[middle.saturating_sub(32)..(middle + 32).min(bytes.len())];
            text.push_str(&format!("{name} {}\n", digest::sha256_hex(sample)));
        }
        digest::sha256_hex(text.as_bytes())
    }
}

fn map(path: &Path) -> Result<Mmap, EngineError> {
    let unreadable = |error: std::io::Error| {
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound => FailureKind::ModelNotFound,
            _ => FailureKind::Disk,
        };
        EngineError::new(kind, format!("cannot read {}: {error}", path.display()))
    };
    let file = File::open(path).map_err(unreadable)?;
    // SAFETY: the map is only read, and files of a model are written under another name and renamed,
    // never changed in place.
    unsafe { Mmap::map(&file) }.map_err(unreadable)
}

/// Tensors that follow from the configuration or from another tensor and are rightly left out.
fn is_derived(name: &str) -> bool {
    name.ends_with("rotary_emb.inv_freq") || name == "lm_head.weight"
}

fn is_quantised(dtype: Dtype) -> bool {
    !matches!(dtype, Dtype::BF16 | Dtype::F16 | Dtype::F32 | Dtype::F64 | Dtype::BOOL | Dtype::C64)
}

fn quantised(name: &str, dtype: Dtype, file: &str) -> EngineError {
    EngineError::new(
        FailureKind::Quantised,
        format!(
            "the checkpoint is quantised (tensor {name} in {file} has dtype {dtype:?}): use the \
             model's unquantised BF16 checkpoint"
        ),
    )
}

fn bad(message: String) -> EngineError {
    EngineError::new(FailureKind::BadWeights, message)
}
