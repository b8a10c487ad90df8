//! One decode step as two kernels, queued directly or replayed as one CUDA graph: all layers with
//! `lm_head`, then sampling.

use bakeoff_kernels::{
    DecodeState, DevicePtr, Kernel as _, KernelError, RingEntry, SampleSettings,
    sample::SampleStep,
    step::{self, StepLayer},
};
use cudarc::driver::{CudaGraph, sys};
use half::bf16;

use super::{
    cache::KvCache,
    device::{Buffer, Gpu, Mapped},
    dims::Dims,
    error::{driver_error, kernel_error},
    prefill::ResidualRow,
    weights::{DeviceWeights, MlpWeights},
};
use crate::EngineError;

/// Entries of the token ring; more than steps are ever queued ahead.
pub const RING_CAPACITY: usize = 256;

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
    layers: Buffer<StepLayer>,
    h: Buffer<f32>,
    qkv: Buffer<f32>,
    attention: Buffer<bf16>,
    act: Buffer<bf16>,
    expert_act: Buffer<f32>,
    router_sums: Buffer<i64>,
    parts: Buffer<f32>,
    counters: Buffer<u32>,
}

impl DecodeBuffers {
    /// For sequences as long as the cache.
    ///
    /// # Errors
    /// The device has not enough memory.
    pub fn new(
        gpu: &Gpu,
        dims: &Dims,
        weights: &DeviceWeights,
        cache: &KvCache,
    ) -> Result<Self, EngineError> {
        let (experts, top_k, expert_inter) =
            dims.experts.map_or((0, 0, 0), |e| (e.experts, e.top_k, e.inter));
        let layers = step_layers(weights, cache);
        let (heads, kv_heads) = (dims.heads, dims.kv_heads);
        let parts =
            step::DecodeStep::parts_len(gpu.launcher.sm_count(), kv_heads, heads, dims.head_dim);
        Ok(Self {
            state: Buffer::zeroed(gpu, 1)?,
            settings: Buffer::zeroed(gpu, 1)?,
            ring: Mapped::zeroed(gpu, RING_CAPACITY)?,
            control: Mapped::zeroed(gpu, 1)?,
            seen: Buffer::zeroed(gpu, dims.vocab.div_ceil(32) as usize)?,
            forced: Buffer::zeroed(gpu, cache.tokens())?,
            logits: Buffer::zeroed(gpu, dims.vocab as usize)?,
            expert_loads: Buffer::zeroed(gpu, 1)?,
            h: Buffer::zeroed(gpu, dims.hidden as usize)?,
            qkv: Buffer::zeroed(gpu, dims.qkv_rows() as usize)?,
            attention: Buffer::zeroed(gpu, dims.q_rows() as usize)?,
            act: Buffer::zeroed(gpu, dims.inter as usize)?,
            expert_act: Buffer::zeroed(gpu, (top_k * expert_inter) as usize)?,
            router_sums: Buffer::zeroed(gpu, layers.len() * experts as usize)?,
            parts: Buffer::zeroed(gpu, parts)?,
            counters: Buffer::zeroed(gpu, step::DecodeStep::counters_len(kv_heads, heads))?,
            layers: Buffer::from_host(gpu, &layers)?,
        })
    }

    /// Device memory of all buffers.
    pub fn bytes(&self) -> u64 {
        let sampling = self.state.bytes() + self.settings.bytes() + self.seen.bytes();
        let outputs = self.forced.bytes() + self.logits.bytes() + self.expert_loads.bytes();
        let layer = self.h.bytes() + self.qkv.bytes() + self.attention.bytes() + self.act.bytes();
        let routed = self.router_sums.bytes() + self.expert_act.bytes();
        let shared = self.parts.bytes() + self.counters.bytes() + self.layers.bytes();
        (sampling + outputs + layer + routed + shared) as u64
    }
}

/// The addresses that the kernel reads on the device.
fn step_layers(weights: &DeviceWeights, cache: &KvCache) -> Vec<StepLayer> {
    let layers = weights.layers.iter().enumerate();
    layers
        .map(|(at, layer)| {
            let (k_cache, v_cache) = cache.layer(at);
            let (router, gate_up, down) = match layer.mlp {
                MlpWeights::Dense { gate_up, down, .. } => (None, gate_up, down),
                MlpWeights::Routed { router, gate_up, down } => (Some(router), gate_up, down),
            };
            StepLayer {
                attention_norm: layer.attention_norm,
                qkv: layer.qkv,
                qkv_bias: layer.qkv_bias,
                q_norm: layer.q_norm,
                k_norm: layer.k_norm,
                o: layer.o,
                mlp_norm: layer.mlp_norm,
                router,
                gate_up,
                down,
                k_cache,
                v_cache,
            }
        })
        .collect()
}

/// Everything a step needs, borrowed together.
pub struct DecodeStep<'a> {
    pub gpu: &'a Gpu,
    pub dims: &'a Dims,
    pub weights: &'a DeviceWeights,
    pub cache: &'a KvCache,
    pub buffers: &'a DecodeBuffers,
}

impl DecodeStep<'_> {
    /// Queues the step: the token in the state goes through all layers, the next one is sampled.
    ///
    /// # Errors
    /// A launch fails.
    pub fn launch(&self) -> Result<(), EngineError> {
        self.run(self.weights.layers.len(), self.buffers.h.ptr(), Some(self.buffers.state.ptr()))
            .and_then(|()| self.sample())
            .map_err(kernel_error)
    }

    /// Queues the end of a prefill: logits of its last token, and the first sampled token.
    ///
    /// # Errors
    /// A launch fails.
    pub fn launch_first(&self, last: ResidualRow<'_>) -> Result<(), EngineError> {
        self.run(0, last.ptr(), Some(self.buffers.state.ptr()))
            .and_then(|()| self.sample())
            .map_err(kernel_error)
    }

    /// Queues the logits of one residual stream, without sampling.
    ///
    /// # Errors
    /// A launch fails.
    pub fn launch_logits(&self, row: ResidualRow<'_>) -> Result<(), EngineError> {
        self.run(0, row.ptr(), None).map_err(kernel_error)
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

    /// So many layers from the first, the last norm and `lm_head`; `h` is a residual stream of this
    /// engine's.
    fn run(
        &self,
        layers: usize,
        h: DevicePtr<f32>,
        state: Option<DevicePtr<DecodeState>>,
    ) -> Result<(), KernelError> {
        let (dims, weights, buffers) = (self.dims, self.weights, self.buffers);
        let experts = dims.experts.as_ref();
        let has_dense =
            weights.layers.iter().any(|layer| matches!(layer.mlp, MlpWeights::Dense { .. }));
        let step = step::DecodeStep {
            layers: Some(buffers.layers.ptr()),
            norm: weights.norm,
            lm_head: weights.lm_head,
            cos: Some(self.cache.cos()),
            sin: Some(self.cache.sin()),
            state,
            h,
            logits: buffers.logits.ptr(),
            qkv: Some(buffers.qkv.ptr()),
            attention: Some(buffers.attention.ptr()),
            act: Some(buffers.act.ptr()),
            expert_act: Some(buffers.expert_act.ptr()),
            router_sums: Some(buffers.router_sums.ptr()),
            parts: Some(buffers.parts.ptr()),
            counters: buffers.counters.ptr(),
            expert_loads: Some(buffers.expert_loads.ptr()),
            layer_count: layers as u32,
            hidden: dims.hidden,
            vocab: dims.vocab,
            heads: dims.heads,
            kv_heads: dims.kv_heads,
            head_dim: dims.head_dim,
            inter: if has_dense { dims.inter } else { 0 },
            experts: experts.map_or(0, |e| e.experts),
            top_k: experts.map_or(0, |e| e.top_k),
            expert_inter: experts.map_or(0, |e| e.inter),
            renormalise: experts.map_or(0, |e| e.renormalise),
            eps: dims.eps,
            scale: dims.scale(),
        };
        // SAFETY: weights, cache and buffers were allocated for these dims and outlive the engine's
        // use of the stream; `Weights` and `step_layers` put each address where its matrix lies;
        // the counters and sums were zeroed, and each step leaves them so; only this stream touches
        // any of it.
        unsafe { step.launch(&self.gpu.launcher) }
    }

    fn sample(&self) -> Result<(), KernelError> {
        let buffers = self.buffers;
        let sample = SampleStep {
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
        };
        // SAFETY: as for the step; ring and control are mapped host memory, which the host reads
        // and writes a word at a time, volatile, as the kernel expects.
        unsafe { sample.launch(&self.gpu.launcher) }
    }
}

/// A captured step.
pub struct StepGraph(CudaGraph);

// SAFETY: the graph is used by the one thread that owns the engine; CUDA only forbids concurrent
// use.
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
