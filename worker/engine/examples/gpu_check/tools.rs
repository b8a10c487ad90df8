//! Loading, comparing, reporting.

use std::{fmt::Display, ops::ControlFlow, path::Path};

use bakeoff_engine::{
    Engine, EngineError, Generation, Request, Sampling, TokenEvent,
    config::ModelConfig,
    fused::{FusedEngine, FusedModel, device::Gpu, supports},
    load::{DeviceChoice, LoadOptions},
    source::{ModelFiles, WeightFiles},
    weights::Checkpoint,
};
use bakeoff_model::EngineSettings;

/// Our error may be so many times that of the peer in BF16.
pub const MOST: f64 = 1.5;

/// Counts what failed.
#[derive(Default)]
pub struct Checks {
    passed: u32,
    failed: u32,
}

impl Checks {
    pub fn that(&mut self, holds: bool, name: impl Display, detail: impl Display) {
        let verdict = if holds { "ok  " } else { "FAIL" };
        println!("{verdict} {name}: {detail}");
        if holds { self.passed += 1 } else { self.failed += 1 }
    }

    /// The result's value; an error fails the check.
    pub fn value<T>(&mut self, name: impl Display, result: Result<T, EngineError>) -> Option<T> {
        result.map_err(|error| self.that(false, name, error)).ok()
    }

    pub fn finish(&self) -> i32 {
        println!("{} ok, {} failed", self.passed, self.failed);
        self.failed.min(100) as i32
    }
}

/// A folder with `config.json` and safetensors files, or a lone configuration.
pub fn files(path: &Path) -> ModelFiles {
    let folder = path.is_dir();
    let config = if folder { path.join("config.json") } else { path.to_owned() };
    let mut paths: Vec<_> = folder
        .then(|| std::fs::read_dir(path).expect("a folder of the model"))
        .into_iter()
        .flatten()
        .map(|entry| entry.expect("an entry of the folder").path())
        .filter(|path| {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            name.is_some_and(|name| name.starts_with("model") && name.ends_with(".safetensors"))
        })
        .collect();
    paths.sort();
    ModelFiles {
        id: path.display().to_string(),
        revision: None,
        config: std::fs::read(&config).expect("config.json"),
        generation_config: None,
        tokenizer: None,
        tokenizer_config: None,
        chat_template: None,
        weights: if folder { WeightFiles::Paths(paths) } else { WeightFiles::Absent },
        download_s: None,
    }
}

pub fn options(context: usize) -> LoadOptions {
    LoadOptions { settings: EngineSettings::default(), device: DeviceChoice::Cuda(0), context }
}

/// The fused engine with its own type, which can score through either path.
pub fn load(files: &ModelFiles, options: &LoadOptions) -> Result<FusedEngine, EngineError> {
    let settings = &options.settings;
    let config = ModelConfig::parse(&files.config)?;
    supports(&config, settings)?;
    let checkpoint = match &files.weights {
        WeightFiles::Absent => None,
        weights => Some(Checkpoint::open(weights)?),
    };
    let model = FusedModel {
        config: &config,
        checkpoint: checkpoint.as_ref().map(|checkpoint| (checkpoint, &files.weights)),
        context: options.context,
    };
    let gpu = Gpu::open(0, settings)?;
    FusedEngine::load(gpu, model, settings, &mut |_| ControlFlow::Continue(()))
}

pub const GREEDY: Sampling = Sampling {
    greedy: true,
    temperature: 0.0,
    top_p: 1.0,
    top_k: None,
    min_p: None,
    repetition_penalty: 1.0,
    seed: 0,
};

pub fn request(prompt: &[u32], max_new_tokens: usize, sampling: Sampling) -> Request {
    Request { prompt_ids: prompt.to_vec(), max_new_tokens, sampling, stop_ids: Vec::new() }
}

pub fn generate(
    engine: &mut dyn Engine,
    request: &Request,
    mut on_token: impl FnMut(usize) -> ControlFlow<()>,
) -> Result<Generation, EngineError> {
    let mut tokens = 0;
    let mut on_event = |event| match event {
        TokenEvent::Token { .. } => {
            tokens += 1;
            on_token(tokens)
        }
        TokenEvent::Prefill { .. } => ControlFlow::Continue(()),
    };
    let mut generations = engine.generate(std::slice::from_ref(request), &mut on_event)?;
    Ok(generations.remove(0))
}

pub fn tokens(engine: &mut dyn Engine, request: &Request) -> Result<Vec<u32>, EngineError> {
    Ok(generate(engine, request, |_| ControlFlow::Continue(()))?.token_ids)
}

/// Relative L2 error of all rows together, and the median of the rows' own.
pub fn errors(ours: &[&[f32]], exact: &[&[f32]]) -> (f64, f64) {
    let norms = |ours: &[f32], exact: &[f32]| {
        let difference: f64 = ours.iter().zip(exact).map(|(a, b)| f64::from(a - b).powi(2)).sum();
        let size: f64 = exact.iter().map(|b| f64::from(*b).powi(2)).sum();
        (difference, size)
    };
    let rows: Vec<_> = ours.iter().zip(exact).map(|(a, b)| norms(a, b)).collect();
    let total = rows.iter().fold((0.0, 0.0), |sum, row| (sum.0 + row.0, sum.1 + row.1));
    let mut each: Vec<f64> = rows.iter().map(|(d, s)| (d / s).sqrt()).collect();
    each.sort_by(f64::total_cmp);
    ((total.0 / total.1).sqrt(), each[each.len() / 2])
}

pub fn rows(logits: &[Vec<f32>]) -> Vec<&[f32]> {
    logits.iter().map(Vec::as_slice).collect()
}

/// Token ids that repeat late.
pub fn arbitrary_ids(tokens: usize, vocab: u32) -> Vec<u32> {
    (0..tokens as u32).map(|i| i.wrapping_mul(2_654_435_761) % vocab).collect()
}

/// Lead of the largest logit over the next.
pub fn margin(logits: &[f32]) -> f32 {
    let (mut first, mut second) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
    for value in logits {
        if *value > first {
            (first, second) = (*value, first);
        } else if *value > second {
            second = *value;
        }
    }
    first - second
}
