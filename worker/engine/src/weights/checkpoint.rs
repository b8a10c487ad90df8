//! Safetensors files: headers read and checked before a byte of weights is, values read in place.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io,
    ops::{Deref, Range},
    path::{Path, PathBuf},
};

use bakeoff_model::{
    TensorPlan,
    tensors::{StoredTensor, is_redundant},
};
use bakeoff_proto::{FailureKind, digest};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};

use crate::{EngineError, source::WeightFiles};

/// An opened checkpoint.
pub struct Checkpoint {
    files: Vec<WeightFile>,
    tensors: HashMap<String, TensorPlace>,
}

/// One safetensors file in memory or mapped from disk.
pub struct WeightFile {
    data: FileData,
    header_bytes: usize,
}

/// A file's bytes, and where a reader that goes past the map finds them.
pub enum FileData {
    Mapped(Mmap, PathBuf),
    Embedded(&'static [u8]),
}

impl WeightFile {
    /// Its bytes.
    pub fn data(&self) -> &FileData {
        &self.data
    }
}

impl FileData {
    /// Its name in messages.
    fn name(&self) -> String {
        match self {
            Self::Mapped(_, path) => path.display().to_string(),
            Self::Embedded(_) => "the built-in weights".to_owned(),
        }
    }
}

impl Deref for FileData {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map, _) => map,
            Self::Embedded(bytes) => bytes,
        }
    }
}

/// Where a tensor lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorPlace {
    /// Index among the checkpoint's files.
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
    /// A file that is missing, unreadable, truncated, or not in the safetensors format.
    pub fn open(weights: &WeightFiles) -> Result<Self, EngineError> {
        let mut checkpoint = Self { files: Vec::new(), tensors: HashMap::new() };
        match weights {
            WeightFiles::Embedded(bytes) => {
                checkpoint.add(FileData::Embedded(bytes))?;
            }
            WeightFiles::Paths(paths) => {
                for path in paths {
                    checkpoint.add(FileData::Mapped(map(path)?, path.clone()))?;
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

    fn add(&mut self, data: FileData) -> Result<(), EngineError> {
        let (header, metadata) = SafeTensors::read_metadata(&data).map_err(|error| {
            let message = format!(
                "{} ({} bytes) is truncated or not a safetensors file: download it again",
                data.name(),
                data.len()
            );
            EngineError::caused(FailureKind::BadWeights, message, error)
        })?;
        // The length of the header precedes it in 8 bytes.
        let header_bytes = 8 + header;
        for (tensor, info) in metadata.tensors() {
            let (start, end) = info.data_offsets;
            let place = TensorPlace {
                file: self.files.len(),
                dtype: info.dtype,
                shape: info.shape.clone(),
                range: header_bytes + start..header_bytes + end,
            };
            if let Some(other) = self.tensors.insert(tensor.clone(), place) {
                return Err(bad(format!(
                    "tensor {tensor} is in {} and in {}: remove the files that do not belong to \
                     this checkpoint",
                    data.name(),
                    self.files.get(other.file).unwrap_or(&self.files[0]).data.name()
                )));
            }
        }
        self.files.push(WeightFile { data, header_bytes });
        Ok(())
    }

    /// Checks that every planned tensor is there, in a dtype we read and the planned shape. Tensors
    /// beyond the plan are reported in the log.
    ///
    /// # Errors
    /// The first tensor that is missing or different, by name, with what was expected and found.
    pub fn check(&self, plan: &TensorPlan) -> Result<(), EngineError> {
        let mut planned = HashSet::with_capacity(self.tensors.len());
        for tensor in plan.stored_tensors() {
            self.check_tensor(tensor)?;
            planned.insert(tensor.name.as_str());
        }
        let names = self.tensors.keys().map(String::as_str);
        let extra = names.filter(|name| !planned.contains(name) && !is_redundant(name));
        let count = extra.clone().count();
        if let Some(first) = extra.min() {
            tracing::warn!(
                count,
                first,
                "the checkpoint has tensors that its configuration does not need; they are ignored"
            );
        }
        Ok(())
    }

    fn check_tensor(&self, tensor: &StoredTensor) -> Result<(), EngineError> {
        let Some(stored) = self.tensors.get(&tensor.name) else {
            return Err(self.missing(tensor));
        };
        let file = self.file_name(stored);
        if is_quantised(stored.dtype) {
            return Err(quantised(&tensor.name, stored.dtype, &file));
        }
        if !matches!(stored.dtype, Dtype::BF16 | Dtype::F16 | Dtype::F32) {
            return Err(bad(format!(
                "tensor {} in {file} has dtype {:?}, expected BF16, F16 or F32",
                tensor.name, stored.dtype
            )));
        }
        if stored.shape != tensor.shape {
            return Err(bad(format!(
                "tensor {} in {file} has shape {:?}, expected {:?} by config.json: the files are \
                 not of the same model",
                tensor.name, stored.shape, tensor.shape
            )));
        }
        Ok(())
    }

    fn missing(&self, tensor: &StoredTensor) -> EngineError {
        let quantised_tensors =
            self.tensors.iter().filter(|(_, stored)| is_quantised(stored.dtype));
        if let Some((name, stored)) = quantised_tensors.min_by_key(|(name, _)| name.as_str()) {
            return quantised(name, stored.dtype, &self.file_name(stored));
        }
        bad(format!(
            "tensor {} {:?} is missing from the {} safetensors files: the download is incomplete, \
             or config.json is of another model",
            tensor.name,
            tensor.shape,
            self.files.len()
        ))
    }

    fn file_name(&self, tensor: &TensorPlace) -> String {
        self.files[tensor.file].data.name()
    }

    /// The bytes of a tensor that [`Checkpoint::check`] has passed, and their format.
    pub fn bytes(&self, name: &str) -> Option<(&[u8], Dtype)> {
        let stored = self.tensors.get(name)?;
        Some((self.files[stored.file].data.get(stored.range.clone())?, stored.dtype))
    }

    /// Where a tensor lies, for a loader that reads files itself.
    pub fn place(&self, name: &str) -> Option<&TensorPlace> {
        self.tensors.get(name)
    }

    /// The files, in the order they were opened in.
    pub fn files(&self) -> &[WeightFile] {
        &self.files
    }

    /// Bytes of the planned tensors as stored.
    pub fn stored_bytes(&self, plan: &TensorPlan) -> u64 {
        plan.stored_tensors()
            .filter_map(|tensor| self.tensors.get(&tensor.name))
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
    let unreadable = |error: io::Error| {
        let kind = match error.kind() {
            io::ErrorKind::NotFound => FailureKind::ModelNotFound,
            _ => FailureKind::Disk,
        };
        EngineError::caused(kind, format!("cannot read {}", path.display()), error)
    };
    let file = File::open(path).map_err(unreadable)?;
    // SAFETY: the map is only read, and files of a model are written under another name and
    // renamed, never changed in place.
    unsafe { Mmap::map(&file) }.map_err(unreadable)
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
