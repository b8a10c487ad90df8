//! The engines against what transformers computes: tiny random checkpoints of every architecture and
//! variant, made by `goldens/make_goldens.py`.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use bakeoff_engine::{
    Engine, Request, Sampling,
    load::{DeviceChoice, LoadOptions, load},
    source::{ModelFiles, WeightFiles},
};
use bakeoff_model::{Dtype, EngineKind, EngineSettings};
use bakeoff_proto::{FailureKind, FinishReason};
use safetensors::SafeTensors;
use serde_json::Value;

const CASES: usize = 16;
/// FP32 logits may differ so much, relative to the norm of the golden ones.
const FP32_ERROR: f64 = 1e-4;

/// One golden folder.
struct Golden {
    name: String,
    folder: PathBuf,
    json: Value,
    short_logits: Vec<Vec<f32>>,
    long_logits: Vec<Vec<f32>>,
}

impl Golden {
    fn all() -> Vec<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens/models");
        let mut folders: Vec<_> = std::fs::read_dir(root)
            .expect("the golden checkpoints")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        folders.sort();
        assert_eq!(folders.len(), CASES, "golden cases");
        folders.into_iter().map(Self::read).collect()
    }

    fn read(folder: PathBuf) -> Self {
        let json = std::fs::read(folder.join("golden.json")).expect("golden.json");
        let tensors = std::fs::read(folder.join("golden.safetensors")).expect("golden.safetensors");
        let tensors = SafeTensors::deserialize(&tensors).expect("golden tensors");
        let rows = |name: &str| {
            let view = tensors.tensor(name).expect("a golden tensor");
            let values = view.data().as_chunks::<4>().0.iter().map(|raw| f32::from_le_bytes(*raw));
            let values: Vec<f32> = values.collect();
            values.chunks(view.shape()[1]).map(<[f32]>::to_vec).collect()
        };
        Self {
            name: folder.file_name().expect("a name").to_string_lossy().into_owned(),
            json: serde_json::from_slice(&json).expect("golden.json"),
            short_logits: rows("short_logits"),
            long_logits: rows("long_logits"),
            folder,
        }
    }

    fn ids(&self, field: &str) -> Vec<u32> {
        serde_json::from_value(self.json[field].clone()).expect(field)
    }

    fn tokens(&self, run: &str) -> Vec<u32> {
        serde_json::from_value(self.json[run]["tokens"].clone()).expect(run)
    }

    fn files(&self) -> ModelFiles {
        let mut shards: Vec<PathBuf> = std::fs::read_dir(&self.folder)
            .expect("the folder")
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| {
                let name = path.file_name().expect("a name").to_string_lossy().into_owned();
                name.starts_with("model") && name.ends_with(".safetensors")
            })
            .collect();
        shards.sort();
        ModelFiles {
            id: self.name.clone(),
            revision: None,
            config: std::fs::read(self.folder.join("config.json")).expect("config.json"),
            generation_config: None,
            tokenizer: None,
            tokenizer_config: None,
            chat_template: None,
            weights: WeightFiles::Paths(shards),
            download_s: None,
        }
    }

    fn load(&self, engine: EngineKind, dtype: Dtype) -> Box<dyn Engine> {
        let settings = EngineSettings { engine, dtype, ..EngineSettings::default() };
        let options = LoadOptions { settings, device: DeviceChoice::Cpu, context: 700 };
        let loaded = load(&self.files(), &options, &mut |_| ControlFlow::Continue(()));
        loaded.unwrap_or_else(|error| panic!("{}: {error}", self.name)).engine
    }

    /// Errors of the short and of the long run: over all positions, and of each, in order.
    fn errors(&self, engine: &mut dyn Engine) -> [(f64, Vec<f64>); 2] {
        let short = engine.score(&self.ids("short_ids")).expect("scores");
        let long = engine.score(&self.ids("long_ids")).expect("scores");
        let positions: Vec<usize> =
            serde_json::from_value(self.json["long_positions"].clone()).expect("positions");
        let long: Vec<Vec<f32>> = positions.iter().map(|at| long[*at].clone()).collect();
        [error(&short, &self.short_logits), error(&long, &self.long_logits)]
    }
}

/// Relative L2 distance over all rows, and that of each row, in order.
fn error(found: &[Vec<f32>], golden: &[Vec<f32>]) -> (f64, Vec<f64>) {
    assert_eq!(found.len(), golden.len());
    let square = |a: f32| f64::from(a) * f64::from(a);
    let rows: Vec<(f64, f64)> = found
        .iter()
        .zip(golden)
        .map(|(found, golden)| {
            assert_eq!(found.len(), golden.len());
            let distance = found.iter().zip(golden).map(|(a, b)| square(a - b)).sum::<f64>();
            (distance, golden.iter().copied().map(square).sum::<f64>())
        })
        .collect();
    let (distance, norm) = rows.iter().fold((0.0, 0.0), |sum, row| (sum.0 + row.0, sum.1 + row.1));
    let each: Vec<f64> = rows.iter().map(|(distance, norm)| (distance / norm).sqrt()).collect();
    ((distance / norm).sqrt(), each)
}

fn greedy(prompt_ids: Vec<u32>, stop_ids: Vec<u32>, repetition_penalty: f64) -> Request {
    let sampling = Sampling {
        greedy: true,
        temperature: 0.7,
        top_p: 0.9,
        top_k: None,
        min_p: None,
        repetition_penalty,
        seed: 0,
    };
    Request { prompt_ids, max_new_tokens: 64, sampling, stop_ids }
}

fn generate(engine: &mut dyn Engine, request: Request) -> (Vec<u32>, Option<FinishReason>) {
    let mut done = engine.generate(&[request], &mut |_| ControlFlow::Continue(())).expect("tokens");
    let one = done.remove(0);
    assert_eq!(one.token_times.len(), one.token_ids.len());
    (one.token_ids, one.finish_reason)
}

#[test]
fn reference_logits_in_f32_are_those_of_transformers() {
    for golden in Golden::all() {
        let mut engine = golden.load(EngineKind::Auto, Dtype::F32);
        assert_eq!(engine.name(), "reference");
        for (part, (error, _)) in ["short", "long"].iter().zip(golden.errors(&mut *engine)) {
            assert!(error < FP32_ERROR, "{} {part}: relative error {error:.2e}", golden.name);
        }
    }
}

#[test]
fn reference_greedy_tokens_are_those_of_transformers() {
    for golden in Golden::all() {
        let mut engine = golden.load(EngineKind::Reference, Dtype::F32);
        for (run, ids) in [("greedy", "short_ids"), ("greedy_long", "long_ids")] {
            let (tokens, finish) = generate(&mut *engine, greedy(golden.ids(ids), vec![319], 1.0));
            assert_eq!(tokens, golden.tokens(run), "{} {run}", golden.name);
            assert_eq!(finish, Some(FinishReason::Length));
        }
        // Stops and penalty as the checkpoint's own generation_config.json has them.
        let own = std::fs::read(golden.folder.join("generation_config.json")).expect("a file");
        let own: Value = serde_json::from_slice(&own).expect("JSON");
        let stops: Vec<u32> = serde_json::from_value(own["eos_token_id"].clone()).expect("a list");
        let penalty = own["repetition_penalty"].as_f64().unwrap_or(1.0);
        let request = greedy(golden.ids("short_ids"), stops, penalty);
        let (tokens, finish) = generate(&mut *engine, request);
        let expected = golden.tokens("greedy_generation_config");
        assert_eq!(tokens, expected, "{} with its generation_config.json", golden.name);
        let stopped = expected.len() < 64;
        let reason = if stopped { FinishReason::Stop } else { FinishReason::Length };
        assert_eq!(finish, Some(reason), "{}", golden.name);
    }
}

/// A near-tie in a router, rounded the other way, sends a token through another expert, and attention
/// carries that to every later position, whoever computes it. So a mixture of experts is compared up
/// to the first such flip, and at least half of the runs must have none that matters.
#[test]
fn reference_in_bf16_errs_at_most_twice_as_much_as_transformers() {
    let (mut routed, mut routed_whole) = (0, 0);
    for golden in Golden::all() {
        let mut engine = golden.load(EngineKind::Reference, Dtype::Bf16);
        let found = golden.errors(&mut *engine);
        for (part, (all, each)) in ["bf16_short", "bf16_long"].iter().zip(found) {
            let theirs = |field: &str| golden.json[part][field].as_f64().expect("a number");
            let name = format!("{} {part}", golden.name);
            let limit = 2.0 * theirs("rel_l2_median_position");
            if golden.name.contains("moe") {
                let flip = each.iter().position(|e| *e > theirs("rel_l2_worst_position"));
                let before = &each[..flip.unwrap_or(each.len())];
                assert!(!before.is_empty() && median(before) <= limit, "{name}: {each:?}");
                routed += 1;
                routed_whole += usize::from(median(&each) <= limit);
            } else {
                assert!(median(&each) <= limit, "{name}: {} > {limit}", median(&each));
                assert!(all <= 2.0 * theirs("rel_l2"), "{name}: {all}");
            }
        }
    }
    assert!(2 * routed_whole >= routed, "{routed_whole} of {routed} runs without a flip");
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// candle-transformers' models where they compute what the configuration says; elsewhere a refusal.
#[test]
fn stock_agrees_where_it_can_and_refuses_where_it_would_be_wrong() {
    let mut agreed = Vec::new();
    for golden in Golden::all() {
        let settings = EngineSettings {
            engine: EngineKind::Stock,
            dtype: Dtype::F32,
            ..EngineSettings::default()
        };
        let options = LoadOptions { settings, device: DeviceChoice::Cpu, context: 700 };
        match load(&golden.files(), &options, &mut |_| ControlFlow::Continue(())) {
            Err(error) => {
                assert_eq!(error.kind, FailureKind::Unsupported, "{}: {error}", golden.name);
                assert!(error.message.contains("reference"), "{error}");
            }
            Ok(mut loaded) => {
                let engine = &mut *loaded.engine;
                assert_eq!(engine.name(), "stock");
                let found = engine.score(&golden.ids("short_ids")).expect("scores");
                let (error, _) = error(&found, &golden.short_logits);
                assert!(error < FP32_ERROR, "{}: relative error {error:.2e}", golden.name);
                let request = greedy(golden.ids("short_ids"), vec![319], 1.0);
                assert_eq!(generate(engine, request).0, golden.tokens("greedy"), "{}", golden.name);
                agreed.push(golden.name);
            }
        }
    }
    for name in ["qwen2", "qwen2-tied", "qwen3", "qwen3-moe", "qwen3-moe-sparse-step", "llama"] {
        assert!(agreed.iter().any(|agreed| agreed == name), "{name} is not among {agreed:?}");
    }
    for name in ["qwen2-yarn", "qwen2-linear", "qwen3-yarn-head128", "qwen3-moe-mlp-only"] {
        assert!(!agreed.iter().any(|agreed| agreed == name), "{name} should have been refused");
    }
}
