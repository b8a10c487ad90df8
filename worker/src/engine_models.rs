//! Models by the engine: found, checked, loaded, and asked.

use std::ops::ControlFlow;

use bakeoff_engine::format::{Formatter, Prompt};
pub use bakeoff_engine::load::DeviceChoice;
use bakeoff_engine::load::{self, LoadOptions, Loaded};
use bakeoff_engine::source::{self, SourceOptions};
use bakeoff_engine::{Engine, EngineError, Request};
use bakeoff_model::settings::LoadFormat;
use bakeoff_proto::{Cell, FailureKind, Job};

use crate::model::{Model, ModelFacts, Models, OnOpen, OnToken, OpenProgress, Output};

/// The engine's models, on one device.
#[derive(Debug, Clone, Copy)]
pub struct EngineModels {
    device: DeviceChoice,
}

impl EngineModels {
    pub fn new(device: DeviceChoice) -> Self {
        Self { device }
    }
}

impl Models for EngineModels {
    fn open(&self, job: &Job, on_progress: OnOpen<'_>) -> Result<Box<dyn Model>, EngineError> {
        let weights = job.engine.load_format == LoadFormat::Safetensors;
        let options = SourceOptions::from_env(weights);
        let files = source::resolve(&job.model.source, &options, &mut |at| {
            on_progress(OpenProgress::Download {
                bytes: at.bytes,
                total_bytes: Some(at.total_bytes),
            })
        })?;
        let formatter = Formatter::new(&files, job.model.format, job.model.thinking)?;
        let options = LoadOptions {
            settings: job.engine.clone(),
            device: self.device,
            context: longest(&formatter, &job.cells),
        };
        // Before the load: the measurement wants memory of its own.
        let bandwidth = self.device.read_bandwidth_gb_s(&job.engine);
        let loaded = load::load(&files, &options, &mut |at| {
            on_progress(OpenProgress::Load { bytes: at.bytes, total_bytes: at.total_bytes })
        })?;
        let facts = facts(&formatter, &loaded, files.download_s, bandwidth);
        Ok(Box::new(EngineModel { engine: loaded.engine, formatter, facts }))
    }
}

/// Tokens of the longest cell, prompt and output. A prompt that cannot be rendered fails in its own turn.
fn longest(formatter: &Formatter, cells: &[Cell]) -> usize {
    let tokens = |cell: &Cell| {
        let rendered = formatter.render(&prompt(cell)).ok()?;
        Some(rendered.ids.len() + cell.generation.max_new_tokens as usize)
    };
    cells.iter().filter_map(tokens).max().unwrap_or(1)
}

fn prompt(cell: &Cell) -> Prompt<'_> {
    Prompt {
        text: &cell.prompt,
        system: cell.system.as_deref(),
        code_hint: cell.code_hint.as_deref(),
    }
}

fn facts(
    formatter: &Formatter,
    loaded: &Loaded,
    download_s: Option<f64>,
    read_bandwidth_gb_s: Option<f64>,
) -> ModelFacts {
    let ledger = &loaded.ledger;
    ModelFacts {
        weights_sha256: loaded.weights_sha256.clone(),
        tokenizer_sha256: formatter.tokenizer_sha256().to_owned(),
        template_sha256: formatter.template_sha256().to_owned(),
        format: formatter.format(),
        thinking: formatter.thinking(),
        effective: loaded.effective.clone(),
        footprint: loaded.engine.footprint(),
        planned_weight_bytes: ledger.weight_bytes,
        planned_kv_bytes: ledger.kv_bytes,
        planned_workspace_bytes: ledger.workspace_bytes(),
        cap_bytes: Some(ledger.cap_bytes),
        device_total_bytes: ledger.device.as_ref().map(|device| device.total_bytes),
        stored_bytes: loaded.stored_bytes,
        load_s: loaded.load_s,
        download_s,
        read_bandwidth_gb_s,
    }
}

struct EngineModel {
    engine: Box<dyn Engine>,
    formatter: Formatter,
    facts: ModelFacts,
}

impl Model for EngineModel {
    fn facts(&self) -> &ModelFacts {
        &self.facts
    }

    fn generate(
        &mut self,
        cell: &Cell,
        max_new_tokens: u32,
        on_token: OnToken<'_>,
    ) -> Result<Output, EngineError> {
        let rendered = self.formatter.render(&prompt(cell))?;
        let sampling = self.formatter.resolve_sampling(&cell.generation, cell.seed)?;
        let prompt_tokens = rendered.ids.len() as u32;
        let request = Request {
            prompt_ids: rendered.ids.clone(),
            max_new_tokens: max_new_tokens as usize,
            sampling: sampling.clone(),
            stop_ids: self.formatter.stop_ids().to_vec(),
        };
        let mut on_event = |event| -> ControlFlow<()> { on_token(event) };
        let generations = self.engine.generate(&[request], &mut on_event)?;
        let generation = generations.into_iter().next().ok_or_else(|| {
            EngineError::new(FailureKind::Device, "the engine returned no sequence for a request")
        })?;
        let ids = &generation.token_ids;
        let text = self.formatter.decode(ids);
        let facts = generation
            .finish_reason
            .map(|reason| self.formatter.output_facts(&rendered, ids, reason));
        Ok(Output { generation, prompt_tokens, text, facts, sampling })
    }
}
