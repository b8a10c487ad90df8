//! Checks every kernel against plain FP64 code on the host, on a GPU: fresh random inputs (another
//! seed as the first argument repeats a run), poisoned outputs, odd sizes, and the shapes of the
//! models this crate is tuned for. Prints a line a check; exits with 1 if one fails.
//!
//! It is an example, not a test, so that it can be built where there is no GPU and carried to one;
//! `compute-sanitizer` takes it with the argument `small`.

mod few_rows;
mod grouped;
mod rows;
mod sampling;
mod step;
mod tools;

use std::{process::ExitCode, time::SystemTime};

use bakeoff_kernels::util::measure_read_bandwidth;
use step::Model;
use tools::{Check, Outcome};

fn all(c: &mut Check, small: bool) -> Outcome {
    for head_dim in [16, 32, 64, 128] {
        for position in [0, 1, 15, 16, 99, 300] {
            step::step(c, &Model::small(head_dim), position)?;
            rows::qkv_rows(c, 8, 2, head_dim, position, position % 2 == 1)?;
        }
        step::step(c, &Model::biased(head_dim), 40)?;
    }
    // Weights of the softmax over all experts, more heads than a block takes, one head each.
    step::step(c, &Model { renormalise: false, experts: 70, ..Model::small(32) }, 20)?;
    step::step(c, &Model { heads: 20, ..Model::small(64) }, 500)?;
    step::step(c, &Model { heads: 2, ..Model::small(128) }, 30)?;
    for head_dim in [16, 32, 64, 128] {
        for (tokens, position) in [(1, 0), (16, 0), (17, 1), (100, 15), (128, 300)] {
            few_rows::attend(c, tokens, position, (6, 2), head_dim)?;
        }
    }
    for tokens in [1, 63, 65, 128] {
        few_rows::mlp(c, tokens, 72, 40)?;
        few_rows::mlp(c, tokens, 1096, 608)?;
    }
    grouped::experts(c, 64, 32, 8, 2, true)?;
    grouped::experts(c, 72, 40, 60, 4, false)?;
    rows::rows(c, 3, 200)?;
    sampling::sampling(c, 1003, if small { 4 } else { 200 })?;
    rows::fill(c)?;
    if small {
        return Ok(());
    }
    for name in ["7B", "Coder-32B", "32B", "30B-A3B"] {
        for position in [127, 228, 4099] {
            step::step(c, &Model::of(name), position)?;
        }
    }
    for (hidden, inter) in [(3584, 18_944), (5120, 27_648), (5120, 25_600)] {
        few_rows::mlp(c, 100, hidden, inter)?;
    }
    for heads in [(28, 4), (40, 8), (64, 8), (32, 4)] {
        few_rows::attend(c, 100, 0, heads, 128)?;
    }
    grouped::experts(c, 2048, 768, 128, 8, true)?;
    rows::rows(c, 5, 2048)?;
    rows::rows(c, 2, 5120)?;
    sampling::sampling(c, 151_936, 300)?;
    let bandwidth = measure_read_bandwidth(&c.launcher, 8 << 30, 5)?;
    println!("read bandwidth, GB/s: {bandwidth:.0?}");
    Ok(())
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).peekable();
    let small = arguments.next_if(|a| a == "small").is_some();
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |d| d.as_secs());
    let seed = arguments.next().and_then(|a| a.parse().ok()).unwrap_or(clock);
    println!("seed {seed}");
    let outcome =
        Check::new(seed).and_then(|mut check| all(&mut check, small).map(|()| check.failed));
    match outcome {
        Ok(0) => ExitCode::SUCCESS,
        Ok(failed) => {
            println!("{failed} checks failed");
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}
