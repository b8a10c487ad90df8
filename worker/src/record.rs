//! From what a cell brought to the documents that are stored: the markdown and the record.

use bakeoff_model::ModelSource;
use bakeoff_proto::document::{self, HeaderRow};
use bakeoff_proto::record::{
    DeviceFacts, DocumentRef, Fingerprint, MemoryFacts, OutputFacts, Resolved,
};
use bakeoff_proto::{Attempt, Cell, Job, Metrics, MetricsRecord, SCHEMA_VERSION};
use jiff::Timestamp;

use crate::metrics::Measured;
use crate::model::{ModelFacts, Output};
use crate::telemetry::Summary;

/// Planned and measured bytes may differ by this share before it is called a mismatch.
const MEMORY_TOLERANCE: f64 = 0.02;

/// Everything that the documents of a cell are made of.
pub struct CellResult<'a> {
    pub job: &'a Job,
    pub cell: &'a Cell,
    pub attempt: &'a Attempt,
    pub gpu_class: &'a str,
    /// Start of the generation.
    pub started_at: Timestamp,
    pub model: &'a ModelFacts,
    pub output: &'a Output,
    pub facts: &'a OutputFacts,
    pub measured: &'a Measured,
    pub telemetry: &'a Summary,
    /// Why telemetry of the GPU is missing, if it is.
    pub telemetry_note: Option<String>,
}

impl CellResult<'_> {
    /// The measured figures with those of the telemetry.
    pub fn metrics(&self) -> Metrics {
        let telemetry = self.telemetry;
        let tokens = self.output.generation.token_ids.len().max(1) as f64;
        Metrics {
            gpu_free_gb: telemetry.gpu_free_gb,
            peak_memory_gb: telemetry.peak_memory_gb,
            gpu_util_mean_pct: telemetry.gpu_util_mean_pct,
            power_mean_w: telemetry.power_mean_w,
            energy_j_per_token: telemetry.energy_j.map(|joules| joules / tokens),
            sm_clock_min_mhz: telemetry.sm_clock_min_mhz,
            throttled: telemetry.throttled,
            host_rss_peak_gb: telemetry.host_rss_peak_gb,
            host_cpu_s: telemetry.host_cpu_s,
            ..self.measured.metrics.clone()
        }
    }

    /// The markdown file: a header for people, the prompt, the output verbatim.
    pub fn markdown(&self, metrics: &Metrics) -> String {
        let (job, sampling) = (self.job, &self.output.sampling);
        let number = |value: f64| format!("{value:.3}");
        let optional = |value: Option<f64>| value.map(number).unwrap_or_default();
        let sampled = if sampling.greedy() {
            "greedy".to_owned()
        } else {
            format!("temperature {}, top_p {}", sampling.temperature(), sampling.top_p())
        };
        let revision = match &job.model.source {
            ModelSource::Hub { revision, .. } => revision.clone(),
            _ => String::new(),
        };
        let header: Vec<HeaderRow> = vec![
            ("model", job.model.display_id()),
            ("revision", revision),
            ("prompt", self.cell.prompt_id.clone()),
            ("run", self.cell.run.to_string()),
            ("seed", self.cell.seed.to_string()),
            ("started", self.started_at.to_string()),
            ("format", self.model.format.as_str().into()),
            ("engine", self.model.effective.engine.into()),
            ("dtype", job.engine.dtype.as_str().into()),
            ("device", self.model.effective.device.clone()),
            ("sampling", sampled),
            ("max new tokens", self.cell.generation.max_new_tokens.to_string()),
            ("prompt tokens", metrics.prompt_tokens.to_string()),
            ("tokens generated", metrics.tokens_generated.to_string()),
            ("time (s)", number(metrics.time_s)),
            ("tok/s", number(metrics.tok_per_s)),
            ("time to first token (ms)", number(metrics.ttft_ms)),
            ("time per output token (ms)", optional(metrics.tpot_ms)),
            ("model memory (GB)", number(metrics.model_memory_gb)),
            ("GPU free (GB)", optional(metrics.gpu_free_gb)),
            ("flash attention", metrics.flash_attn.to_string()),
            ("finish reason", self.facts.finish_reason.as_str().into()),
        ];
        document::render(&job.model.display_id(), &header, &self.cell.prompt, &self.output.text)
    }

    /// The record that points to the stored markdown.
    pub fn record(&self, metrics: Metrics, document: DocumentRef) -> MetricsRecord {
        let (job, cell, model) = (self.job, self.cell, self.model);
        let (sampling, effective) = (&self.output.sampling, &model.effective);
        MetricsRecord {
            schema_version: SCHEMA_VERSION,
            sweep: job.sweep.clone(),
            cell: cell.id.clone(),
            job: job.id.clone(),
            generation: job.generation,
            attempt: self.attempt.id.clone(),
            worker: self.attempt.worker.clone(),
            model: job.model.display_id(),
            source: job.model.source.clone(),
            prompt_id: cell.prompt_id.clone(),
            run: cell.run,
            seed: cell.seed,
            started_at: self.started_at,
            document,
            resolved: Resolved {
                format: model.format,
                thinking: model.thinking,
                engine: effective.engine.into(),
                temperature: sampling.temperature(),
                top_p: sampling.top_p(),
                top_k: sampling.top_k(),
                min_p: sampling.min_p(),
                repetition_penalty: sampling.repetition_penalty(),
                greedy: sampling.greedy(),
            },
            generation_settings: cell.generation.clone(),
            engine_settings: job.engine.clone(),
            fingerprint: Fingerprint {
                weights_sha256: model.weights_sha256.clone(),
                tokenizer_sha256: model.tokenizer_sha256.clone(),
                template_sha256: model.template_sha256.clone(),
                build: bakeoff_version::BUILD.into(),
                engine: effective.engine.into(),
                dtype: job.engine.dtype.as_str().into(),
                device: effective.device.clone(),
                driver: effective.driver.clone(),
                flash_attn: effective.flash_attn.into(),
                tf32: effective.tf32.into(),
                reduced_precision_reduction: effective.reduced_precision_reduction.into(),
                cuda_graph: effective.cuda_graph.into(),
            },
            output: self.facts.clone(),
            memory: self.memory(),
            device: DeviceFacts {
                name: effective.device.clone(),
                driver: Some(effective.driver.clone()).filter(|driver| !driver.is_empty()),
                gpu_class: self.gpu_class.to_owned(),
                host_cpu: bakeoff_engine::host::cpu_name(),
                telemetry_note: self.telemetry_note.clone(),
            },
            inter_token_ms: self.measured.inter_token_ms.clone(),
            mismatches: self.mismatches(),
            metrics,
        }
    }

    fn memory(&self) -> MemoryFacts {
        let model = self.model;
        MemoryFacts {
            planned_weight_bytes: model.planned_weight_bytes,
            weight_bytes: model.load.footprint.weight_bytes,
            planned_kv_bytes: model.planned_kv_bytes,
            kv_bytes: self.output.generation.kv_bytes,
            planned_workspace_bytes: model.planned_workspace_bytes,
            cap_bytes: model.cap_bytes,
            device_total_bytes: model.device_total_bytes,
        }
    }

    /// Figures that disagree with their plan, each as a sentence.
    fn mismatches(&self) -> Vec<String> {
        let memory = self.memory();
        let above = |measured: u64, planned: u64| {
            measured.saturating_sub(planned) as f64 > MEMORY_TOLERANCE * measured as f64
        };
        let sentence = |what: &str, planned: u64, measured: u64| {
            format!("{what}: {planned} bytes planned, {measured} bytes measured")
        };
        let mut found = Vec::new();
        let (planned, measured) = (memory.planned_weight_bytes, memory.weight_bytes);
        if above(measured, planned) || above(planned, measured) {
            found.push(sentence("weights", planned, measured));
        }
        // It may stay below its plan, which is for the longest sequence: candle-transformers'
        // grows.
        let (planned, measured) = (memory.planned_kv_bytes, memory.kv_bytes);
        if above(measured, planned) {
            found.push(sentence("key and value cache", planned, measured));
        }
        found
    }
}
