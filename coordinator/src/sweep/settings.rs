//! `[generation]`, `[engine]` and `[queue]`, and the same settings as overrides of one model.

use bakeoff_model::{EngineKind, EngineSettings, GenerationSettings};
use bakeoff_proto::names;

use super::file::{EngineSection, GenerationSection};
use super::problem::SweepProblem;
use crate::toml_file::{At, KeyPath};

/// Runs of each prompt unless the sweep gives a number.
pub const DEFAULT_RUNS: u32 = 3;

/// Sampling and length, over what `settings` already holds.
pub fn apply_generation(section: &GenerationSection, settings: &mut GenerationSettings) {
    settings.max_new_tokens = section.max_new_tokens.unwrap_or(settings.max_new_tokens);
    settings.temperature = section.temperature.or(settings.temperature);
    settings.top_p = section.top_p.or(settings.top_p);
    settings.min_p = section.min_p.or(settings.min_p);
    settings.repetition_penalty = section.repetition_penalty.or(settings.repetition_penalty);
    settings.top_k = section.top_k.or(settings.top_k);
    settings.greedy = section.greedy.unwrap_or(settings.greedy);
    settings.sampling = section.sampling.unwrap_or(settings.sampling);
}

/// The settings of each engine asked for, over those of the first in `base`.
pub fn engines(
    section: &EngineSection,
    path: &KeyPath,
    base: &[EngineSettings],
) -> Result<Vec<EngineSettings>, At<SweepProblem>> {
    let shared = &base[0];
    let kinds: Vec<EngineKind> = match &section.engine {
        None => base.iter().map(|settings| settings.engine).collect(),
        Some(kinds) => kinds.0.clone(),
    };
    if kinds.is_empty() {
        return Err(path.key("engine").refuse(SweepProblem::EmptyList));
    }
    for (position, kind) in kinds.iter().enumerate() {
        if kinds[..position].contains(kind) {
            let repeated = SweepProblem::RepeatedWord(kind.as_str());
            return Err(path.key("engine").refuse(repeated));
        }
    }
    let settings = |engine| EngineSettings {
        engine,
        dtype: section.dtype.unwrap_or(shared.dtype),
        load_format: section.load_format.unwrap_or(shared.load_format),
        max_memory_gb: section.max_memory_gb.unwrap_or(shared.max_memory_gb),
        flash_attn: section.flash_attn.unwrap_or(shared.flash_attn),
        tf32: section.tf32.unwrap_or(shared.tf32),
        reduced_precision_reduction: section
            .reduced_precision_reduction
            .unwrap_or(shared.reduced_precision_reduction),
        cuda_graph: section.cuda_graph.unwrap_or(shared.cuda_graph),
    };
    Ok(kinds.into_iter().map(settings).collect())
}

/// A GPU class in the form that workers derive from the card's name.
pub fn gpu_class(class: Option<&str>, path: &KeyPath) -> Result<Option<String>, At<SweepProblem>> {
    let Some(class) = class else { return Ok(None) };
    let token = names::class_token(class);
    if token.is_empty() || token.len() > 64 {
        let problem = SweepProblem::NotAGpuClass(class.to_owned());
        return Err(path.key("gpu_class").refuse(problem));
    }
    Ok(Some(token))
}
