//! One decode step as a chain of our kernels, queued directly or replayed as one CUDA graph.

use bakeoff_kernels::{
    DecodeState, DevicePtr, KernelError, RingEntry, SampleSettings,
    attention::DecodeAttention,
    linear::{LinearResidual, NormGateUp, NormLinear},
    moe::{ExpertDown, ExpertGateUp, Router},
    sample::SampleStep,
};
use cudarc::driver::{CudaGraph, sys};
use half::bf16;

use super::{
    cache::KvCache,
    device::{Buffer, Gpu, Mapped, driver_error, kernel_error},
    dims::Dims,
    weights::{LayerWeights, Mlp, Weights},
};
use crate::EngineError;

/// Entries of the token ring; more than steps are ever queued ahead.
pub const RING_CAPACITY: usize = 256;
/// Attention asks for this much of the output projection ahead of its turn.
const PREFETCH_BYTES: u64 = 16 << 20;

/// What a decode step reads and writes beside weights and cache. Addresses never change, so one
/// captured graph serves every step of every request.
pub struct DecodeBuffers {
    pub state: Buffer<DecodeState>,
    pub settings: Buffer<SampleSettings>,
    pub ring: Mapped<RingEntry>,
    /// Nonzero asks the device to stop.
    pub control: Mapped<u32>,
    /// A bit for each token of the vocabulary.
    pub seen: Buffer<u32>,
    /// Tokens to feed instead of the sampled ones, for scoring.
    pub forced: Buffer<u32>,
    pub logits: Buffer<f32>,
    /// Distinct experts used since it was last cleared, over all layers.
    pub expert_loads: Buffer<u64>,
    h: Buffer<f32>,
    qkv: Buffer<f32>,
    attention: Buffer<bf16>,
    act: Buffer<bf16>,
    router_logits: Buffer<f32>,
    expert_act: Buffer<f32>,
}

impl DecodeBuffers {
    /// For sequences of at most `context` tokens.
    ///
    /// # Errors
    /// The device has not enough memory.
    pub fn new(gpu: &Gpu, dims: &Dims, context: usize) -> Result<Self, EngineError> {
        let experts = dims.experts.as_ref();
        let inner = experts.map_or(0, |e| e.top_k * e.inter) as usize;
        Ok(Self {
            state: Buffer::zeroed(gpu, 1)?,
            settings: Buffer::zeroed(gpu, 1)?,
            ring: Mapped::zeroed(gpu, RING_CAPACITY)?,
            control: Mapped::zeroed(gpu, 1)?,
            seen: Buffer::zeroed(gpu, dims.vocab.div_ceil(32) as usize)?,
            forced: Buffer::zeroed(gpu, context)?,
            logits: Buffer::zeroed(gpu, dims.vocab as usize)?,
            expert_loads: Buffer::zeroed(gpu, 1)?,
            h: Buffer::zeroed(gpu, dims.hidden as usize)?,
            qkv: Buffer::zeroed(gpu, dims.qkv_rows() as usize)?,
            attention: Buffer::zeroed(gpu, dims.q_rows() as usize)?,
            act: Buffer::zeroed(gpu, dims.inter as usize)?,
            router_logits: Buffer::zeroed(gpu, experts.map_or(0, |e| e.experts) as usize)?,
            expert_act: Buffer::zeroed(gpu, inner)?,
        })
    }

    /// Device memory of all buffers.
    pub fn bytes(&self) -> u64 {
        let sampling = self.state.bytes() + self.settings.bytes() + self.seen.bytes();
        let outputs = self.forced.bytes() + self.logits.bytes() + self.expert_loads.bytes();
        let layer = self.h.bytes() + self.qkv.bytes() + self.attention.bytes() + self.act.bytes();
        let routed = self.router_logits.bytes() + self.expert_act.bytes();
        (sampling + outputs + layer + routed) as u64
    }
}

/// Everything a step needs, borrowed together.
pub struct DecodeStep<'a> {
    pub gpu: &'a Gpu,
    pub dims: &'a Dims,
    pub weights: &'a Weights,
    pub cache: &'a KvCache,
    pub buffers: &'a DecodeBuffers,
}

impl DecodeStep<'_> {
    /// Queues the step: the token in the state goes through all layers, the next one is sampled.
    ///
    /// # Errors
    /// A launch fails.
    pub fn launch(&self) -> Result<(), EngineError> {
        let queue = || -> Result<(), KernelError> {
            for (at, layer) in self.weights.layers.iter().enumerate() {
                self.attention(at, layer)?;
                self.mlp(layer)?;
            }
            self.sample(self.buffers.h.ptr())
        };
        queue().map_err(kernel_error)
    }

    /// Queues the end of a prefill: logits of its last token, and the first sampled token.
    ///
    /// # Errors
    /// A launch fails.
    pub fn launch_first(&self, last_row: DevicePtr<f32>) -> Result<(), EngineError> {
        self.sample(last_row).map_err(kernel_error)
    }

    /// Queues the logits of one residual stream, without sampling.
    ///
    /// # Errors
    /// A launch fails.
    pub fn launch_logits(&self, h: DevicePtr<f32>) -> Result<(), EngineError> {
        self.logits(h, None).map_err(kernel_error)
    }

    /// The step as a graph.
    ///
    /// # Errors
    /// The capture fails.
    pub fn capture(&self) -> Result<StepGraph, EngineError> {
        let stream = self.gpu.stream();
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        stream.begin_capture(mode).map_err(driver_error)?;
        let launched = self.launch();
        let graph = stream.end_capture(sys::CUgraphInstantiate_flags(0)).map_err(driver_error);
        launched?;
        let graph = graph?.expect("a capture that was begun on this stream yields a graph");
        graph.upload().map_err(driver_error)?;
        Ok(StepGraph(graph))
    }

    fn attention(&self, at: usize, layer: &LayerWeights) -> Result<(), KernelError> {
        let (dims, buffers, launcher) = (self.dims, self.buffers, &self.gpu.launcher);
        let state = buffers.state.ptr();
        let (k_cache, v_cache) = self.cache.layer(at);
        NormLinear {
            h: buffers.h.ptr(),
            gamma: layer.attention_norm,
            weight: layer.qkv,
            bias: layer.qkv_bias,
            out: buffers.qkv.ptr(),
            state: Some(state),
            hidden: dims.hidden,
            rows: dims.qkv_rows(),
            eps: dims.eps,
        }
        .launch(launcher)?;
        DecodeAttention {
            qkv: buffers.qkv.ptr(),
            q_norm: layer.q_norm,
            k_norm: layer.k_norm,
            cos: self.cache.cos(),
            sin: self.cache.sin(),
            k_cache,
            v_cache,
            out: buffers.attention.ptr(),
            state,
            prefetch: Some(layer.o.cast()),
            prefetch_bytes: layer.o_bytes.min(PREFETCH_BYTES) & !15,
            heads: dims.heads,
            kv_heads: dims.kv_heads,
            head_dim: dims.head_dim,
            eps: dims.eps,
            scale: dims.scale(),
        }
        .launch(launcher)?;
        LinearResidual {
            x: buffers.attention.ptr(),
            weight: layer.o,
            h: buffers.h.ptr(),
            state: Some(state),
            inner: dims.q_rows(),
            hidden: dims.hidden,
        }
        .launch(launcher)
    }

    fn mlp(&self, layer: &LayerWeights) -> Result<(), KernelError> {
        let (dims, buffers, launcher) = (self.dims, self.buffers, &self.gpu.launcher);
        let (h, gamma, state) = (buffers.h.ptr(), layer.mlp_norm, Some(buffers.state.ptr()));
        match layer.mlp {
            Mlp::Dense { gate_up, down } => {
                NormGateUp {
                    h,
                    gamma,
                    weight: gate_up,
                    out: buffers.act.ptr(),
                    state,
                    hidden: dims.hidden,
                    inter: dims.inter,
                    eps: dims.eps,
                }
                .launch(launcher)?;
                LinearResidual {
                    x: buffers.act.ptr(),
                    weight: down,
                    h,
                    state,
                    inner: dims.inter,
                    hidden: dims.hidden,
                }
                .launch(launcher)
            }
            Mlp::Routed { router, gate_up, down } => {
                let experts = dims.experts.expect("a routed layer belongs to a model with experts");
                let logits = buffers.router_logits.ptr();
                Router {
                    h,
                    gamma,
                    weight: router,
                    logits,
                    state,
                    prefetch: None,
                    prefetch_bytes: 0,
                    hidden: dims.hidden,
                    experts: experts.experts,
                    eps: dims.eps,
                }
                .launch(launcher)?;
                ExpertGateUp {
                    h,
                    gamma,
                    logits,
                    weight: gate_up,
                    out: buffers.expert_act.ptr(),
                    state,
                    hidden: dims.hidden,
                    inter: experts.inter,
                    experts: experts.experts,
                    top_k: experts.top_k,
                    eps: dims.eps,
                }
                .launch(launcher)?;
                ExpertDown {
                    act: buffers.expert_act.ptr(),
                    logits,
                    weight: down,
                    h,
                    ids: None,
                    weights: None,
                    expert_loads: Some(buffers.expert_loads.ptr()),
                    state,
                    hidden: dims.hidden,
                    inter: experts.inter,
                    experts: experts.experts,
                    top_k: experts.top_k,
                    renormalise: experts.renormalise,
                }
                .launch(launcher)
            }
        }
    }

    fn logits(
        &self,
        h: DevicePtr<f32>,
        state: Option<DevicePtr<DecodeState>>,
    ) -> Result<(), KernelError> {
        NormLinear {
            h,
            gamma: self.weights.norm,
            weight: self.weights.lm_head,
            bias: None,
            out: self.buffers.logits.ptr(),
            state,
            hidden: self.dims.hidden,
            rows: self.dims.vocab,
            eps: self.dims.eps,
        }
        .launch(&self.gpu.launcher)
    }

    fn sample(&self, h: DevicePtr<f32>) -> Result<(), KernelError> {
        let buffers = self.buffers;
        self.logits(h, Some(buffers.state.ptr()))?;
        SampleStep {
            logits: buffers.logits.ptr(),
            state: buffers.state.ptr(),
            settings: buffers.settings.ptr(),
            seen: buffers.seen.ptr(),
            forced: Some(buffers.forced.ptr()),
            ring: buffers.ring.ptr(),
            control: Some(buffers.control.ptr()),
            embedding: self.weights.embedding,
            h: buffers.h.ptr(),
            rows: self.dims.vocab,
            hidden: self.dims.hidden,
            ring_capacity: RING_CAPACITY as u32,
        }
        .launch(&self.gpu.launcher)
    }
}

/// A captured step.
pub struct StepGraph(CudaGraph);

// SAFETY: the graph is used by the one thread that owns the engine; CUDA only forbids concurrent use.
unsafe impl Send for StepGraph {}

impl StepGraph {
    /// Queues one replay.
    ///
    /// # Errors
    /// The launch fails.
    pub fn launch(&self) -> Result<(), EngineError> {
        self.0.launch().map_err(driver_error)
    }
}
