//! What a plan needs: bytes to download, device memory, hours and money. Pure, except that a
//! model's configuration is read where it is at hand.

mod configs;
pub mod gpus;
mod text;

use std::collections::BTreeMap;

use bakeoff_model::ledger::{DeviceMemory, Ledger};
use bakeoff_model::shape::ModelShape;
use bakeoff_model::{ModelSource};
use bakeoff_proto::{Cell, CellId, Job, MetricsRecord};

use crate::plan::Plan;
use gpus::Gpu;
pub use text::render;

/// What the CUDA context takes on a current driver.
const CONTEXT_BYTES: u64 = 600_000_000;
/// A predicted speed is this share of the data sheet's bandwidth: what good decoders reach.
pub const PREDICTED_EFFICIENCY: f64 = 0.75;
/// A prompt's tokens are not counted without its tokenizer; source code and English are above this.
const CHARACTERS_PER_TOKEN: usize = 3;
/// For the chat template around the prompt.
const TEMPLATE_TOKENS: usize = 64;

/// The device that a plan is checked against.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Device {
    pub gpu: Option<Gpu>,
    pub price_per_gpu_hour: Option<f64>,
}

/// What one job needs.
#[derive(Debug, Clone)]
pub struct JobForecast {
    pub cells: usize,
    pub done: usize,
    pub shape: Option<ModelShape>,
    /// Bytes of the checkpoint; `None` where nothing is downloaded or the shape is unknown.
    pub download_bytes: Option<u64>,
    pub ledger: Option<Ledger>,
    pub tpot_ms: Option<Tpot>,
    /// Seconds for the open cells if each uses all its `max_new_tokens`.
    pub seconds_at_most: Option<f64>,
    /// What a person should know, as sentences.
    pub notes: Vec<String>,
}

/// Time per output token, and where it comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tpot {
    /// Mean over the records of this job.
    Measured(f64),
    /// From bytes per token and the GPU's bandwidth.
    Predicted(f64),
}

impl Tpot {
    pub fn ms(self) -> f64 {
        match self {
            Self::Measured(ms) | Self::Predicted(ms) => ms,
        }
    }
}

/// What a plan needs.
#[derive(Debug, Clone)]
pub struct Forecast {
    /// In the order of the plan's jobs.
    pub jobs: Vec<JobForecast>,
    /// Each checkpoint counted once.
    pub download_bytes: u64,
    /// At most; `None` where no speed is known for some open job.
    pub gpu_hours_at_most: Option<f64>,
    pub cost_at_most: Option<f64>,
}

/// The forecast of a plan, given the records there are.
pub fn forecast(
    plan: &Plan,
    records: &BTreeMap<CellId, MetricsRecord>,
    device: Device,
) -> Forecast {
    let jobs: Vec<_> =
        plan.jobs.iter().map(|planned| forecast_job(&planned.job, records, device)).collect();
    let mut checkpoints = BTreeMap::new();
    for (planned, job) in plan.jobs.iter().zip(&jobs) {
        if let Some(bytes) = job.download_bytes {
            checkpoints.insert(planned.job.model.display_id(), bytes);
        }
    }
    let seconds: Option<f64> = jobs.iter().map(|job| job.seconds_at_most).sum();
    let gpu_hours_at_most = seconds.map(|s| s / 3600.0);
    Forecast {
        download_bytes: checkpoints.values().sum(),
        cost_at_most: gpu_hours_at_most.zip(device.price_per_gpu_hour).map(|(h, price)| h * price),
        gpu_hours_at_most,
        jobs,
    }
}

fn forecast_job(
    job: &Job,
    records: &BTreeMap<CellId, MetricsRecord>,
    device: Device,
) -> JobForecast {
    let done: Vec<_> = job.cells.iter().filter_map(|cell| records.get(&cell.id)).collect();
    let mut notes = Vec::new();
    let shape = match configs::shape(&job.model.source) {
        Ok(shape) => shape,
        Err(note) => {
            notes.push(note);
            None
        }
    };
    let context = job.cells.iter().map(context_tokens).max().unwrap_or(0);
    let ledger = shape.as_ref().map(|shape| {
        let memory = device.gpu.map(|gpu| DeviceMemory::gpu(gpu.memory_bytes, CONTEXT_BYTES));
        Ledger::plan(shape, &job.engine, context, 1, memory)
    });
    if let Some(shape) = &shape {
        let asked = job.cells.iter().map(|c| c.generation.max_new_tokens).max().unwrap_or(0);
        if asked as usize >= shape.max_context {
            notes.push(format!(
                "max_new_tokens = {asked} leaves no room for a prompt: the context is {} tokens, these cells will fail",
                shape.max_context
            ));
        }
    }
    let tpot_ms = measured_tpot(&done).or_else(|| predicted_tpot(job, shape.as_ref(), device.gpu));
    let open = job.cells.iter().filter(|cell| !records.contains_key(&cell.id));
    let open_tokens: f64 = open.map(|cell| f64::from(cell.generation.max_new_tokens)).sum();
    let seconds_at_most = match (open_tokens, tpot_ms) {
        (0.0, _) => Some(0.0),
        (tokens, Some(tpot)) => Some(tokens * tpot.ms() / 1000.0),
        (_, None) => None,
    };
    let download_bytes = match job.model.source {
        ModelSource::Hub { .. } => shape.as_ref().map(ModelShape::stored_bytes),
        ModelSource::Builtin { .. } | ModelSource::Path { .. } => None,
    };
    JobForecast {
        cells: job.cells.len(),
        done: done.len(),
        shape,
        download_bytes,
        ledger,
        tpot_ms,
        seconds_at_most,
        notes,
    }
}

/// An upper estimate of a cell's sequence: its prompt's tokens are only known to the worker.
fn context_tokens(cell: &Cell) -> usize {
    let texts = [Some(&cell.prompt), cell.system.as_ref(), cell.code_hint.as_ref()];
    let characters: usize = texts.into_iter().flatten().map(|text| text.chars().count()).sum();
    characters / CHARACTERS_PER_TOKEN + TEMPLATE_TOKENS + cell.generation.max_new_tokens as usize
}

fn measured_tpot(records: &[&MetricsRecord]) -> Option<Tpot> {
    let known: Vec<f64> = records.iter().filter_map(|record| record.metrics.tpot_ms).collect();
    (!known.is_empty()).then(|| Tpot::Measured(known.iter().sum::<f64>() / known.len() as f64))
}

fn predicted_tpot(job: &Job, shape: Option<&ModelShape>, gpu: Option<Gpu>) -> Option<Tpot> {
    let (shape, gpu) = (shape?, gpu?);
    let dtype = job.engine.dtype;
    let mean_length = job.cells.iter().map(context_tokens).max().unwrap_or(0) as u64 / 2;
    let bytes = shape.weight_bytes_per_token(dtype) + shape.kv_bytes_per_token(dtype) * mean_length;
    Some(Tpot::Predicted(bytes as f64 / (gpu.bandwidth_gb_s * 1e9 * PREDICTED_EFFICIENCY) * 1000.0))
}
