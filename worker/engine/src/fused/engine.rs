//! The engine itself: weights, cache and buffers together.

use std::time::Instant;

use bakeoff_kernels::DecodeState;
use bakeoff_model::{Dtype, EngineSettings};

use super::{
    attention::PrefillAttention,
    cache::KvCache,
    decode::{DecodeBuffers, DecodeStep, StepGraph},
    device::Gpu,
    dims::Dims,
    layout::WeightLayout,
    prefill::{Prefill, PrefillInput},
    stored, upload,
    weights::DeviceWeights,
};
use crate::{
    EngineError,
    config::ModelConfig,
    engine::Footprint,
    loaded::OnLoad,
    request::Limits,
    weights::{WeightSource, Weights},
};

/// What is to be loaded.
#[derive(Clone, Copy)]
pub struct FusedModel<'a> {
    pub config: &'a ModelConfig,
    /// Opened and checked against the plan of this configuration.
    pub weights: &'a Weights,
    /// Longest sequence, in tokens.
    pub context: usize,
}

/// See the module.
pub struct FusedEngine {
    pub(super) gpu: Gpu,
    pub(super) dims: Dims,
    pub(super) weights: DeviceWeights,
    pub(super) cache: KvCache,
    pub(super) prefill: Prefill,
    pub(super) buffers: DecodeBuffers,
    pub(super) graph: Option<StepGraph>,
    /// Weight bytes that every decoded token reads.
    pub(super) common_bytes: u64,
    /// Bytes of one expert of one layer; 0 for a dense model.
    pub(super) expert_bytes: u64,
    pub(super) planned_bytes_per_token: u64,
    pub(super) limits: Limits,
    attention: PrefillAttention,
    pub(super) footprint: Footprint,
}

/// Logs what each part of a load took.
struct Laps(Instant);

impl Laps {
    fn start() -> Self {
        Self(Instant::now())
    }

    fn end(&mut self, what: &str) {
        let took_ms = self.0.elapsed().as_secs_f64() * 1e3;
        tracing::debug!(took_ms, "{what}");
        self.0 = Instant::now();
    }
}

impl FusedEngine {
    /// Loads a model. That it fits was checked before.
    ///
    /// # Errors
    /// A shape the kernels cannot run, weights that cannot be read, a device error, or
    /// `on_progress` breaks.
    pub fn load(
        gpu: Gpu,
        model: FusedModel<'_>,
        settings: &EngineSettings,
        on_progress: OnLoad<'_>,
    ) -> Result<Self, EngineError> {
        let FusedModel { config, weights: source, context } = model;
        let shape = &config.shape;
        let dims = Dims::new(shape, config.rms_norm_eps, config.norm_topk_prob)?;
        let layout = WeightLayout::new(source.plan());
        let mut laps = Laps::start();
        let weights = DeviceWeights::allocate(&gpu, &layout)?;
        laps.end("weights allocated");
        match source.source() {
            WeightSource::Dummy => weights.fill_random(&gpu, &layout)?,
            WeightSource::Checkpoint(checkpoint) => {
                let uploads = stored::uploads(&layout, weights.base(), checkpoint)?;
                upload::upload(&gpu, &uploads, on_progress)?;
            }
        }
        laps.end("weights filled");
        let rope = config.rope.tables(shape.head_dim, context);
        let attention = PrefillAttention::choose(settings.flash_attn);
        let has_dense = shape.routed_layers() < shape.layers;
        let cache = KvCache::new(&gpu, &dims, shape.layers, context, &rope)?;
        laps.end("cache allocated");
        let prefill = Prefill::new(&gpu, &dims, context, attention, has_dense)?;
        let buffers = DecodeBuffers::new(&gpu, &dims, &weights, &cache)?;
        let footprint = Footprint {
            weight_bytes: shape.weight_bytes(Dtype::Bf16),
            workspace_bytes: prefill.bytes() + buffers.bytes(),
            kv_bytes_per_token: shape.kv_bytes_per_token(Dtype::Bf16),
        };
        let engine = Self {
            prefill,
            buffers,
            cache,
            graph: None,
            common_bytes: shape.common_weight_bytes_per_token(Dtype::Bf16),
            expert_bytes: if shape.routed_layers() == 0 {
                0
            } else {
                shape.expert_bytes(Dtype::Bf16)
            },
            planned_bytes_per_token: shape.weight_bytes_per_token(Dtype::Bf16),
            attention,
            limits: Limits { context, model_context: shape.max_context, vocab: shape.vocab_size },
            footprint,
            gpu,
            dims,
            weights,
        };
        laps.end("buffers allocated");
        let engine = engine.prepare(settings.cuda_graph)?;
        laps.end("step captured");
        Ok(engine)
    }

    /// Runs one step that does nothing, which loads the kernels, and captures the graph.
    fn prepare(mut self, cuda_graph: bool) -> Result<Self, EngineError> {
        let stopped = DecodeState {
            stop: bakeoff_kernels::StopReason::Cancelled as u32,
            ..DecodeState::default()
        };
        self.buffers.state.write(&self.gpu, &[stopped])?;
        self.step().launch()?;
        self.gpu.synchronize()?;
        if cuda_graph {
            self.graph = Some(self.step().capture()?);
        }
        self.gpu.synchronize()?;
        Ok(self)
    }

    pub(super) fn step(&self) -> DecodeStep<'_> {
        DecodeStep {
            gpu: &self.gpu,
            dims: &self.dims,
            weights: &self.weights,
            cache: &self.cache,
            buffers: &self.buffers,
        }
    }

    pub(super) fn prefill_input(&self) -> PrefillInput<'_> {
        PrefillInput {
            gpu: &self.gpu,
            dims: &self.dims,
            weights: &self.weights,
            cache: &self.cache,
        }
    }

    pub(super) fn flash_attn(&self) -> bool {
        self.attention == PrefillAttention::Flash
    }

    pub(super) fn kv_bytes(&self) -> u64 {
        self.footprint.kv_bytes_per_token * self.cache.tokens() as u64
    }
}
