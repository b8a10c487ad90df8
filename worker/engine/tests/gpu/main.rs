//! The fused engine on a GPU. Each test prints a line a check, and fails when one of them does.
//!
//! `cargo test --release -p bakeoff-engine --features flash-attn --test gpu -- --ignored
//! --nocapture --test-threads=1 NAME`
//!
//! | test | holds the engine to | reads from the environment |
//! |---|---|---|
//! | `goldens` | transformers on the golden models | |
//! | `faults` | what must end a generation; settings of the arithmetic | |
//! | `reference` | the reference engine | `BAKEOFF_GPU_MODEL`, `BAKEOFF_GPU_TOKENS` |
//! | `peer` | transformers' logits of a full model | `BAKEOFF_GPU_MODEL`, `BAKEOFF_GPU_LOGITS` |
//! | `long` | its own prefill, on random weights | `BAKEOFF_GPU_MODEL`, `BAKEOFF_GPU_TOKENS` |
//!
//! `BAKEOFF_GPU_GOLDENS` is the folder of golden models where it is not beside these sources.
#![cfg(feature = "cuda")]

mod faults;
mod goldens;
mod peer;
mod tools;

use std::{env, path::PathBuf};

use tools::Checks;

/// A setting of a test; a test that needs one fails without it, and does not pass by doing nothing.
fn setting(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("set {name}: see the head of tests/gpu/main.rs"))
}

fn model() -> PathBuf {
    setting("BAKEOFF_GPU_MODEL").into()
}

fn tokens() -> usize {
    let tokens = setting("BAKEOFF_GPU_TOKENS");
    tokens.parse().unwrap_or_else(|_| panic!("BAKEOFF_GPU_TOKENS is `{tokens}`, expected a number"))
}

fn golden_models() -> PathBuf {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/goldens/models");
    env::var_os("BAKEOFF_GPU_GOLDENS").map_or_else(|| beside.into(), PathBuf::from)
}

#[test]
#[ignore = "needs an H100"]
fn goldens() {
    let mut checks = Checks::default();
    goldens::run(&mut checks, &golden_models());
    checks.finish();
}

#[test]
#[ignore = "needs an H100"]
fn faults() {
    let mut checks = Checks::default();
    faults::run(&mut checks, &golden_models());
    checks.finish();
}

#[test]
#[ignore = "needs an H100 and a model"]
fn reference() {
    let mut checks = Checks::default();
    peer::reference(&mut checks, &model(), tokens());
    checks.finish();
}

#[test]
#[ignore = "needs an H100, a model and a peer's logits"]
fn peer() {
    let mut checks = Checks::default();
    peer::run(&mut checks, &model(), setting("BAKEOFF_GPU_LOGITS").as_ref());
    checks.finish();
}

#[test]
#[ignore = "needs an H100 and a configuration"]
fn long() {
    let mut checks = Checks::default();
    peer::long(&mut checks, &model(), tokens());
    checks.finish();
}
