//! The prompt through all layers, a chunk of tokens at a time: cuBLAS and grouped products, our row
//! kernels between them, FlashAttention over the cache in place. Chunks of few tokens attend, and
//! go through the MLP, by kernels made for few. Nothing waits for the host.

use std::marker::PhantomData;

use bakeoff_kernels::{
    DevicePtr, Kernel,
    few_rows::{AttendRows, DownRows, GateUpRows},
    grouped::{CombineRows, ExpertPlan, GroupedDown, GroupedGateUp, RouterRows, SortByExpert},
    limits::MAX_FEW_ROWS,
    rows::{AddNormRows, EmbedRows, QkvRows, SiluMulRows},
};
use bakeoff_model::ledger::{ATTENTION_BLOCK_ROWS, PREFILL_CHUNK_TOKENS};
use candle_core::{DType, Tensor};
use half::bf16;

use super::{
    attention::PrefillAttention,
    cache::{KvCache, tensor_ptr},
    device::{Buffer, Gpu},
    dims::{Dims, ExpertDims},
    error::kernel_error,
    gemm::{Gemm, GemmShape},
    weights::{DeviceWeights, LayerWeights, MlpWeights},
};
use crate::EngineError;

/// Activations of one chunk, and how to multiply them.
pub struct Prefill {
    chunk: usize,
    gemm: Gemm,
    attention: PrefillAttention,
    tokens: Buffer<u32>,
    h: Buffer<f32>,
    x: Buffer<bf16>,
    qkv: Buffer<bf16>,
    q: Tensor,
    q_ptr: DevicePtr<bf16>,
    gate_up: Buffer<bf16>,
    act: Buffer<bf16>,
    experts: Option<ExpertBuffers>,
}

struct ExpertBuffers {
    logits: Buffer<f32>,
    ids: Buffer<u32>,
    weights: Buffer<f32>,
    offsets: Buffer<u32>,
    token_of: Buffer<u32>,
    slot_of: Buffer<u32>,
    tiles: Buffer<u32>,
    counts: Buffer<u32>,
    act: Buffer<bf16>,
    out: Buffer<bf16>,
}

/// What a chunk needs beside its own buffers.
pub struct PrefillInput<'a> {
    pub gpu: &'a Gpu,
    pub dims: &'a Dims,
    pub weights: &'a DeviceWeights,
    pub cache: &'a KvCache,
}

/// Tokens `first..first + tokens` of the prompt.
#[derive(Debug, Clone, Copy)]
pub struct Chunk {
    pub first: usize,
    pub tokens: usize,
}

impl Chunk {
    fn end(self) -> usize {
        self.first + self.tokens
    }

    fn is_short(self) -> bool {
        self.tokens <= MAX_FEW_ROWS as usize
    }
}

/// The residual stream of one token, `[hidden]`, in a prefill's buffers.
#[derive(Clone, Copy)]
pub struct ResidualRow<'a>(DevicePtr<f32>, PhantomData<&'a Prefill>);

impl ResidualRow<'_> {
    pub(super) fn ptr(self) -> DevicePtr<f32> {
        self.0
    }
}

impl Prefill {
    /// Buffers for prompts of up to `context` tokens.
    ///
    /// # Errors
    /// The device has not enough memory.
    pub fn new(
        gpu: &Gpu,
        dims: &Dims,
        context: usize,
        attention: PrefillAttention,
        has_dense: bool,
    ) -> Result<Self, EngineError> {
        let widest = match attention {
            PrefillAttention::Flash => PREFILL_CHUNK_TOKENS,
            PrefillAttention::Plain => ATTENTION_BLOCK_ROWS,
        };
        let chunk = widest.min(context).max(1);
        let hidden = dims.hidden as usize;
        let inter = if has_dense { dims.inter as usize } else { 0 };
        let q_shape = (1, chunk, dims.heads as usize, dims.head_dim as usize);
        let q = Tensor::zeros(q_shape, DType::BF16, &gpu.device)?;
        Ok(Self {
            chunk,
            gemm: Gemm::new(gpu),
            attention,
            tokens: Buffer::zeroed(gpu, context)?,
            h: Buffer::zeroed(gpu, chunk * hidden)?,
            x: Buffer::zeroed(gpu, chunk * hidden)?,
            qkv: Buffer::zeroed(gpu, chunk * dims.qkv_rows() as usize)?,
            q_ptr: tensor_ptr(gpu, &q)?,
            q,
            gate_up: Buffer::zeroed(gpu, chunk * 2 * inter)?,
            act: Buffer::zeroed(gpu, chunk * inter)?,
            experts: dims
                .experts
                .map(|experts| ExpertBuffers::new(gpu, experts, chunk, hidden))
                .transpose()?,
        })
    }

    /// Device memory of all buffers.
    pub fn bytes(&self) -> u64 {
        let q = self.q.elem_count() * size_of::<bf16>();
        let experts = self.experts.as_ref().map_or(0, ExpertBuffers::bytes);
        let own = self.tokens.bytes() + self.h.bytes() + self.x.bytes() + self.qkv.bytes();
        (own + q + self.gate_up.bytes() + self.act.bytes() + experts) as u64
    }

    /// Hands over the prompt's ids.
    ///
    /// # Errors
    /// A device error.
    pub fn set_tokens(&self, gpu: &Gpu, ids: &[u32]) -> Result<(), EngineError> {
        self.tokens.write(gpu, ids)
    }

    /// The prompt's ids on the device.
    pub fn tokens(&self) -> DevicePtr<u32> {
        self.tokens.ptr()
    }

    /// A prompt of `tokens` tokens in pieces that fit.
    pub fn chunks(&self, tokens: usize) -> impl Iterator<Item = Chunk> + use<> {
        let chunk = self.chunk;
        (0..tokens)
            .step_by(chunk)
            .map(move |first| Chunk { first, tokens: chunk.min(tokens - first) })
    }

    /// The residual stream of a token of the last chunk, by its index in the chunk.
    ///
    /// # Panics
    /// Beyond the chunk.
    pub fn residual(&self, dims: &Dims, at: usize) -> ResidualRow<'_> {
        assert!(at < self.chunk, "token {at} of a chunk of {}", self.chunk);
        ResidualRow(self.h.ptr().offset(at * dims.hidden as usize), PhantomData)
    }

    /// Queues one chunk through all layers; chunks must come in order.
    ///
    /// # Errors
    /// A launch fails.
    ///
    /// # Panics
    /// A chunk longer than those of [`Prefill::chunks`], or beyond the cache.
    pub fn run(&self, input: &PrefillInput<'_>, chunk: Chunk) -> Result<(), EngineError> {
        let fits = chunk.tokens <= self.chunk && chunk.end() <= input.cache.tokens();
        assert!(fits, "{chunk:?} in chunks of {}, cache {}", self.chunk, input.cache.tokens());
        let dims = input.dims;
        let embed = EmbedRows {
            tokens: self.tokens.ptr().offset(chunk.first),
            embedding: input.weights.embedding,
            h: self.h.ptr(),
            tokens_len: chunk.tokens as u32,
            hidden: dims.hidden,
            rows: dims.vocab,
        };
        queue(input, &embed)?;
        for (at, layer) in input.weights.layers.iter().enumerate() {
            self.attention(input, chunk, at, layer)?;
            self.norm(input, chunk, layer.mlp_norm)?;
            match layer.mlp {
                MlpWeights::Dense { gate_up, down, .. } => {
                    self.dense(input, chunk, gate_up, down)?
                }
                MlpWeights::Routed { router, gate_up, down } => {
                    self.routed(input, chunk, [router, gate_up, down])?;
                }
            }
        }
        Ok(())
    }

    fn norm(
        &self,
        input: &PrefillInput<'_>,
        chunk: Chunk,
        gamma: DevicePtr<bf16>,
    ) -> Result<(), EngineError> {
        let norm = AddNormRows {
            h: self.h.ptr(),
            y: None,
            gamma: Some(gamma),
            out: Some(self.x.ptr()),
            tokens: chunk.tokens as u32,
            hidden: input.dims.hidden,
            eps: input.dims.eps,
        };
        queue(input, &norm)
    }

    fn attention(
        &self,
        input: &PrefillInput<'_>,
        chunk: Chunk,
        at: usize,
        layer: &LayerWeights,
    ) -> Result<(), EngineError> {
        let dims = input.dims;
        self.norm(input, chunk, layer.attention_norm)?;
        let product = |out_width: u32, in_width: u32| GemmShape {
            rows: chunk.tokens,
            out_width: out_width as usize,
            in_width: in_width as usize,
        };
        let projection = product(dims.qkv_rows(), dims.hidden);
        // SAFETY: as in `queue`.
        unsafe { self.gemm.multiply(projection, self.x.ptr(), layer.qkv, self.qkv.ptr())? };
        let (k_cache, v_cache) = input.cache.layer(at);
        let qkv = QkvRows {
            qkv: self.qkv.ptr(),
            bias: layer.qkv_bias,
            q_norm: layer.q_norm,
            k_norm: layer.k_norm,
            cos: input.cache.cos(),
            sin: input.cache.sin(),
            q_out: self.q_ptr,
            k_cache,
            v_cache,
            position: chunk.first as u32,
            tokens: chunk.tokens as u32,
            cache_len: input.cache.tokens() as u32,
            heads: dims.heads,
            kv_heads: dims.kv_heads,
            head_dim: dims.head_dim,
            eps: dims.eps,
        };
        queue(input, &qkv)?;
        let output = product(dims.hidden, dims.q_rows());
        if chunk.is_short() && self.attention == PrefillAttention::Flash {
            self.attend_few(input, chunk, at)?;
            // SAFETY: as in `queue`.
            return unsafe { self.gemm.multiply_add(output, self.q_ptr, layer.o, self.h.ptr()) };
        }
        let q = self.q.narrow(1, 0, chunk.tokens)?;
        let (k, v) = input.cache.views(at, chunk.end())?;
        let out = self.attention.run(&q, &k, &v, dims.scale())?;
        let out_ptr = tensor_ptr(input.gpu, &out)?;
        // SAFETY: as in `queue`; candle frees the tensor in the order of the same stream.
        unsafe { self.gemm.multiply_add(output, out_ptr, layer.o, self.h.ptr()) }
    }

    /// Attention, which takes the place of the queries.
    fn attend_few(
        &self,
        input: &PrefillInput<'_>,
        chunk: Chunk,
        at: usize,
    ) -> Result<(), EngineError> {
        let dims = input.dims;
        let (k_cache, v_cache) = input.cache.layer(at);
        let attend = AttendRows {
            q: self.q_ptr,
            k_cache,
            v_cache,
            out: self.q_ptr,
            position: chunk.first as u32,
            tokens: chunk.tokens as u32,
            heads: dims.heads,
            kv_heads: dims.kv_heads,
            head_dim: dims.head_dim,
            scale: dims.scale(),
        };
        queue(input, &attend)
    }

    fn dense(
        &self,
        input: &PrefillInput<'_>,
        chunk: Chunk,
        gate_up: DevicePtr<bf16>,
        down: DevicePtr<bf16>,
    ) -> Result<(), EngineError> {
        if chunk.is_short() {
            return self.dense_few(input, chunk, gate_up, down);
        }
        let (hidden, inter) = (input.dims.hidden as usize, input.dims.inter as usize);
        let rows = chunk.tokens;
        let up = GemmShape { rows, out_width: 2 * inter, in_width: hidden };
        // SAFETY: as in `queue`.
        unsafe { self.gemm.multiply(up, self.x.ptr(), gate_up, self.gate_up.ptr())? };
        let silu_mul = SiluMulRows {
            gate_up: self.gate_up.ptr(),
            out: self.act.ptr(),
            tokens: rows as u32,
            inter: input.dims.inter,
        };
        queue(input, &silu_mul)?;
        let back = GemmShape { rows, out_width: hidden, in_width: inter };
        // SAFETY: as in `queue`.
        unsafe { self.gemm.multiply_add(back, self.act.ptr(), down, self.h.ptr()) }
    }

    fn dense_few(
        &self,
        input: &PrefillInput<'_>,
        chunk: Chunk,
        gate_up: DevicePtr<bf16>,
        down: DevicePtr<bf16>,
    ) -> Result<(), EngineError> {
        let (hidden, inter) = (input.dims.hidden, input.dims.inter);
        let (tokens, act) = (chunk.tokens as u32, self.act.ptr());
        let x = self.x.ptr();
        queue(input, &GateUpRows { x, weight: gate_up, act, tokens, hidden, inter })?;
        queue(input, &DownRows { act, weight: down, h: self.h.ptr(), tokens, hidden, inter })
    }

    fn routed(
        &self,
        input: &PrefillInput<'_>,
        chunk: Chunk,
        [router, gate_up, down]: [DevicePtr<bf16>; 3],
    ) -> Result<(), EngineError> {
        let dims = input.dims;
        let experts = dims.experts.expect("a routed layer belongs to a model with experts");
        let buffers = self.experts.as_ref().expect("buffers were made for the same experts");
        let plan = buffers.plan(experts, chunk.tokens as u32);
        let (hidden, inter) = (dims.hidden, experts.inter);
        let x = self.x.ptr();
        let logits = buffers.logits.ptr();
        queue(input, &RouterRows { x, weight: router, logits, plan, hidden })?;
        queue(input, &SortByExpert { plan })?;
        let (act, out) = (buffers.act.ptr(), buffers.out.ptr());
        queue(input, &GroupedGateUp { x, weight: gate_up, act, plan, hidden, inter })?;
        queue(input, &GroupedDown { act, weight: down, out, plan, hidden, inter })?;
        queue(input, &CombineRows { out, h: self.h.ptr(), plan, hidden })
    }
}

/// Queues a kernel of [`Prefill::run`].
fn queue(input: &PrefillInput<'_>, kernel: &impl Kernel) -> Result<(), EngineError> {
    // SAFETY: `run` has checked that the chunk fits the buffers and the cache, all of which were
    // allocated for these dims; weights lie where their plan put them. Prefill's own memory is used
    // by this stream alone and outlives it, and each kernel reads what those before it on the
    // stream wrote.
    unsafe { kernel.launch(&input.gpu.launcher) }.map_err(kernel_error)
}

impl ExpertBuffers {
    fn new(
        gpu: &Gpu,
        experts: ExpertDims,
        chunk: usize,
        hidden: usize,
    ) -> Result<Self, EngineError> {
        let slots = chunk * experts.top_k as usize;
        let tiles = ExpertPlan::tiles_len(chunk as u32, experts.experts, experts.top_k);
        Ok(Self {
            logits: Buffer::zeroed(gpu, chunk * experts.experts as usize)?,
            ids: Buffer::zeroed(gpu, slots)?,
            weights: Buffer::zeroed(gpu, slots)?,
            offsets: Buffer::zeroed(gpu, experts.experts as usize + 1)?,
            token_of: Buffer::zeroed(gpu, slots)?,
            slot_of: Buffer::zeroed(gpu, slots)?,
            tiles: Buffer::zeroed(gpu, 2 * tiles as usize)?,
            counts: Buffer::zeroed(gpu, 2)?,
            act: Buffer::zeroed(gpu, slots * experts.inter as usize)?,
            out: Buffer::zeroed(gpu, slots * hidden)?,
        })
    }

    fn bytes(&self) -> usize {
        let plan = self.ids.bytes() + self.weights.bytes() + self.offsets.bytes();
        let order = self.token_of.bytes() + self.slot_of.bytes() + self.tiles.bytes();
        let products = self.logits.bytes() + self.act.bytes() + self.out.bytes();
        plan + order + products + self.counts.bytes()
    }

    fn plan(&self, experts: ExpertDims, tokens: u32) -> ExpertPlan {
        ExpertPlan {
            ids: self.ids.ptr(),
            weights: self.weights.ptr(),
            offsets: self.offsets.ptr(),
            token_of: self.token_of.ptr(),
            slot_of: self.slot_of.ptr(),
            tiles: self.tiles.ptr(),
            counts: self.counts.ptr(),
            expert_loads: None,
            tokens,
            experts: experts.experts,
            top_k: experts.top_k,
            renormalise: experts.renormalise,
        }
    }
}
