//! What must end a generation, and settings that must change the arithmetic.

use std::{ops::ControlFlow, path::Path};

use bakeoff_engine::fused::device::open_device;
use bakeoff_model::{EngineSettings};
use bakeoff_proto::{FailureKind, FinishReason};
use candle_core::{DType, Device, Tensor};
use half::bf16;
use safetensors::SafeTensors;

use crate::tools::{Checks, GREEDY, files, generate, load, options, request, tokens};

pub fn run(checks: &mut Checks, folder: &Path) {
    let model = folder.join("qwen3");
    nan(checks, &model);
    stops(checks, &model);
    settings(checks);
}

/// One NaN in the weights is an error, and the engine works on afterwards.
fn nan(checks: &mut Checks, model: &Path) {
    let broken = std::env::temp_dir().join(format!("bakeoff-nan-{}", std::process::id()));
    std::fs::create_dir_all(&broken).expect("a temporary folder");
    std::fs::copy(model.join("config.json"), broken.join("config.json")).expect("a copy");
    let mut bytes = std::fs::read(model.join("model.safetensors")).expect("the weights");
    let range = {
        let tensors = SafeTensors::deserialize(&bytes).expect("valid safetensors");
        let view = tensors.tensor("model.layers.1.mlp.down_proj.weight").expect("a tensor");
        assert_eq!(view.dtype(), safetensors::Dtype::BF16);
        let start = view.data().as_ptr() as usize - bytes.as_ptr() as usize;
        start..start + 2
    };
    bytes[range].copy_from_slice(&bf16::NAN.to_le_bytes());
    std::fs::write(broken.join("model.safetensors"), bytes).expect("the broken weights");
    let Some(mut engine) = checks.value("NaN", load(&files(&broken), &options(256))) else {
        return;
    };
    for _ in 0..2 {
        let result = tokens(&mut engine, &request(&[1, 2, 3, 4, 5], 16, GREEDY));
        let (holds, detail) = match result {
            Err(error) => (error.kind == FailureKind::NonFiniteLogits, error.message),
            Ok(tokens) => (false, format!("{} tokens were generated", tokens.len())),
        };
        checks.that(holds, "NaN in the weights", detail);
    }
    let _ = std::fs::remove_dir_all(broken);
}

fn stops(checks: &mut Checks, model: &Path) {
    let Some(mut engine) = checks.value("stops", load(&files(model), &options(256))) else {
        return;
    };
    let prompt = [5, 6, 7, 8];
    let Some(all) = checks.value("stops", tokens(&mut engine, &request(&prompt, 100, GREEDY)))
    else {
        return;
    };
    checks.that(all.len() == 100, "length", format!("{} of 100 tokens", all.len()));

    let stop = all[20];
    let first = all.iter().position(|id| *id == stop).expect("it is there") + 1;
    let mut asked = request(&prompt, 100, GREEDY);
    asked.stop_ids = vec![stop];
    let continued = |_| ControlFlow::Continue(());
    if let Some(run) = checks.value("stop id", generate(&mut engine, &asked, continued)) {
        let holds = run.token_ids == all[..first] && run.finish_reason == Some(FinishReason::Stop);
        checks.that(holds, "stop id", format!("{} tokens, wanted {first}", run.token_ids.len()));
    }

    let cancel =
        |tokens| if tokens == 10 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let asked = request(&prompt, 100, GREEDY);
    if let Some(run) = checks.value("cancel", generate(&mut engine, &asked, cancel)) {
        let holds = run.token_ids == all[..10] && run.finish_reason.is_none();
        checks.that(holds, "cancel", format!("{} tokens, wanted 10", run.token_ids.len()));
    }
    if let Some(again) = checks.value("after", tokens(&mut engine, &asked)) {
        checks.that(again == all, "after a cancellation", "the same tokens as before it");
    }
    let long = request(&prompt, 1000, GREEDY);
    let error = tokens(&mut engine, &long).err().map(|error| error.kind);
    checks.that(
        error == Some(FailureKind::ContextOverflow),
        "context overflow",
        format!("{error:?}"),
    );
}

/// TF32 changes what cuBLAS computes; whether it may reduce in BF16 is a mode of its handle, whose
/// effect depends on the algorithm it picks.
fn settings(checks: &mut Checks) {
    let base = EngineSettings::default();
    let no_tf32 = EngineSettings { tf32: false, ..base.clone() };
    let exact = EngineSettings { reduced_precision_reduction: false, ..base.clone() };
    match differ([&base, &no_tf32], DType::F32, 64, 16_384) {
        Ok(largest) => {
            checks.that(
                largest > 1e-4,
                "tf32",
                format!("on and off differ by up to {largest:.2e}"),
            );
        }
        Err(error) => checks.that(false, "tf32", error),
    }
    match (math_mode(&base), math_mode(&exact)) {
        (Ok(on), Ok(off)) => checks.that(
            on != off && off == "CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION",
            "reduced_precision_reduction",
            format!("cuBLAS is in {on} with it, in {off} without"),
        ),
        (Err(error), _) | (_, Err(error)) => {
            checks.that(false, "reduced_precision_reduction", error);
        }
    }
    for (rows, inner) in [(8, 131_072), (64, 16_384), (128, 65_536), (256, 18_944)] {
        if let Ok(largest) = differ([&base, &exact], DType::BF16, rows, inner) {
            println!(
                "     {rows} x {rows} x {inner} in BF16: on and off differ by up to {largest:.2e}"
            );
        }
    }
}

fn math_mode(settings: &EngineSettings) -> candle_core::Result<String> {
    let device = open_device(0, settings).map_err(candle_core::Error::wrap)?;
    let blas = device.as_cuda_device()?.cublas_handle();
    let mut mode = cudarc::cublas::sys::cublasMath_t::CUBLAS_PEDANTIC_MATH;
    // SAFETY: the handle lives, and the pointer is valid for the call.
    unsafe { cudarc::cublas::sys::cublasGetMathMode(*blas.handle(), &mut mode) }
        .result()
        .map_err(candle_core::Error::wrap)?;
    Ok(format!("{mode:?}"))
}

/// The largest difference between products of random matrices under two settings.
fn differ(
    settings: [&EngineSettings; 2],
    dtype: DType,
    rows: usize,
    inner: usize,
) -> candle_core::Result<f32> {
    let [on, off] = settings;
    let (on, off) = (product(on, dtype, rows, inner)?, product(off, dtype, rows, inner)?);
    (on - off)?.abs()?.max_all()?.to_scalar::<f32>()
}

fn product(
    settings: &EngineSettings,
    dtype: DType,
    rows: usize,
    inner: usize,
) -> candle_core::Result<Tensor> {
    let device = open_device(0, settings).map_err(candle_core::Error::wrap)?;
    let matrix = |seed: u32| {
        let value = |i: u32| {
            let bits = i.wrapping_add(seed).wrapping_mul(2_654_435_761) >> 8;
            bits as f32 / (1 << 23) as f32 - 1.0
        };
        let values = (0..(rows * inner) as u32).map(value).collect();
        let matrix = Tensor::from_vec(values, (rows, inner), &Device::Cpu)?;
        matrix.to_dtype(dtype)?.to_device(&device)
    };
    let product = matrix(1)?.matmul(&matrix(2)?.t()?)?;
    product.to_device(&Device::Cpu)?.to_dtype(DType::F32)
}
