//! The weights on the device: the plan's slots as addresses, filled at random or by the uploader.

use bakeoff_kernels::{DevicePtr, Kernel as _, util::FillRandom};
use half::bf16;

use super::{
    device::{Buffer, Gpu, kernel_error},
    plan::{MlpSlots, Slot, WeightPlan},
};
use crate::EngineError;

/// Standard deviation that the models were initialised with.
const DUMMY_DEVIATION: f32 = 0.02;
const DUMMY_SEED: u64 = 0x000b_a4e0_ff00;

/// A layer's MLP; layouts as in [`MlpSlots`].
#[derive(Debug, Clone, Copy)]
pub enum Mlp {
    Dense { gate_up: DevicePtr<bf16>, down: DevicePtr<bf16> },
    Routed { router: DevicePtr<bf16>, gate_up: DevicePtr<bf16>, down: DevicePtr<bf16> },
}

/// A layer's weights.
#[derive(Debug, Clone, Copy)]
pub struct LayerWeights {
    pub attention_norm: DevicePtr<bf16>,
    pub qkv: DevicePtr<bf16>,
    pub qkv_bias: Option<DevicePtr<bf16>>,
    pub q_norm: Option<DevicePtr<bf16>>,
    pub k_norm: Option<DevicePtr<bf16>>,
    pub o: DevicePtr<bf16>,
    pub mlp_norm: DevicePtr<bf16>,
    pub mlp: Mlp,
}

/// All weights of a model, in one allocation.
pub struct Weights {
    pub embedding: DevicePtr<bf16>,
    pub layers: Vec<LayerWeights>,
    pub norm: DevicePtr<bf16>,
    pub lm_head: DevicePtr<bf16>,
    arena: Buffer<u8>,
}

impl Weights {
    /// Allocates; what the memory holds is undefined until it is filled.
    ///
    /// # Errors
    /// The device has not enough memory.
    pub fn allocate(gpu: &Gpu, plan: &WeightPlan) -> Result<Self, EngineError> {
        let arena = Buffer::<u8>::uninitialised(gpu, plan.bytes)?;
        let at = |slot: Slot| arena.ptr().offset(slot.offset).cast::<bf16>();
        let layers = plan
            .layers
            .iter()
            .map(|layer| LayerWeights {
                attention_norm: at(layer.attention_norm),
                qkv: at(layer.qkv),
                qkv_bias: layer.qkv_bias.map(at),
                q_norm: layer.qk_norms.map(|[q, _]| at(q)),
                k_norm: layer.qk_norms.map(|[_, k]| at(k)),
                o: at(layer.o),
                mlp_norm: at(layer.mlp_norm),
                mlp: match layer.mlp {
                    MlpSlots::Dense { gate_up, down } => {
                        Mlp::Dense { gate_up: at(gate_up), down: at(down) }
                    }
                    MlpSlots::Routed { router, gate_up, down } => {
                        Mlp::Routed { router: at(router), gate_up: at(gate_up), down: at(down) }
                    }
                },
            })
            .collect();
        Ok(Self {
            embedding: at(plan.embedding),
            layers,
            norm: at(plan.norm),
            lm_head: at(plan.lm_head),
            arena,
        })
    }

    /// First byte of the allocation.
    pub fn base(&self) -> DevicePtr<u8> {
        self.arena.ptr()
    }

    /// Queues random weights: the same numbers for the same shapes. Norms scatter around 1.
    ///
    /// # Errors
    /// A launch fails.
    pub fn fill_random(&self, gpu: &Gpu, plan: &WeightPlan) -> Result<(), EngineError> {
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
                deviation: DUMMY_DEVIATION,
            };
            // SAFETY: the slot lies inside the arena, which nothing reads before the stream is
            // through.
            unsafe { fill.launch(&gpu.launcher) }.map_err(kernel_error)
        };
        fill(Slot { offset: 0, bytes: plan.bytes }, 0.0)?;
        plan.norms.iter().try_for_each(|&slot| fill(slot, 1.0))
    }
}
