//! What can be checked of the CUDA code without a GPU: our kernels compile to machine code for
//! sm_90a, the crate that launches them and the engine above it type-check and lint, and the decode
//! step keeps what makes it fast.

use std::env;

use crate::cuda;
use crate::process::{Result, build_folder, cargo, program, repository};

/// The decode step runs through its code once a layer: beyond what the instruction cache holds of
/// it, and with registers spilled, it loses more than anything else in it can win
/// (worker/kernels/NOTES.md).
const DECODE_STEP_MAX_BYTES: u64 = 112_000;
/// One for each head width.
const DECODE_STEP_KERNELS: usize = 4;

pub fn check() -> Result {
    let toolkit = cuda::variables(false)?;
    // The build script compiles every kernel; a test binary is linked, so a missing symbol shows
    // too.
    cargo([
        "clippy",
        "--package",
        "bakeoff-kernels",
        "--features",
        "cuda",
        "--all-targets",
        "--",
        "--deny",
        "warnings",
    ])
    .envs(&toolkit)
    .run()?;
    cargo(["test", "--package", "bakeoff-kernels", "--features", "cuda", "--no-run"])
        .envs(&toolkit)
        .run()?;

    // The fused engine above them, without candle's kernels. What it leaves behind must not be
    // taken for a build.
    cargo(["clippy", "--locked", "--package", "bakeoff-engine", "--package", "bakeoff-worker"])
        .args(["--features", "bakeoff-worker/cuda", "--all-targets", "--", "--deny", "warnings"])
        .envs(&toolkit)
        .env("CARGO_TARGET_DIR", build_folder().join("type-check"))
        .env("NVCC", repository().join(".dev/scripts/nvcc-for-type-checks"))
        .env("CUDA_COMPUTE_CAP", "90")
        .run()?;
    decode_step(&toolkit)
}

fn decode_step(toolkit: &[(String, String)]) -> Result {
    let variable = |name: &str| {
        let set = toolkit.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone());
        set.or_else(|| env::var(name).ok())
    };
    let compiler = variable("NVCC")
        .or_else(|| variable("CUDA_HOME").map(|home| format!("{home}/bin/nvcc")))
        .ok_or("no CUDA compiler: set NVCC or CUDA_HOME")?;
    let cubin = build_folder().join(format!("decode-step-{}.cubin", std::process::id()));
    let (said, warned) = program(compiler)
        .args([
            "-std=c++17",
            "-O3",
            "-gencode=arch=compute_90a,code=sm_90a",
            "-Xptxas=-v,-warn-spills",
            "-cubin",
            "-o",
        ])
        .arg(&cubin)
        .arg("worker/kernels/cuda/step.cu")
        .output()?;
    let sections = program("readelf").args(["--section-headers", "--wide"]).arg(&cubin).output();
    std::fs::remove_file(&cubin)?;
    let complaints: Vec<_> =
        said.lines().chain(warned.lines()).filter(|line| is_complaint(line)).collect();
    if !complaints.is_empty() {
        return Err(format!("step.cu spills registers or warns:\n{}", complaints.join("\n")).into());
    }
    let sizes = code_sizes(&sections?.0);
    println!("decode_step, bytes of machine code for each head width: {sizes:?}");
    if sizes.len() != DECODE_STEP_KERNELS || sizes.iter().any(|size| *size > DECODE_STEP_MAX_BYTES)
    {
        return Err(format!(
            "expected {DECODE_STEP_KERNELS} kernels of at most {DECODE_STEP_MAX_BYTES} bytes"
        )
        .into());
    }
    Ok(())
}

/// Whether a line of ptxas warns, or counts bytes spilled.
fn is_complaint(line: &str) -> bool {
    let mut words = line.split([' ', ',']).filter(|word| !word.is_empty()).peekable();
    let mut spilled = false;
    while let Some(word) = words.next() {
        if let (Ok(count), Some(&"bytes")) = (word.parse::<u64>(), words.peek()) {
            words.next();
            spilled |= count > 0 && words.peek() == Some(&"spill");
        }
    }
    spilled || line.contains("warning")
}

/// Sizes of the sections that hold the decode step, from `readelf --section-headers --wide`:
/// `[Nr] Name Type Address Off Size ...`.
fn code_sizes(sections: &str) -> Vec<u64> {
    let size = |line: &str| {
        let mut words = line.split_whitespace().skip_while(|word| !word.starts_with(".text."));
        let name = words.next()?;
        if !name.contains("decode_step") || words.next()? != "PROGBITS" {
            return None;
        }
        u64::from_str_radix(words.nth(2)?, 16).ok()
    };
    sections.lines().filter_map(size).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spill_or_a_warning_is_seen() {
        let line = |stores| {
            format!("    0 bytes stack frame, {stores} bytes spill stores, 0 bytes spill loads")
        };
        assert!(!is_complaint(&line(0)));
        assert!(is_complaint(&line(16)));
        assert!(!is_complaint(
            "    40 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads"
        ));
        assert!(is_complaint(
            "ptxas warning : Registers are spilled to local memory in function 'x'"
        ));
    }

    #[test]
    fn only_the_code_of_the_decode_step_is_measured() {
        let sections = "\
  [Nr] Name              Type            Address          Off    Size   ES Flg Lk Inf Al
  [ 9] .nv.info._Z11decode_stepILi64EEv LOPROC+0 0000000000000000 000a10 0000b8 00   I  3  12  4
  [12] .text._Z11decode_stepILi64EEv PROGBITS 0000000000000000 001b00 01a800 00  AX  3 255 128
  [13] .text._Z6normsv   PROGBITS        0000000000000000 01c300 000f00 00  AX  3 255 128
";
        assert_eq!(code_sizes(sections), [0x1a800]);
    }
}
