//! Which bytes of which file go where.

use std::{fs::File, sync::Arc};

use bakeoff_kernels::DevicePtr;
use bakeoff_proto::FailureKind;
use safetensors::Dtype;

use super::{
    layout::{Placement, WeightLayout},
    upload::{Source, Stored, Upload},
};
use crate::{
    EngineError,
    weights::{Checkpoint, checkpoint::FileData},
};

/// The layout's tensors as pieces of the checkpoint's files, on their way to the allocation at
/// `base`. The checkpoint was checked against the plan that the layout is of.
///
/// # Errors
/// A file that is gone since the checkpoint was opened.
pub(super) fn uploads(
    layout: &WeightLayout,
    base: DevicePtr<u8>,
    checkpoint: &Checkpoint,
) -> Result<Vec<Upload>, EngineError> {
    let source = |data: &FileData| match data {
        FileData::Embedded(bytes) => Ok(Source::Memory(bytes)),
        FileData::Mapped(_, path) => match File::open(path) {
            Ok(file) => Ok(Source::File(Arc::new(file))),
            Err(error) => {
                let message = format!("cannot open {}", path.display());
                Err(EngineError::caused(FailureKind::BadWeights, message, error))
            }
        },
    };
    let sources = checkpoint.files().iter().map(|file| source(file.data()));
    let sources = sources.collect::<Result<Vec<_>, _>>()?;
    let placements = layout.placements.iter();
    let mut uploads: Vec<_> =
        placements.map(|placement| one(placement, base, checkpoint, &sources)).collect();
    // In the files' order, so that a disk reads ahead.
    uploads.sort_by_key(|(file, upload)| (*file, upload.offset));
    Ok(uploads.into_iter().map(|(_, upload)| upload).collect())
}

fn one(
    placement: &Placement,
    base: DevicePtr<u8>,
    checkpoint: &Checkpoint,
    sources: &[Source],
) -> (usize, Upload) {
    let place = checkpoint.place(&placement.tensor).expect("every planned tensor was checked");
    let stored = match place.dtype {
        Dtype::BF16 => Stored::Bf16,
        Dtype::F16 => Stored::F16,
        Dtype::F32 => Stored::F32,
        other => unreachable!("a checkpoint of {other:?} is refused when it is checked"),
    };
    let upload = Upload {
        name: placement.tensor.clone(),
        source: sources[place.file].clone(),
        offset: place.range.start as u64,
        stored,
        rows: placement.rows,
        row_elements: placement.row_elements,
        to: base.offset(placement.offset),
        pitch_bytes: placement.pitch_bytes,
    };
    (place.file, upload)
}
