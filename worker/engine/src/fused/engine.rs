//! The engine itself: weights, cache and buffers together.

use std::{ops::ControlFlow, time::Instant};

use bakeoff_kernels::DecodeState;
use bakeoff_model::{Dtype, EngineSettings};

use super::{
    attention::PrefillAttention,
    cache::KvCache,
    decode::{DecodeBuffers, DecodeStep, StepGraph},
    device::Gpu,
    dims::Dims,
    plan::WeightPlan,
    prefill::{Prefill, PrefillInput},
    stored, upload,
    weights::Weights,
};
use crate::{
    Engine, EngineError, Footprint, Generation, Request, TokenEvent, config::ModelConfig,
    load::LoadProgress, request::Limits, source::WeightFiles, weights::Checkpoint,
};

/// What is to be loaded.
#[derive(Clone, Copy)]
pub struct FusedModel<'a> {
    pub config: &'a ModelConfig,
    /// The files, opened and checked; random weights without.
    pub checkpoint: Option<(&'a Checkpoint, &'a WeightFiles)>,
    /// Longest sequence.
    pub context: usize,
}

/// See the module.
pub struct FusedEngine {
    pub(super) gpu: Gpu,
    pub(super) dims: Dims,
    pub(super) weights: Weights,
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
    weight_bytes: u64,
    kv_bytes_per_token: u64,
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
        on_progress: &mut dyn FnMut(LoadProgress) -> ControlFlow<()>,
    ) -> Result<Self, EngineError> {
        let FusedModel { config, checkpoint, context } = model;
        let shape = &config.shape;
        let dims = Dims::new(shape, config.rms_norm_eps, config.norm_topk_prob)?;
        let plan = WeightPlan::new(shape);
        let mut laps = Laps::start();
        let weights = Weights::allocate(&gpu, &plan)?;
        laps.end("weights allocated");
        match checkpoint {
            None => weights.fill_random(&gpu, &plan)?,
            Some((checkpoint, files)) => {
                let uploads = stored::uploads(&plan, weights.base(), checkpoint, files)?;
                upload::upload(&gpu, &uploads, on_progress)?;
            }
        }
        laps.end("weights filled");
        let rope = config.rope.tables(shape.head_dim, context);
        let attention = PrefillAttention::choose(settings.flash_attn);
        let has_dense = shape.routed_layers() < shape.layers;
        let cache = KvCache::new(&gpu, &dims, shape.layers, context, &rope)?;
        laps.end("cache allocated");
        let engine = Self {
            prefill: Prefill::new(&gpu, &dims, context, attention, has_dense)?,
            buffers: DecodeBuffers::new(&gpu, &dims, &weights, &cache)?,
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
            weight_bytes: shape.weight_bytes(Dtype::Bf16),
            kv_bytes_per_token: shape.kv_bytes_per_token(Dtype::Bf16),
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
        self.kv_bytes_per_token * self.cache.tokens() as u64
    }
}

impl Engine for FusedEngine {
    fn name(&self) -> &'static str {
        "fused"
    }

    fn footprint(&self) -> Footprint {
        Footprint {
            weight_bytes: self.weight_bytes,
            workspace_bytes: self.prefill.bytes() + self.buffers.bytes(),
            kv_bytes_per_token: self.kv_bytes_per_token,
        }
    }

    fn max_context(&self) -> usize {
        self.cache.tokens()
    }

    fn generate(
        &mut self,
        requests: &[Request],
        on_event: &mut dyn FnMut(TokenEvent) -> ControlFlow<()>,
    ) -> Result<Vec<Generation>, EngineError> {
        for request in requests {
            self.limits.check(request)?;
        }
        let mut generations = Vec::with_capacity(requests.len());
        for (sequence, request) in requests.iter().enumerate() {
            let generation = self.generate_one(sequence, request, on_event)?;
            let stopped = generation.finish_reason.is_none();
            generations.push(generation);
            if stopped {
                break;
            }
        }
        Ok(generations)
    }

    fn score(&mut self, ids: &[u32]) -> Result<Vec<Vec<f32>>, EngineError> {
        self.score_by_decode(ids)
    }
}
