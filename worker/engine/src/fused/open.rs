//! From a model's files to the fused engine: checks first, then the load, timed.

use std::time::Instant;

use bakeoff_model::{Dtype, EngineSettings, ledger::Ledger};
use bakeoff_proto::{FailureKind};

use super::{
    FusedEngine, FusedModel,
    device::{Gpu, device_memory},
    dims,
};
use crate::{
    EngineError,
    config::ModelConfig,
    load::{Effective, Loaded, OnLoad},
    source::ModelFiles,
    weights::{WeightSource, Weights},
};

/// Whether this engine can run a model with these settings.
///
/// # Errors
/// The first thing it cannot do.
pub fn supports(config: &ModelConfig, settings: &EngineSettings) -> Result<(), EngineError> {
    if settings.dtype != Dtype::Bf16 {
        let message = format!(
            "engine fused computes in bf16, got dtype = {}; use engine = \"reference\"",
            settings.dtype.as_str()
        );
        return Err(EngineError::new(FailureKind::Unsupported, message));
    }
    dims::supported(&config.shape)
}

/// Loads a model that [`supports`] accepts.
///
/// # Errors
/// A model that does not fit, weights that are missing or damaged, a device error; `on_progress`
/// breaks.
pub fn load(
    gpu: Gpu,
    config: &ModelConfig,
    files: &ModelFiles,
    settings: &EngineSettings,
    context: usize,
    on_progress: OnLoad<'_>,
) -> Result<Loaded, EngineError> {
    let memory = device_memory(&gpu.device)?;
    let ledger = Ledger::plan(&config.shape, settings, context, 1, Some(memory));
    ledger.fits()?;
    let weights =
        Weights::open(&files.weights, settings.load_format, &files.config, &config.shape)?;
    let (device, driver) = gpu.names();

    let started = Instant::now();
    let checkpoint = match weights.source() {
        WeightSource::Checkpoint(checkpoint) => Some((checkpoint, &files.weights)),
        WeightSource::Dummy => None,
    };
    let model = FusedModel { config, checkpoint, context };
    let engine = FusedEngine::load(gpu, model, settings, on_progress)?;
    let load_s = started.elapsed().as_secs_f64();
    tracing::info!(model = files.id, engine = "fused", load_s, "model loaded");

    let on_off = |on| if on { "on" } else { "off" };
    let effective = Effective {
        engine: "fused",
        device,
        driver,
        flash_attn: on_off(engine.flash_attn()),
        // Every FP32 sum of this engine is one of our kernels'.
        tf32: "n/a",
        reduced_precision_reduction: on_off(settings.reduced_precision_reduction),
        cuda_graph: on_off(settings.cuda_graph),
    };
    Ok(Loaded {
        engine: Box::new(engine),
        load_s,
        stored_bytes: weights.stored_bytes(),
        ledger,
        weights_sha256: weights.digest().to_owned(),
        effective,
    })
}
