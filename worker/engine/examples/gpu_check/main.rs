//! Holds the fused engine to its references on a GPU machine. Each check prints a line, `ok` or
//! `FAIL`; the exit code is the number of failures, at most 100.
//!
//! ```text
//! gpu_check goldens FOLDER          tiny golden models: logits, greedy tokens, both paths, graph or not
//! gpu_check faults FOLDER           NaN in the weights, cancellation, stop ids, cuBLAS settings
//! gpu_check long CONFIG TOKENS      random weights: decode at this depth against the prefill
//! gpu_check peer MODEL LOGITS       logits that bench-peers.py stored for the same weights
//! gpu_check reference MODEL TOKENS  both paths against the reference engine, with so many tokens
//! ```
mod faults;
mod goldens;
mod peer;
mod tools;

use std::path::Path;

use tools::Checks;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut checks = Checks::default();
    match args[..] {
        ["goldens", folder] => goldens::run(&mut checks, Path::new(folder)),
        ["faults", folder] => faults::run(&mut checks, Path::new(folder)),
        ["long", config, tokens] => {
            let tokens = tokens.parse().expect("a number of tokens");
            peer::long(&mut checks, Path::new(config), tokens);
        }
        ["peer", model, logits] => peer::run(&mut checks, Path::new(model), Path::new(logits)),
        ["reference", model, tokens] => {
            let tokens = tokens.parse().expect("a number of tokens");
            peer::reference(&mut checks, Path::new(model), tokens);
        }
        _ => {
            eprintln!(
                "usage: gpu_check goldens|faults FOLDER | long CONFIG TOKENS | peer MODEL LOGITS | \
                 reference MODEL TOKENS"
            );
            std::process::exit(2);
        }
    }
    std::process::exit(checks.finish());
}
