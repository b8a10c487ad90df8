//! The tiny golden models: what transformers computed in FP32, and how far off its own BF16 run was.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use bakeoff_engine::{
    EngineError, Sampling,
    fused::FusedEngine,
    load::{self, DeviceChoice},
};
use bakeoff_model::{Dtype, EngineKind};
use bakeoff_proto::{FailureKind};
use safetensors::SafeTensors;
use serde_json::Value;

use crate::tools::{
    Checks, GREEDY, MOST, errors, files, load as load_fused, margin, options, request, rows, tokens,
};

/// Tokens must agree where the best leads by so much.
const CLEAR_MARGIN: f32 = 0.25;

pub fn run(checks: &mut Checks, folder: &Path) {
    let mut models: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the folder of golden models")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.join("golden.json").is_file())
        .collect();
    models.sort();
    for model in models {
        let name = model.file_name().expect("a named folder").to_string_lossy().into_owned();
        let golden = Golden::read(&model);
        match load_fused(&files(&model), &options(1024)) {
            Ok(mut engine) => golden.check(checks, &name, &mut engine, &model),
            // Some variants are there for the other engines.
            Err(error) if error.kind == FailureKind::Unsupported => {
                println!("--   {name}: {}", error.message);
            }
            Err(error) => checks.that(false, &name, error),
        }
    }
}

struct Golden {
    json: Value,
    short_logits: Vec<Vec<f32>>,
    long_logits: Vec<Vec<f32>>,
    long_positions: Vec<usize>,
}

impl Golden {
    fn read(model: &Path) -> Self {
        let json = std::fs::read(model.join("golden.json")).expect("golden.json");
        let bytes = std::fs::read(model.join("golden.safetensors")).expect("golden.safetensors");
        let tensors = SafeTensors::deserialize(&bytes).expect("valid safetensors");
        let json: Value = serde_json::from_slice(&json).expect("valid JSON");
        Self {
            short_logits: matrix(&tensors, "short_logits"),
            long_logits: matrix(&tensors, "long_logits"),
            long_positions: serde_json::from_value(json["long_positions"].clone())
                .expect("positions"),
            json,
        }
    }

    fn ids(&self, what: &str) -> Vec<u32> {
        serde_json::from_value(self.json[what].clone()).expect("ids")
    }

    fn check(&self, checks: &mut Checks, name: &str, engine: &mut FusedEngine, model: &Path) {
        let (short, long) = (self.ids("short_ids"), self.ids("long_ids"));
        let scored = engine.score_by_decode(&short);
        if let Some(logits) = checks.value(format!("{name} decode"), scored) {
            self.compare(checks, name, "decode, short", &logits, &self.short_logits, "bf16_short");
        }
        let scored = engine.score_by_prefill(&short);
        if let Some(logits) = checks.value(format!("{name} prefill"), scored) {
            self.compare(checks, name, "prefill, short", &logits, &self.short_logits, "bf16_short");
        }
        for (path, scored) in [
            ("decode, long", engine.score_by_decode(&long)),
            ("prefill, long", engine.score_by_prefill(&long)),
        ] {
            if let Some(logits) = checks.value(format!("{name} {path}"), scored) {
                let at: Vec<_> = self.long_positions.iter().map(|at| logits[*at].clone()).collect();
                self.compare(checks, name, path, &at, &self.long_logits, "bf16_long");
            }
        }
        self.greedy(checks, name, engine, (model, &short), "greedy");
        self.greedy(checks, name, engine, (model, &long), "greedy_long");
        identity(checks, name, engine, &short, model);
    }

    fn compare(
        &self,
        checks: &mut Checks,
        name: &str,
        path: &str,
        our_rows: &[Vec<f32>],
        exact: &[Vec<f32>],
        allowed: &str,
    ) {
        let (all, median) = errors(&rows(our_rows), &rows(exact));
        let allowed = |what: &str| self.json[allowed][what].as_f64().expect("an error");
        // One flipped choice of an expert moves a position by more than all rounding together.
        let routed = name.contains("moe");
        let (ours, theirs) = if routed {
            (median, allowed("rel_l2_median_position"))
        } else {
            (all, allowed("rel_l2"))
        };
        let detail = format!("error {ours:.4}, transformers in BF16 {theirs:.4}");
        if ours <= MOST * theirs {
            return checks.that(true, format!("{name} {path}"), detail);
        }
        let each: Vec<f64> =
            our_rows.iter().zip(exact).map(|(a, b)| errors(&[a], &[b]).0).collect();
        let turned = self.turned_by_a_near_tie(path, &each, theirs);
        let detail = match turned {
            Some(at) => format!(
                "right up to position {at}, where FP32's choice of experts hangs on less than BF16's error; \
                 what follows attends to it ({detail})"
            ),
            None => detail,
        };
        checks.that(turned.is_some(), format!("{name} {path}"), detail);
        let each: Vec<String> = each.iter().map(|error| format!("{error:.3}")).collect();
        println!("     by position: {}", each.join(" "));
    }

    /// The first position that is far off, if all before it hold and it is one where the exact choice of
    /// experts is a near tie.
    fn turned_by_a_near_tie(&self, path: &str, each: &[f64], theirs: f64) -> Option<usize> {
        let ties = self.json["routing_short"]["near_ties"].as_array()?;
        let at = each.iter().position(|error| *error > 2.0 * MOST * theirs)?;
        let near =
            path.ends_with("short") && ties.iter().any(|tie| tie.as_u64() == Some(at as u64));
        let before = each[..at].iter().copied().fold(0.0, f64::max);
        (near && at > 0 && before <= MOST * theirs).then_some(at)
    }

    fn greedy(
        &self,
        checks: &mut Checks,
        name: &str,
        engine: &mut FusedEngine,
        (model, prompt): (&Path, &[u32]),
        run: &str,
    ) {
        let golden: Vec<u32> =
            serde_json::from_value(self.json[run]["tokens"].clone()).expect("tokens");
        let label = format!("{name} {run}");
        let ours = tokens(engine, &request(prompt, golden.len(), GREEDY));
        let Some(ours) = checks.value(&label, ours) else { return };
        let Some(at) = ours.iter().zip(&golden).position(|(a, b)| a != b) else {
            let detail = format!("{} tokens equal", golden.len());
            return checks.that(ours.len() == golden.len(), label, detail);
        };
        // How clear the choice was is for FP32 to say.
        let sequence = [prompt, &golden[..]].concat();
        let exact = exact_logits(model, &sequence);
        let Some(exact) = checks.value(&label, exact) else { return };
        let clear = |step: usize| margin(&exact[prompt.len() - 1 + step]) > CLEAR_MARGIN;
        if !name.contains("moe") {
            let lead = margin(&exact[prompt.len() - 1 + at]);
            let detail = format!("{at} tokens equal, then FP32's best leads by {lead:.3}");
            return checks.that(!clear(at), label, detail);
        }
        // A near-tie in the router sends a token through another expert, and everything after it
        // differs; so each step is held to the golden sequence by itself.
        let Some(ours) = checks.value(&label, engine.score_from(&sequence, prompt.len())) else {
            return;
        };
        let wrong =
            (0..golden.len()).filter(|step| clear(*step) && best(&ours[*step]) != golden[*step]);
        let wrong = wrong.count();
        let detail = format!(
            "{at} tokens equal; given the golden ones, {wrong} of {} clear choices differ",
            (0..golden.len()).filter(|step| clear(*step)).count()
        );
        checks.that(wrong * 20 <= golden.len(), label, detail);
    }
}

/// Logits of the reference engine in FP32 on the CPU.
fn exact_logits(model: &Path, ids: &[u32]) -> Result<Vec<Vec<f32>>, EngineError> {
    let mut options = options(1024);
    options.device = DeviceChoice::Cpu;
    options.settings.engine = EngineKind::Reference;
    options.settings.dtype = Dtype::F32;
    let mut loaded = load::load(&files(model), &options, &mut |_| ControlFlow::Continue(()))?;
    loaded.engine.score(ids)
}

fn best(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.map_or(0, |(id, _)| id as u32)
}

/// The same seed gives the same tokens, with the graph and without.
fn identity(
    checks: &mut Checks,
    name: &str,
    engine: &mut FusedEngine,
    prompt: &[u32],
    model: &Path,
) {
    let sampling = |seed| Sampling {
        greedy: false,
        temperature: 0.7,
        top_p: 0.9,
        top_k: None,
        min_p: None,
        repetition_penalty: 1.1,
        seed,
    };
    let run =
        |engine: &mut FusedEngine, seed| tokens(engine, &request(prompt, 200, sampling(seed)));
    let Some(first) = checks.value(name, run(engine, 7)) else { return };
    let Some(again) = checks.value(name, run(engine, 7)) else { return };
    let Some(other) = checks.value(name, run(engine, 8)) else { return };
    let mut plain = options(1024);
    plain.settings.cuda_graph = false;
    let Some(mut engine) = checks.value(name, load_fused(&files(model), &plain)) else { return };
    let Some(without) = checks.value(name, run(&mut engine, 7)) else { return };
    checks.that(first == again, format!("{name} same seed"), "the same tokens twice");
    checks.that(first == without, format!("{name} graph"), "the same tokens without the graph");
    checks.that(first != other, format!("{name} other seed"), "other tokens");
}

fn matrix(tensors: &SafeTensors<'_>, name: &str) -> Vec<Vec<f32>> {
    let view = tensors.tensor(name).expect("a golden tensor");
    let values: Vec<f32> =
        view.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    values.chunks(view.shape()[1]).map(<[f32]>::to_vec).collect()
}
