//! Keys and values of one sequence, allocated once for the longest, and the rotary tables beside
//! them.

use bakeoff_kernels::DevicePtr;
use candle_core::{DType, Storage, Tensor};
use cudarc::driver::DevicePtr as _;
use half::bf16;

use super::{
    device::{Buffer, Gpu},
    dims::Dims,
};
use crate::{EngineError, rope::RopeTables};

/// One layer: `[1, tokens, kv_heads, head_dim]` each, which is what both attentions take.
struct LayerCache {
    k: Tensor,
    v: Tensor,
    k_ptr: DevicePtr<bf16>,
    v_ptr: DevicePtr<bf16>,
}

/// The cache of all layers.
pub struct KvCache {
    tokens: usize,
    layers: Vec<LayerCache>,
    cos: Buffer<f32>,
    sin: Buffer<f32>,
}

impl KvCache {
    /// A cache of `tokens` positions, for which `rope` must have rows.
    ///
    /// # Errors
    /// The device has not enough memory.
    pub fn new(
        gpu: &Gpu,
        dims: &Dims,
        layers: usize,
        tokens: usize,
        rope: &RopeTables,
    ) -> Result<Self, EngineError> {
        let shape = (1, tokens, dims.kv_heads as usize, dims.head_dim as usize);
        let allocate = || {
            let tensor = Tensor::zeros(shape, DType::BF16, &gpu.device)?;
            let ptr = tensor_ptr(gpu, &tensor)?;
            Ok::<_, EngineError>((tensor, ptr))
        };
        let layers = (0..layers)
            .map(|_| {
                let ((k, k_ptr), (v, v_ptr)) = (allocate()?, allocate()?);
                Ok(LayerCache { k, v, k_ptr, v_ptr })
            })
            .collect::<Result<_, EngineError>>()?;
        let (cos, sin) = (Buffer::from_host(gpu, &rope.cos)?, Buffer::from_host(gpu, &rope.sin)?);
        Ok(Self { tokens, layers, cos, sin })
    }

    /// Positions it has room for.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Addresses of a layer's keys and values.
    pub fn layer(&self, at: usize) -> (DevicePtr<bf16>, DevicePtr<bf16>) {
        (self.layers[at].k_ptr, self.layers[at].v_ptr)
    }

    /// The first `tokens` keys and values of a layer, as views.
    ///
    /// # Errors
    /// More than there are.
    pub fn views(&self, at: usize, tokens: usize) -> Result<(Tensor, Tensor), EngineError> {
        let view = |tensor: &Tensor| tensor.narrow(1, 0, tokens);
        Ok((view(&self.layers[at].k)?, view(&self.layers[at].v)?))
    }

    /// Cosines, `[positions, head_dim / 2]`.
    pub fn cos(&self) -> DevicePtr<f32> {
        self.cos.ptr()
    }

    /// Sines, of the same shape.
    pub fn sin(&self) -> DevicePtr<f32> {
        self.sin.ptr()
    }
}

/// Where a contiguous BF16 tensor lies on the device.
pub(super) fn tensor_ptr(gpu: &Gpu, tensor: &Tensor) -> Result<DevicePtr<bf16>, EngineError> {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cuda(storage) = &*storage else {
        unreachable!("tensors of this engine are made on its CUDA device")
    };
    let slice = storage.as_cuda_slice::<bf16>()?;
    let (address, _no_event) = slice.device_ptr(gpu.stream());
    let base = DevicePtr::new(address).expect("an allocation is never at address zero");
    Ok(base.offset(layout.start_offset()))
}
