//! The engine of our own CUDA kernels, for BF16 on Hopper GPUs.
//!
//! - [`dims`]: what the kernels can run; [`layout`]: where each weight lies; with [`attention`]
//!   they need no CUDA
//! - `device`: the GPU and its memory; `arithmetic`: the settings of cuBLAS; `gemm`: its products;
//!   `error`: what all of them report
//! - `weights`, `stored`, `upload`: the final buffers, what goes there, and how
//! - `cache`: keys, values and rotary tables
//! - `prefill`, [`attention`]: the prompt, a chunk at a time
//! - `decode`: one step as a chain of kernels or a graph of them
//! - `engine`: all of it together; `generate`, `score`: what drives it; `session`: its trait
//! - `measure`: what the GPU can do, to hold speeds against
//! - `open`: checks before a load, and what is known after it

#[cfg(feature = "cuda")]
mod arithmetic;
pub mod attention;
#[cfg(feature = "cuda")]
mod cache;
#[cfg(feature = "cuda")]
mod decode;
#[cfg(feature = "cuda")]
pub mod device;
pub mod dims;
#[cfg(feature = "cuda")]
mod engine;
#[cfg(feature = "cuda")]
mod error;
#[cfg(feature = "cuda")]
pub mod gemm;
#[cfg(feature = "cuda")]
mod generate;
pub mod layout;
#[cfg(feature = "cuda")]
pub mod measure;
#[cfg(feature = "cuda")]
mod open;
#[cfg(feature = "cuda")]
mod prefill;
#[cfg(feature = "cuda")]
mod score;
#[cfg(feature = "cuda")]
mod session;
#[cfg(feature = "cuda")]
mod stored;
#[cfg(feature = "cuda")]
pub mod upload;
#[cfg(feature = "cuda")]
mod weights;

#[cfg(feature = "cuda")]
pub use engine::{FusedEngine, FusedModel};
#[cfg(feature = "cuda")]
pub use open::{load, supports};
