//! What cannot be loaded or generated is refused with the value at fault and the next step.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use bakeoff_engine::{
    EngineError, Request, Sampling,
    load::{DeviceChoice, LoadOptions, Loaded, load},
    source::{ModelFiles, WeightFiles},
};
use bakeoff_model::{Dtype, EngineKind, EngineSettings, settings::LoadFormat};
use bakeoff_proto::{FailureKind, FinishReason};
use half::bf16;
use safetensors::{Dtype as Stored, SafeTensors, tensor::TensorView};

fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens/models").join(case)
}

fn files(weights: WeightFiles) -> ModelFiles {
    ModelFiles {
        id: "tiny".to_owned(),
        revision: None,
        config: std::fs::read(golden("qwen2").join("config.json")).expect("config.json"),
        generation_config: None,
        tokenizer: None,
        tokenizer_config: None,
        chat_template: None,
        weights,
        download_s: None,
    }
}

fn whole() -> ModelFiles {
    files(WeightFiles::Paths(vec![golden("qwen2").join("model.safetensors")]))
}

fn options() -> LoadOptions {
    let settings = EngineSettings { dtype: Dtype::F32, ..EngineSettings::default() };
    LoadOptions { settings, device: DeviceChoice::Cpu, context: 100 }
}

fn try_load(files: &ModelFiles, options: &LoadOptions) -> Result<Loaded, EngineError> {
    load(files, options, &mut |_| ControlFlow::Continue(()))
}

fn refusal(files: &ModelFiles, options: &LoadOptions) -> EngineError {
    match try_load(files, options) {
        Ok(_) => panic!("it was loaded"),
        Err(error) => error,
    }
}

/// A copy of the checkpoint, each tensor as `change` has it; `None` leaves it out.
type Change = dyn Fn(&str, Stored, Vec<usize>, Vec<u8>) -> Option<(Stored, Vec<usize>, Vec<u8>)>;

fn changed(folder: &Path, change: &Change) -> ModelFiles {
    let bytes = std::fs::read(golden("qwen2").join("model.safetensors")).expect("the weights");
    let tensors = SafeTensors::deserialize(&bytes).expect("a checkpoint");
    let parts: Vec<_> = tensors
        .iter()
        .filter_map(|(name, view)| {
            let part = change(name, view.dtype(), view.shape().to_vec(), view.data().to_vec())?;
            Some((name.to_owned(), part))
        })
        .collect();
    let views = parts.iter().map(|(name, (dtype, shape, data))| {
        (name.as_str(), TensorView::new(*dtype, shape.clone(), data).expect("a tensor"))
    });
    let path = folder.join("model.safetensors");
    let written = safetensors::serialize(views, None).expect("safetensors");
    std::fs::write(&path, written).expect("a file");
    files(WeightFiles::Paths(vec![path]))
}

fn request(new: usize) -> Request {
    let sampling = Sampling {
        greedy: true,
        temperature: 1.0,
        top_p: 1.0,
        top_k: None,
        min_p: None,
        repetition_penalty: 1.0,
        seed: 0,
    };
    Request { prompt_ids: vec![1, 2, 3], max_new_tokens: new, sampling, stop_ids: vec![] }
}

#[test]
fn a_damaged_file_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let bytes = std::fs::read(golden("qwen2").join("model.safetensors")).expect("the weights");
    let mut garbled = bytes.clone();
    garbled[9..40].fill(b'x');
    for (name, bytes) in [
        ("short.safetensors", &bytes[..bytes.len() - 100]),
        ("header.safetensors", &bytes[..50]),
        ("garbled.safetensors", &garbled),
        ("empty.safetensors", &bytes[..0]),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("a file");
        let error = refusal(&files(WeightFiles::Paths(vec![path])), &options());
        assert_eq!(error.kind, FailureKind::BadWeights, "{name}: {error}");
        assert!(
            error.message.contains(name) && error.message.contains("fetch it again"),
            "{error}"
        );
    }
}

#[test]
fn a_missing_file_or_none_is_told() {
    let gone = PathBuf::from("/nowhere/model.safetensors");
    let error = refusal(&files(WeightFiles::Paths(vec![gone])), &options());
    assert_eq!(error.kind, FailureKind::ModelNotFound);
    assert!(error.message.contains("/nowhere/model.safetensors"), "{error}");
    let error = refusal(&files(WeightFiles::Absent), &options());
    assert_eq!(error.kind, FailureKind::ModelNotFound);
    assert!(error.message.contains("--load-format dummy"), "{error}");
}

#[test]
fn a_tensor_that_is_missing_or_of_another_shape_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    const MISSING: &str = "model.layers.1.mlp.up_proj.weight";
    let without = changed(folder.path(), &|name, dtype, shape, data| {
        (name != MISSING).then_some((dtype, shape, data))
    });
    let error = refusal(&without, &options());
    assert_eq!(error.kind, FailureKind::BadWeights);
    assert!(error.message.contains(MISSING), "{error}");

    let turned = changed(folder.path(), &|name, dtype, mut shape, data| {
        if name == MISSING {
            shape.reverse();
        }
        Some((dtype, shape, data))
    });
    let error = refusal(&turned, &options());
    assert_eq!(error.kind, FailureKind::BadWeights);
    for part in [MISSING, "[64, 96]", "[96, 64]", "model.safetensors"] {
        assert!(error.message.contains(part), "{error}");
    }
}

#[test]
fn quantised_tensors_are_refused_as_such() {
    let folder = tempfile::tempdir().expect("a folder");
    const PROJECTION: &str = "model.layers.0.self_attn.q_proj.weight";
    let eight_bit = changed(folder.path(), &|name, dtype, shape, mut data| {
        if name != PROJECTION {
            return Some((dtype, shape, data));
        }
        data.truncate(data.len() / 2);
        Some((Stored::F8_E4M3, shape, data))
    });
    let error = refusal(&eight_bit, &options());
    assert_eq!(error.kind, FailureKind::Quantised);
    assert!(error.message.contains(PROJECTION) && error.message.contains("BF16"), "{error}");

    let mut config: serde_json::Value = serde_json::from_slice(&whole().config).expect("JSON");
    config["quantization_config"] = serde_json::json!({"quant_method": "awq"});
    let said = ModelFiles { config: config.to_string().into_bytes(), ..whole() };
    assert_eq!(refusal(&said, &options()).kind, FailureKind::Quantised);
}

#[test]
fn a_model_that_does_not_fit_is_refused_with_its_ledger_before_its_weights_are_looked_for() {
    let gone = files(WeightFiles::Paths(vec![PathBuf::from("/nowhere/model.safetensors")]));
    let mut small = options();
    small.settings.max_memory_gb = 0.0001;
    let error = refusal(&gone, &small);
    assert_eq!(error.kind, FailureKind::DoesNotFit);
    assert!(error.message.contains("weights") && error.message.contains("over by"), "{error}");
}

#[test]
fn a_context_of_nothing_is_refused() {
    let nothing = LoadOptions { context: 0, ..options() };
    assert_eq!(refusal(&whole(), &nothing).kind, FailureKind::InvalidRequest);
}

#[test]
fn what_this_build_does_not_have_is_unsupported() {
    let mut fused = options();
    fused.settings.engine = EngineKind::Fused;
    let error = refusal(&whole(), &fused);
    assert_eq!(error.kind, FailureKind::Unsupported);
    assert!(error.message.contains("--features cuda"), "{error}");
    let gpu = LoadOptions { device: DeviceChoice::Cuda(0), ..options() };
    assert_eq!(refusal(&whole(), &gpu).kind, FailureKind::Unsupported);
}

#[test]
fn a_load_can_be_abandoned_and_tells_its_progress() {
    let mut seen = Vec::new();
    let loaded = load(&whole(), &options(), &mut |progress| {
        seen.push((progress.bytes, progress.total_bytes));
        ControlFlow::Continue(())
    });
    assert!(loaded.is_ok());
    assert!(seen.windows(2).all(|pair| pair[0].0 < pair[1].0));
    assert!(seen.last().is_some_and(|(bytes, total)| bytes == total));

    let stopped = load(&whole(), &options(), &mut |_| ControlFlow::Break(()));
    assert_eq!(stopped.err().map(|error| error.kind), Some(FailureKind::Interrupted));
}

#[test]
fn weights_that_are_no_numbers_give_an_error_and_never_a_token() {
    let folder = tempfile::tempdir().expect("a folder");
    let poisoned = changed(folder.path(), &|name, dtype, shape, mut data| {
        if name == "model.norm.weight" {
            data[..2].copy_from_slice(&bf16::NAN.to_le_bytes());
        }
        Some((dtype, shape, data))
    });
    for engine in [EngineKind::Reference, EngineKind::Stock] {
        let mut options = options();
        options.settings.engine = engine;
        let mut loaded = try_load(&poisoned, &options).expect("it loads");
        let mut tokens = 0;
        let error = loaded.engine.generate(&[request(5)], &mut |event| {
            tokens += usize::from(matches!(event, bakeoff_engine::TokenEvent::Token { .. }));
            ControlFlow::Continue(())
        });
        assert_eq!(error.err().map(|e| e.kind), Some(FailureKind::NonFiniteLogits), "{engine:?}");
        assert_eq!(tokens, 0);
        let error = loaded.engine.score(&[1, 2]).err().map(|e| e.kind);
        assert_eq!(error, Some(FailureKind::NonFiniteLogits), "{engine:?}");
    }
}

#[test]
fn a_request_beyond_the_context_leaves_the_engine_usable() {
    let mut loaded = try_load(&whole(), &options()).expect("it loads");
    let mut kind = |new| {
        let done = loaded.engine.generate(&[request(new)], &mut |_| ControlFlow::Continue(()));
        done.map_err(|error| error.kind)
    };
    assert_eq!(kind(98).err(), Some(FailureKind::ContextOverflow));
    assert_eq!(kind(0).err(), Some(FailureKind::InvalidRequest));
    let done = kind(97).expect("it fits");
    assert_eq!(done[0].token_ids.len(), 97);
    assert_eq!(done[0].finish_reason, Some(FinishReason::Length));
}

#[test]
fn dummy_weights_need_no_files_and_repeat() {
    let mut dummy = options();
    dummy.settings.load_format = LoadFormat::Dummy;
    for case in ["qwen2", "qwen3-moe", "qwen3-moe-sparse-step", "llama-tied-f32"] {
        let config = std::fs::read(golden(case).join("config.json")).expect("config.json");
        let files = ModelFiles { config, ..files(WeightFiles::Absent) };
        let run = || {
            let mut loaded = try_load(&files, &dummy).expect("it loads");
            let done = loaded.engine.generate(&[request(8)], &mut |_| ControlFlow::Continue(()));
            (done.expect("tokens")[0].token_ids.clone(), loaded.weights_sha256)
        };
        assert_eq!(run(), run(), "{case}");
    }
}

#[test]
fn a_generation_says_what_it_read() {
    let config = std::fs::read(golden("qwen3-moe").join("config.json")).expect("config.json");
    let shape = bakeoff_model::ModelShape::from_config_json(&config).expect("a shape");
    let weights = WeightFiles::Paths(vec![golden("qwen3-moe").join("model.safetensors")]);
    let files = ModelFiles { config, ..files(weights) };
    let mut loaded = try_load(&files, &options()).expect("it loads");
    let done = loaded.engine.generate(&[request(20)], &mut |_| ControlFlow::Continue(()));
    let done = done.expect("tokens").remove(0);
    // One token always reads as many distinct experts as it is routed to.
    let expected = shape.weight_bytes_per_token(Dtype::F32) as f64;
    assert!((done.weight_bytes_per_token - expected).abs() < 1.0);
    assert_eq!(done.kv_bytes, 100 * shape.kv_bytes_per_token(Dtype::F32));
    assert_eq!(loaded.engine.footprint().weight_bytes, loaded.ledger.weight_bytes);
}

#[test]
fn a_fine_tuned_checkpoint_has_another_digest_than_its_base() {
    let folder = tempfile::tempdir().expect("a folder");
    let tuned = changed(folder.path(), &|_, dtype, shape, mut data| {
        data.iter_mut().step_by(2).for_each(|byte| *byte ^= 1);
        Some((dtype, shape, data))
    });
    let same = copied(&folder.path().join("copy"));
    let digest = |files: &ModelFiles| try_load(files, &options()).expect("it loads").weights_sha256;
    assert_ne!(digest(&whole()), digest(&tuned));
    assert_eq!(digest(&whole()), digest(&same));
}

/// The same checkpoint in another folder.
fn copied(folder: &Path) -> ModelFiles {
    std::fs::create_dir_all(folder).expect("a folder");
    let path = folder.join("model.safetensors");
    std::fs::copy(golden("qwen2").join("model.safetensors"), &path).expect("a copy");
    files(WeightFiles::Paths(vec![path]))
}
