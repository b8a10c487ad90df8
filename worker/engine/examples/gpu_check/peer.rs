//! Full-size models: against transformers with the same weights, and decode against prefill at depth; and any
//! model against the reference engine.

use std::{ops::ControlFlow, path::Path};

use bakeoff_engine::{EngineError, config::ModelConfig, load::load as load_any};
use bakeoff_model::{Dtype, EngineKind};
use safetensors::SafeTensors;

use crate::tools::{Checks, MOST, arbitrary_ids, errors, files, load, options, rows};

/// Positions of which the logits are compared.
const COMPARED: usize = 32;
/// Every model has so many tokens, but for small ones.
const MOST_IDS: u32 = 10_000;

/// `LOGITS` holds `ids [n]` (I64), `exact [rows, vocab]` (FP32 run) and `rounded` (BF16 run) of the
/// last `rows` positions, as transformers computed them.
pub fn run(checks: &mut Checks, model: &Path, logits: &Path) {
    let name = model.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let bytes = std::fs::read(logits).expect("the peer's logits");
    let tensors = SafeTensors::deserialize(&bytes).expect("valid safetensors");
    let ids: Vec<u32> = tensors
        .tensor("ids")
        .expect("ids")
        .data()
        .as_chunks::<8>()
        .0
        .iter()
        .map(|bytes| u32::try_from(i64::from_le_bytes(*bytes)).expect("an id"))
        .collect();
    let matrix = |name: &str| -> Option<Vec<Vec<f32>>> {
        let view = tensors.tensor(name).ok()?;
        let values: Vec<f32> =
            view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        Some(values.chunks(view.shape()[1]).map(<[f32]>::to_vec).collect())
    };
    let exact = matrix("exact").expect("the FP32 run");
    let Some(mut engine) = checks.value(&name, load(&files(model), &options(1024))) else { return };
    let first = ids.len() - exact.len();
    let decode = checks.value(&name, engine.score_from(&ids, first + 1));
    let prefill = checks.value(&name, engine.score_by_prefill(&ids));
    let theirs = matrix("rounded").map(|rounded| errors(&rows(&rounded), &rows(&exact)));
    if let Some((all, median)) = theirs {
        println!("     {name}: transformers in BF16 against FP32: {all:.4}, median {median:.4}");
    }
    for (path, ours) in [("decode", decode), ("prefill", prefill.map(|mut p| p.split_off(first)))] {
        let Some(ours) = ours else { continue };
        let (all, median) = errors(&rows(&ours), &rows(&exact));
        let holds = theirs.is_none_or(|(_, theirs)| median <= MOST * theirs);
        checks.that(
            holds,
            format!("{name} {path}, {} positions", ours.len()),
            format!("relative error {all:.4}, median {median:.4}"),
        );
    }
}

/// With random weights: the same positions through the decode step, on a cache of so many tokens, and
/// through the prefill.
pub fn long(checks: &mut Checks, config: &Path, tokens: usize) {
    let name = config.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let Some(mut engine) = checks.value(&name, load(&files(config), &options(tokens + 64))) else {
        return;
    };
    let ids = arbitrary_ids(tokens, MOST_IDS);
    let steps = 8;
    let Some(decode) = checks.value(&name, engine.score_from(&ids, tokens - steps)) else { return };
    // One row: a prefill of everything before each of these positions would cost as much each.
    let Some(whole) = checks.value(&name, engine.score_from(&ids, tokens)) else { return };
    let (all, _) = errors(&rows(&decode[steps..]), &rows(&whole));
    checks.that(
        all < 0.05,
        format!("{name} at {tokens} tokens"),
        format!("decode and prefill differ by {all:.4}"),
    );
}

/// The last positions of so many tokens through both of our paths, held to the reference engine in FP32: no
/// further off than [`MOST`] times what the reference engine itself is in BF16.
pub fn reference(checks: &mut Checks, model: &Path, tokens: usize) {
    let name = format!("{} at {tokens}", model.file_name().unwrap_or_default().to_string_lossy());
    let files = files(model);
    let vocab = match ModelConfig::parse(&files.config) {
        Ok(config) => config.shape.vocab_size as u32,
        Err(error) => return checks.that(false, name, error),
    };
    let ids = arbitrary_ids(tokens, vocab.min(MOST_IDS));
    let first = tokens.saturating_sub(COMPARED);
    let by_reference = |dtype: Dtype| -> Result<Vec<Vec<f32>>, EngineError> {
        let mut options = options(tokens + 64);
        options.settings.engine = EngineKind::Reference;
        options.settings.dtype = dtype;
        let mut loaded = load_any(&files, &options, &mut |_| ControlFlow::Continue(()))?;
        Ok(loaded.engine.score(&ids)?.split_off(first))
    };
    let Some(exact) = checks.value(&name, by_reference(Dtype::F32)) else { return };
    let Some(rounded) = checks.value(&name, by_reference(Dtype::Bf16)) else { return };
    let (_, theirs) = errors(&rows(&rounded), &rows(&exact));
    let Some(mut engine) = checks.value(&name, load(&files, &options(tokens + 64))) else { return };
    let decode = engine.score_from(&ids, first + 1);
    let prefill = engine.score_from(&ids, tokens);
    for (path, ours, exact) in
        [("decode", decode, &exact[..]), ("prefill", prefill, &exact[exact.len() - 1..])]
    {
        let Some(ours) = checks.value(format!("{name} {path}"), ours) else { continue };
        let (_, ours) = errors(&rows(&ours), &rows(exact));
        checks.that(
            ours <= MOST * theirs,
            format!("{name} {path}"),
            format!("median error {ours:.4}, the reference engine in BF16 {theirs:.4}"),
        );
    }
}
