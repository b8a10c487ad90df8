//! Every kernel against plain FP64 code on the host, on a GPU: fresh random inputs, poisoned
//! outputs, odd sizes, and the shapes of the models this crate is tuned for. A line a check; after
//! each test a summary of all so far.
//!
//! `BAKEOFF_GPU_SEED` repeats a run, which prints its seed. The binary can be carried to a
//! machine with a GPU and run there with `--ignored --nocapture`; `small` as a filter leaves out
//! the models' shapes, for `compute-sanitizer`.

mod few_rows;
mod grouped;
mod rows;
mod sample;
mod step;
mod tools;
mod util;

use step::Model;
use tools::on_device;

const HEAD_DIMS: [u32; 4] = bakeoff_kernels::limits::HEAD_DIMS;

#[test]
#[ignore = "needs an H100"]
fn small_decode_steps() {
    on_device(|c| {
        for head_dim in HEAD_DIMS {
            for position in [0, 1, 15, 16, 99, 300] {
                step::step(c, &Model::small(head_dim), position)?;
            }
            step::step(c, &Model::biased(head_dim), 40)?;
        }
        // Weights of the softmax over all experts, more heads than a block takes, one head each.
        step::step(c, &Model { renormalise: false, experts: 70, ..Model::small(32) }, 20)?;
        step::step(c, &Model { heads: 20, ..Model::small(64) }, 500)?;
        step::step(c, &Model { heads: 2, ..Model::small(128) }, 30)
    });
}

#[test]
#[ignore = "needs an H100"]
fn small_rows() {
    on_device(|c| {
        for head_dim in HEAD_DIMS {
            for position in [0, 1, 15, 16, 99, 300] {
                rows::qkv_rows(c, 8, 2, head_dim, position, position % 2 == 1)?;
            }
        }
        rows::rows(c, 3, 200)
    });
}

#[test]
#[ignore = "needs an H100"]
fn small_few_rows() {
    on_device(|c| {
        for head_dim in HEAD_DIMS {
            for (tokens, position) in [(1, 0), (16, 0), (17, 1), (100, 15), (128, 300)] {
                few_rows::attend(c, tokens, position, (6, 2), head_dim)?;
            }
        }
        for tokens in [1, 63, 65, 128] {
            few_rows::mlp(c, tokens, 72, 40)?;
            few_rows::mlp(c, tokens, 1096, 608)?;
        }
        Ok(())
    });
}

#[test]
#[ignore = "needs an H100"]
fn small_grouped() {
    on_device(|c| {
        grouped::experts(c, 64, 32, 8, 2, true)?;
        grouped::experts(c, 72, 40, 60, 4, false)
    });
}

/// Few draws: the sanitizer makes each of them slow.
#[test]
#[ignore = "needs an H100"]
fn small_sample() {
    on_device(|c| sample::sampling(c, 1003, 4));
}

#[test]
#[ignore = "needs an H100"]
fn small_fill_random() {
    on_device(util::fill);
}

#[test]
#[ignore = "needs an H100"]
fn models_decode_steps() {
    on_device(|c| {
        for name in ["7B", "Coder-32B", "32B", "30B-A3B"] {
            for position in [127, 228, 4099] {
                step::step(c, &Model::of(name), position)?;
            }
        }
        Ok(())
    });
}

#[test]
#[ignore = "needs an H100"]
fn models_few_rows() {
    on_device(|c| {
        for (hidden, inter) in [(3584, 18_944), (5120, 27_648), (5120, 25_600)] {
            few_rows::mlp(c, 100, hidden, inter)?;
        }
        for heads in [(28, 4), (40, 8), (64, 8), (32, 4)] {
            few_rows::attend(c, 100, 0, heads, 128)?;
        }
        Ok(())
    });
}

#[test]
#[ignore = "needs an H100"]
fn models_grouped() {
    on_device(|c| grouped::experts(c, 2048, 768, 128, 8, true));
}

#[test]
#[ignore = "needs an H100"]
fn models_rows() {
    on_device(|c| {
        rows::rows(c, 5, 2048)?;
        rows::rows(c, 2, 5120)
    });
}

#[test]
#[ignore = "needs an H100"]
fn models_sample() {
    on_device(|c| {
        sample::sampling(c, 1003, 200)?;
        sample::sampling(c, 151_936, 300)
    });
}

#[test]
#[ignore = "needs an H100"]
fn models_read_bandwidth() {
    on_device(util::read_bandwidth);
}
