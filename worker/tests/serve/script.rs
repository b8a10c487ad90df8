//! A model that follows a script, in place of the engine.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bakeoff_engine::load::Effective;
use bakeoff_engine::{EngineError, Footprint, Generation, Sampling, SamplingParams, TokenEvent};
use bakeoff_model::{Format, Thinking};
use bakeoff_proto::record::OutputFacts;
use bakeoff_proto::{Cell, FailureKind, FinishReason, Job};
use bakeoff_worker::metrics::LoadFacts;
use bakeoff_worker::model::{Model, ModelFacts, Models, OnOpen, OnToken, OpenProgress, Output};

/// What the scripted model does.
#[derive(Clone, Default)]
pub struct Script {
    pub open_error: Option<FailureKind>,
    /// Fails the generation of this prompt.
    pub bad_prompt: Option<(String, FailureKind)>,
    pub token_pause: Duration,
    /// Freezes at this token of every measured cell, whatever it is asked.
    pub hangs_at: Option<u32>,
    pub opened: Arc<AtomicU32>,
    pub generated: Arc<AtomicU32>,
}

struct ScriptedModel {
    script: Script,
    facts: ModelFacts,
}

impl Models for Script {
    fn open(&self, _job: &Job, on_progress: OnOpen<'_>) -> Result<Box<dyn Model>, EngineError> {
        self.opened.fetch_add(1, Ordering::SeqCst);
        if let Some(kind) = self.open_error {
            return Err(EngineError::new(kind, "the script says so"));
        }
        if on_progress(OpenProgress::Load { bytes: 1, total_bytes: 1 }).is_break() {
            return Err(EngineError::new(FailureKind::Interrupted, "stopped"));
        }
        let effective = Effective {
            engine: "reference",
            device: "script".into(),
            driver: String::new(),
            flash_attn: "n/a",
            tf32: "n/a",
            reduced_precision_reduction: "n/a",
            cuda_graph: "n/a",
        };
        let facts = ModelFacts {
            weights_sha256: "w".into(),
            tokenizer_sha256: "t".into(),
            template_sha256: String::new(),
            format: Format::Base,
            thinking: Thinking::Auto,
            effective,
            load: LoadFacts {
                footprint: Footprint {
                    weight_bytes: 1000,
                    workspace_bytes: 0,
                    kv_bytes_per_token: 4,
                },
                stored_bytes: 1000,
                load_s: 0.5,
                download_s: None,
                read_bandwidth_gb_s: Some(10.0),
            },
            planned_weight_bytes: 1000,
            planned_kv_bytes: 100,
            planned_workspace_bytes: 0,
            cap_bytes: None,
            device_total_bytes: None,
        };
        Ok(Box::new(ScriptedModel { script: self.clone(), facts }))
    }
}

impl Model for ScriptedModel {
    fn facts(&self) -> &ModelFacts {
        &self.facts
    }

    fn generate(
        &mut self,
        cell: &Cell,
        max_new_tokens: u32,
        on_token: OnToken<'_>,
    ) -> Result<Output, EngineError> {
        if let Some((prompt, kind)) = &self.script.bad_prompt
            && *prompt == cell.prompt
        {
            return Err(EngineError::new(*kind, "the script says so"));
        }
        let warm_up = max_new_tokens < cell.generation.max_new_tokens;
        let started = Instant::now();
        let mut token_times = Vec::new();
        let mut finish_reason = Some(FinishReason::Length);
        for n in 0..max_new_tokens {
            if !warm_up {
                std::thread::sleep(self.script.token_pause);
                if self.script.hangs_at == Some(n) {
                    std::thread::park();
                }
            }
            token_times.push(Instant::now());
            if on_token(TokenEvent::Token { sequence: 0, id: n }) == ControlFlow::Break(()) {
                finish_reason = None;
                break;
            }
        }
        if !warm_up && finish_reason.is_some() {
            self.script.generated.fetch_add(1, Ordering::SeqCst);
        }
        let tokens = token_times.len() as u32;
        let facts = finish_reason.map(|finish_reason| OutputFacts {
            finish_reason,
            thinking_tokens: 0,
            answer_tokens: tokens,
            think_closed: None,
            has_code: false,
        });
        Ok(Output {
            generation: Generation {
                token_ids: (0..tokens).collect(),
                finish_reason,
                started,
                token_times,
                flash_attn: false,
                kv_bytes: 100,
                weight_bytes_per_token: 1000.0,
            },
            prompt_tokens: 3,
            text: format!("answer to {}\n| `verbatim` |", cell.prompt),
            facts,
            sampling: Sampling::new(SamplingParams {
                greedy: true,
                seed: cell.seed,
                ..SamplingParams::default()
            })
            .expect("within bounds"),
        })
    }
}
