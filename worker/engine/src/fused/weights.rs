//! The weights on the device: the layout's slots as addresses, filled at random or by the uploader.

use bakeoff_kernels::{DevicePtr, Kernel as _, util::FillRandom};
use bakeoff_model::tensors::{ModelWeights, Role};
use half::bf16;

use super::{
    device::{Buffer, Gpu},
    error::kernel_error,
    layout::{Slot, WeightLayout},
};
use crate::{EngineError, weights::dummy};

const DUMMY_SEED: u64 = 0x000b_a4e0_ff00;

/// The address of each matrix.
pub type LayerWeights = bakeoff_model::tensors::LayerWeights<DevicePtr<bf16>>;
/// The address of each matrix of an MLP.
pub type MlpWeights = bakeoff_model::tensors::MlpWeights<DevicePtr<bf16>>;

/// All weights of a model, in one allocation.
pub struct DeviceWeights {
    pub embedding: DevicePtr<bf16>,
    /// Layouts as in the tensor plan, with gate and up rows interleaved.
    pub layers: Vec<LayerWeights>,
    pub norm: DevicePtr<bf16>,
    /// The embedding again where both are tied.
    pub lm_head: DevicePtr<bf16>,
    arena: Buffer<u8>,
}

impl DeviceWeights {
    /// Allocates; what the memory holds is undefined until it is filled.
    ///
    /// # Errors
    /// The device has not enough memory.
    pub fn allocate(gpu: &Gpu, layout: &WeightLayout) -> Result<Self, EngineError> {
        let arena = Buffer::<u8>::uninitialised(gpu, layout.bytes)?;
        let base = arena.ptr();
        let addresses = layout.slots.map(|slot| base.offset(slot.offset).cast::<bf16>());
        let lm_head = *addresses.output();
        let ModelWeights { embedding, layers, norm, lm_head: _ } = addresses;
        Ok(Self { embedding, layers, norm, lm_head, arena })
    }

    /// First byte of the allocation.
    pub fn base(&self) -> DevicePtr<u8> {
        self.arena.ptr()
    }

    /// Queues random weights: the same numbers for the same shapes. Norms scatter around 1.
    ///
    /// # Errors
    /// A launch fails.
    pub fn fill_random(&self, gpu: &Gpu, layout: &WeightLayout) -> Result<(), EngineError> {
        let fill = |slot: Slot, mean: f32| {
            assert!(
                slot.offset + slot.bytes <= self.arena.bytes(),
                "{slot:?} is beyond the weights"
            );
            let fill = FillRandom {
                out: self.arena.ptr().offset(slot.offset).cast(),
                count: (slot.bytes / size_of::<bf16>()) as u64,
                first: (slot.offset / size_of::<bf16>()) as u64,
                seed: DUMMY_SEED,
                mean,
                deviation: dummy::DEVIATION,
            };
            // SAFETY: the slot lies inside the arena, which nothing reads before the stream is
            // through.
            unsafe { fill.launch(&gpu.launcher) }.map_err(kernel_error)
        };
        fill(Slot { role: Role::Plain, offset: 0, bytes: layout.bytes }, 0.0)?;
        let slots = layout.slots.matrices().into_iter();
        slots.filter(|slot| slot.role == Role::Norm).try_for_each(|slot| fill(*slot, 1.0))
    }
}
