//! `[generation]`, `[engine]` and `[queue]`, and the same settings as overrides of one model.

use bakeoff_model::settings::LoadFormat;
use bakeoff_model::{Dtype, EngineKind, EngineSettings, GenerationSettings, SamplingSource};
use bakeoff_proto::{names};

use super::{Section, SweepError};

/// What a sweep says for all its models.
#[derive(Debug, Clone)]
pub struct Base {
    pub generation: GenerationSettings,
    pub engines: Vec<EngineSettings>,
    pub gpu_class: String,
    pub seed: u64,
    pub runs: u32,
    pub cells_per_job: Option<u32>,
}

const DEFAULT_RUNS: u32 = 3;
/// Beyond any context of the architectures that are supported.
const MAX_NEW_TOKENS: u32 = 1 << 20;

pub fn read_base(top: &mut Section<'_>) -> Result<Base, SweepError> {
    let mut base = Base {
        generation: GenerationSettings::default(),
        engines: vec![EngineSettings::default()],
        gpu_class: names::ANY_CLASS.to_owned(),
        seed: 0,
        runs: DEFAULT_RUNS,
        cells_per_job: None,
    };
    if let Some(mut section) = top.section("generation")? {
        base.seed = section.integer("seed", 0..=u64::MAX)?.unwrap_or(base.seed);
        base.runs = section.integer_u32("runs", 1..=10_000)?.unwrap_or(base.runs);
        read_generation(&mut section, &mut base.generation)?;
        section.finish()?;
    }
    if let Some(mut section) = top.section("engine")? {
        base.engines = read_engines(&mut section, &base.engines)?;
        section.finish()?;
    }
    if let Some(mut section) = top.section("queue")? {
        base.gpu_class = read_gpu_class(&mut section)?.unwrap_or(base.gpu_class);
        base.cells_per_job = section.count_or_all("cells_per_job", 100_000)?.flatten();
        section.finish()?;
    }
    Ok(base)
}

/// Sampling and length, over what `settings` already holds.
pub fn read_generation(
    section: &mut Section<'_>,
    settings: &mut GenerationSettings,
) -> Result<(), SweepError> {
    if let Some(value) = section.integer_u32("max_new_tokens", 1..=MAX_NEW_TOKENS)? {
        settings.max_new_tokens = value;
    }
    let temperature = section.number(
        "temperature",
        "a number above 0 and at most 5 (for the most likely token always, set `greedy = true`)",
        |t| t > 0.0 && t <= 5.0,
    )?;
    let top_p =
        section.number("top_p", "a number above 0 and at most 1", |p| p > 0.0 && p <= 1.0)?;
    let min_p =
        section.number("min_p", "a number from 0 to below 1", |p| (0.0..1.0).contains(&p))?;
    let penalty =
        section.number("repetition_penalty", "a number from 0.1 to 10 (1 is off)", |p| {
            (0.1..=10.0).contains(&p)
        })?;
    let top_k = section.integer_u32("top_k", 1..=1_000_000)?;
    settings.temperature = temperature.or(settings.temperature);
    settings.top_p = top_p.or(settings.top_p);
    settings.min_p = min_p.or(settings.min_p);
    settings.repetition_penalty = penalty.or(settings.repetition_penalty);
    settings.top_k = top_k.or(settings.top_k);
    settings.greedy = section.boolean("greedy")?.unwrap_or(settings.greedy);
    let sources = [("sweep", SamplingSource::Sweep), ("model", SamplingSource::Model)];
    settings.sampling = section.choice("sampling", &sources)?.unwrap_or(settings.sampling);
    Ok(())
}

/// The settings of each engine asked for, over those of the first in `base`.
pub fn read_engines(
    section: &mut Section<'_>,
    base: &[EngineSettings],
) -> Result<Vec<EngineSettings>, SweepError> {
    let kinds = [
        ("auto", EngineKind::Auto),
        ("reference", EngineKind::Reference),
        ("fused", EngineKind::Fused),
        ("stock", EngineKind::Stock),
    ];
    let chosen = section.choices("engine", &kinds)?;
    let dtype = section.choice("dtype", &[("bf16", Dtype::Bf16), ("f32", Dtype::F32)])?;
    let formats = [("safetensors", LoadFormat::Safetensors), ("dummy", LoadFormat::Dummy)];
    let load_format = section.choice("load_format", &formats)?;
    let max_memory_gb =
        section.number("max_memory_gb", "a number of gigabytes above 0, up to 100000", |gb| {
            gb > 0.0 && gb <= 100_000.0
        })?;
    let flash_attn = section.boolean("flash_attn")?;
    let tf32 = section.boolean("tf32")?;
    let reduced = section.boolean("reduced_precision_reduction")?;
    let cuda_graph = section.boolean("cuda_graph")?;

    let kinds = chosen.unwrap_or_else(|| base.iter().map(|settings| settings.engine).collect());
    let shared = &base[0];
    Ok(kinds
        .into_iter()
        .map(|engine| EngineSettings {
            engine,
            dtype: dtype.unwrap_or(shared.dtype),
            load_format: load_format.unwrap_or(shared.load_format),
            max_memory_gb: max_memory_gb.unwrap_or(shared.max_memory_gb),
            flash_attn: flash_attn.unwrap_or(shared.flash_attn),
            tf32: tf32.unwrap_or(shared.tf32),
            reduced_precision_reduction: reduced.unwrap_or(shared.reduced_precision_reduction),
            cuda_graph: cuda_graph.unwrap_or(shared.cuda_graph),
        })
        .collect())
}

/// A GPU class in the form that workers derive from the card's name.
pub fn read_gpu_class(section: &mut Section<'_>) -> Result<Option<String>, SweepError> {
    let Some(class) = section.string("gpu_class")? else { return Ok(None) };
    let token = names::class_token(&class);
    if token.is_empty() || token.len() > 64 {
        return Err(section.error_at(
            "gpu_class",
            format!(
                "must be \"any\", \"cpu\" or the name of a GPU (\"NVIDIA H100 80GB HBM3\", say), found \"{}\"",
                super::shorten(&class)
            ),
        ));
    }
    Ok(Some(token))
}

/// Fills in the defaults once all overrides are applied, and drops what greedy decoding ignores,
/// so that two sweeps that mean the same have the same cells.
pub fn settle(settings: &mut GenerationSettings) {
    if settings.greedy {
        settings.temperature = None;
        settings.top_p = None;
        settings.top_k = None;
        settings.min_p = None;
    } else if settings.sampling == SamplingSource::Sweep {
        settings.temperature.get_or_insert(GenerationSettings::DEFAULT_TEMPERATURE);
        settings.top_p.get_or_insert(GenerationSettings::DEFAULT_TOP_P);
    }
}
