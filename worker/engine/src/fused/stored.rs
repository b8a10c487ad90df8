//! Which bytes of which file go where.

use std::{fs::File, sync::Arc};

use bakeoff_kernels::DevicePtr;
use bakeoff_proto::FailureKind;
use safetensors::Dtype;

use super::{
    plan::{Placement, WeightPlan},
    upload::{Source, Stored, Upload},
};
use crate::{EngineError, source::WeightFiles, weights::Checkpoint};

/// The plan's tensors as pieces of the checkpoint's files, on their way to the allocation at `base`.
///
/// # Errors
/// A file or a tensor that is gone since the checkpoint was checked.
pub(super) fn uploads(
    plan: &WeightPlan,
    base: DevicePtr<u8>,
    checkpoint: &Checkpoint,
    files: &WeightFiles,
) -> Result<Vec<Upload>, EngineError> {
    let sources = match files {
        WeightFiles::Embedded(bytes) => vec![Source::Memory(bytes)],
        WeightFiles::Paths(paths) => paths
            .iter()
            .map(|path| {
                let file = File::open(path).map_err(|error| {
                    let message = format!("{} cannot be opened: {error}", path.display());
                    EngineError::new(FailureKind::BadWeights, message)
                })?;
                Ok(Source::File(Arc::new(file)))
            })
            .collect::<Result<_, EngineError>>()?,
        WeightFiles::Absent => Vec::new(),
    };
    let mut uploads: Vec<_> = plan
        .placements
        .iter()
        .map(|placement| one(placement, base, checkpoint, &sources))
        .collect::<Result<_, _>>()?;
    // In the files' order, so that a disk reads ahead.
    uploads.sort_by_key(|(file, upload)| (*file, upload.offset));
    Ok(uploads.into_iter().map(|(_, upload)| upload).collect())
}

fn one(
    placement: &Placement,
    base: DevicePtr<u8>,
    checkpoint: &Checkpoint,
    sources: &[Source],
) -> Result<(usize, Upload), EngineError> {
    let bad = |what: &str| {
        EngineError::new(FailureKind::BadWeights, format!("tensor {} {what}", placement.tensor))
    };
    let tensor =
        checkpoint.stored(&placement.tensor).ok_or_else(|| bad("is in none of the files"))?;
    let stored = match tensor.dtype {
        Dtype::BF16 => Stored::Bf16,
        Dtype::F16 => Stored::F16,
        Dtype::F32 => Stored::F32,
        other => return Err(bad(&format!("has dtype {other:?}, expected BF16, F16 or F32"))),
    };
    if tensor.shape != placement.shape {
        return Err(bad(&format!("has shape {:?}, expected {:?}", tensor.shape, placement.shape)));
    }
    let source = sources.get(tensor.file).ok_or_else(|| bad("is in a file that is gone"))?;
    let row_elements = placement.shape.last().copied().unwrap_or(1);
    let upload = Upload {
        name: placement.tensor.clone(),
        source: source.clone(),
        offset: tensor.range.start as u64,
        stored,
        rows: placement.shape.iter().product::<usize>() / row_elements.max(1),
        row_elements,
        to: base.offset(placement.offset),
        pitch_bytes: placement.pitch_bytes,
    };
    Ok((tensor.file, upload))
}
