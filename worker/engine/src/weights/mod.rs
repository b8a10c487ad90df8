//! From a checkpoint, or from nothing but a shape, to tensors on a device.
//!
//! - [`checkpoint`]: safetensors files, headers checked first
//! - [`convert`]: from stored numbers to the dtype asked for
//! - [`dummy`]: random weights of a true shape

pub mod checkpoint;
pub mod convert;
pub mod dummy;

use bakeoff_model::{
    Dtype,
    settings::LoadFormat,
    shape::ModelShape,
    tensors::{Matrix, ModelWeights, Role, StoredTensor, TensorPlan},
};
use bakeoff_proto::digest;
use candle_core::{Device, Tensor};
use half::bf16;

use crate::{
    EngineError,
    loaded::{LoadProgress, OnLoad, abandoned},
    source::WeightFiles,
};
pub use checkpoint::Checkpoint;
use convert::Element;

/// Where values come from.
pub enum WeightSource {
    Checkpoint(Checkpoint),
    Dummy,
}

/// The weights of one model: what it needs, and where that comes from. Checked, not yet read.
pub struct Weights {
    source: WeightSource,
    plan: TensorPlan,
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
        let plan = TensorPlan::new(shape);
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

    /// The tensors that the model needs.
    pub fn plan(&self) -> &TensorPlan {
        &self.plan
    }

    /// Where their values come from.
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

    /// Reads every matrix to the device, its tensors one below the other, in the plan's order.
    ///
    /// # Errors
    /// The device refuses, or `on_progress` breaks.
    pub fn load(
        &self,
        dtype: Dtype,
        device: &Device,
        on_progress: OnLoad<'_>,
    ) -> Result<ModelWeights<Tensor>, EngineError> {
        self.each(dtype, on_progress, |matrix| {
            Ok(self.tensor(&matrix.parts, &matrix.shape, matrix.role, dtype)?.to_device(device)?)
        })
    }

    /// Reads every tensor under the checkpoint's own name, to the CPU.
    ///
    /// # Errors
    /// `on_progress` breaks.
    pub fn load_named(
        &self,
        dtype: Dtype,
        on_progress: OnLoad<'_>,
    ) -> Result<Vec<(String, Tensor)>, EngineError> {
        let mut named = Vec::new();
        self.each(dtype, on_progress, |matrix| {
            for part in &matrix.parts {
                let parts = std::slice::from_ref(part);
                let tensor = self.tensor(parts, &part.shape, matrix.role, dtype)?;
                named.push((part.name.clone(), tensor));
            }
            Ok(())
        })?;
        Ok(named)
    }

    fn each<T>(
        &self,
        dtype: Dtype,
        on_progress: OnLoad<'_>,
        mut read: impl FnMut(&Matrix) -> Result<T, EngineError>,
    ) -> Result<ModelWeights<T>, EngineError> {
        let total_bytes = self.plan.parameters() * dtype.bytes();
        let mut bytes = 0;
        self.plan.try_map(|matrix| {
            let value = read(matrix)?;
            bytes += matrix.elements() as u64 * dtype.bytes();
            if on_progress(LoadProgress { bytes, total_bytes }).is_break() {
                return Err(abandoned());
            }
            Ok(value)
        })
    }

    fn tensor(
        &self,
        parts: &[StoredTensor],
        shape: &[usize],
        role: Role,
        dtype: Dtype,
    ) -> candle_core::Result<Tensor> {
        match dtype {
            Dtype::F32 => self.tensor_of::<f32>(parts, shape, role),
            Dtype::Bf16 => self.tensor_of::<bf16>(parts, shape, role),
        }
    }

    fn tensor_of<T: Element>(
        &self,
        parts: &[StoredTensor],
        shape: &[usize],
        role: Role,
    ) -> candle_core::Result<Tensor> {
        let mut values = vec![T::ZERO; shape.iter().product()];
        let mut rest = values.as_mut_slice();
        for part in parts {
            let (out, after) = rest.split_at_mut(part.elements());
            rest = after;
            match &self.source {
                WeightSource::Dummy => dummy::fill(&part.name, role, out),
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
