//! From a checkpoint, or from nothing but a shape, to tensors on a device.
//!
//! - [`plan`]: which tensors a model has and which buffers they fill
//! - [`checkpoint`]: safetensors files, headers checked first
//! - [`convert`]: from stored numbers to the dtype asked for
//! - [`dummy`]: random weights of a true shape

pub mod checkpoint;
pub mod convert;
pub mod dummy;
pub mod plan;

use std::collections::HashMap;

use bakeoff_model::{Dtype, settings::LoadFormat, shape::ModelShape};
use bakeoff_proto::{FailureKind, digest};
use candle_core::{Device, Tensor};
use half::bf16;

use crate::{
    EngineError,
    load::{LoadProgress, OnLoad},
    source::WeightFiles,
};
pub use checkpoint::Checkpoint;
use convert::Element;
pub use plan::{Buffer, BufferPlan, Part};

/// Where values come from.
pub enum WeightSource {
    Checkpoint(Checkpoint),
    Dummy,
}

/// The weights of one model: what it needs, and where that comes from. Checked, not yet read.
pub struct Weights {
    source: WeightSource,
    plan: Vec<BufferPlan>,
    digest: String,
    stored_bytes: u64,
}

impl Weights {
    /// Opens the checkpoint and compares its headers with the plan.
    ///
    /// # Errors
    /// Files that are missing, truncated or corrupt; tensors that are missing, quantised or of
    /// another shape.
    pub fn open(
        files: &WeightFiles,
        format: LoadFormat,
        config_json: &[u8],
        shape: &ModelShape,
    ) -> Result<Self, EngineError> {
        let plan = plan::plan(shape);
        match format {
            LoadFormat::Safetensors => {
                let checkpoint = Checkpoint::open(files)?;
                checkpoint.check(&plan)?;
                Ok(Self {
                    digest: checkpoint.digest(),
                    stored_bytes: checkpoint.stored_bytes(&plan),
                    source: WeightSource::Checkpoint(checkpoint),
                    plan,
                })
            }
            LoadFormat::Dummy => Ok(Self {
                digest: digest::sha256_hex(&[b"dummy weights of ", config_json].concat()),
                stored_bytes: shape.stored_bytes(),
                source: WeightSource::Dummy,
                plan,
            }),
        }
    }

    pub fn plan(&self) -> &[BufferPlan] {
        &self.plan
    }

    pub fn source(&self) -> &WeightSource {
        &self.source
    }

    /// What identifies the weights in a fingerprint.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Bytes of the weights as stored.
    pub fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }

    /// Reads every buffer to the device, in the plan's order.
    ///
    /// # Errors
    /// The device refuses, or `on_progress` breaks.
    pub fn load(
        &self,
        dtype: Dtype,
        device: &Device,
        on_progress: OnLoad<'_>,
    ) -> Result<HashMap<Buffer, Tensor>, EngineError> {
        let total_bytes = self.plan.iter().map(|b| b.elements() as u64 * dtype.bytes()).sum();
        let mut tensors = HashMap::with_capacity(self.plan.len());
        let mut bytes = 0;
        for buffer in &self.plan {
            let tensor = self.tensor(&buffer.parts, &buffer.shape, buffer.buffer.is_norm(), dtype);
            let tensor = tensor.and_then(|tensor| tensor.to_device(device))?;
            tensors.insert(buffer.buffer, tensor);
            bytes += buffer.elements() as u64 * dtype.bytes();
            if on_progress(LoadProgress { bytes, total_bytes }).is_break() {
                return Err(abandoned());
            }
        }
        Ok(tensors)
    }

    /// One tensor of the checkpoint under its own name, on the CPU.
    ///
    /// # Errors
    /// The plan has no such tensor.
    pub fn named(&self, name: &str, dtype: Dtype) -> Result<Tensor, EngineError> {
        for buffer in &self.plan {
            if let Some(part) = buffer.parts.iter().find(|part| part.name == name) {
                let part = Part { first: 0, ..part.clone() };
                let is_norm = buffer.buffer.is_norm();
                let shape = part.shape.clone();
                return Ok(self.tensor(std::slice::from_ref(&part), &shape, is_norm, dtype)?);
            }
        }
        Err(EngineError::new(
            FailureKind::BadWeights,
            format!("the configuration calls for no tensor {name}"),
        ))
    }

    fn tensor(
        &self,
        parts: &[Part],
        shape: &[usize],
        is_norm: bool,
        dtype: Dtype,
    ) -> candle_core::Result<Tensor> {
        match dtype {
            Dtype::F32 => self.tensor_of::<f32>(parts, shape, is_norm),
            Dtype::Bf16 => self.tensor_of::<bf16>(parts, shape, is_norm),
        }
    }

    fn tensor_of<T: Element>(
        &self,
        parts: &[Part],
        shape: &[usize],
        is_norm: bool,
    ) -> candle_core::Result<Tensor> {
        let mut values = vec![T::ZERO; shape.iter().product()];
        for part in parts {
            let out = &mut values[part.first..part.first + part.elements()];
            match &self.source {
                WeightSource::Dummy => dummy::fill(&part.name, is_norm, out),
                WeightSource::Checkpoint(checkpoint) => {
                    let (bytes, dtype) =
                        checkpoint.bytes(&part.name).expect("every planned tensor was checked");
                    convert::decode(bytes, dtype, out);
                }
            }
        }
        Tensor::from_vec(values, shape, &Device::Cpu)
    }
}

/// A load that was told to stop.
pub fn abandoned() -> EngineError {
    EngineError::new(FailureKind::Interrupted, "the load was abandoned because the worker stops")
}
