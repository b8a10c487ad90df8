//! Loads a model and generates tokens. Knows neither queue nor object store.
//!
//! Layout, along the data's way:
//! - [`source`]: from a model's name to its files
//! - [`config`], [`rope`]: from `config.json` to one configuration for all architectures
//! - [`weights`]: which tensors a model has, checked and read from safetensors, or made up
//! - [`format`]: from a prompt to token ids and back to text
//! - [`load`]: from its files to an engine, the memory ledger checked first
//! - [`engine`]: the trait every engine implements, its requests, events and results
//! - [`request`], [`sequence`], [`sampling`]: a request checked, the loop over its tokens, their choice
//! - [`mod@reference`], [`stock`], [`fused`]: the engines; [`cpu`]: what decoding on a CPU spends its time in
//! - [`bandwidth`], [`host`]: the machine, and how fast its memory can be read
//! - [`error`]: everything that can go wrong, each mapped to one [`bakeoff_proto::FailureKind`]

pub mod bandwidth;
pub mod config;
pub mod cpu;
pub mod engine;
pub mod error;
pub mod format;
pub mod fused;
pub mod host;
pub mod load;
pub mod reference;
pub mod request;
pub mod rope;
pub mod sampling;
pub mod sequence;
pub mod source;
pub mod stock;
pub mod weights;

pub use bakeoff_model::{Sampling, SamplingParams};
pub use engine::{Engine, Footprint, Generation, Request, TokenEvent};
pub use error::EngineError;
