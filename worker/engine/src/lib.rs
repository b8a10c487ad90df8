//! Loads a model and generates tokens. Knows neither queue nor object store.
//!
//! Layout, along the data's way:
//! - [`source`]: from a model's name to its files
//! - [`config`], [`rope`]: from `config.json` to one configuration for all architectures
//! - [`format`]: from a prompt to token ids and back to text
//! - [`weights`]: the tensors of a model, checked and read from safetensors, or made up
//! - [`mod@load`]: from a model's files to an engine, the memory ledger checked first; [`loaded`]:
//!   what a load reports and gives
//! - [`engine`]: the trait every engine implements, its requests, events and results
//! - [`request`], [`session`], [`sampling`]: a request checked, the loop over its tokens, their
//!   choice
//! - [`mod@reference`]: the oracle in plain candle, and [`cpu`], what it spends its time in on a
//!   CPU; [`fused`], [`stock`]: the other engines
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
pub mod loaded;
pub mod reference;
pub mod request;
pub mod rope;
pub mod sampling;
pub mod session;
pub mod source;
pub mod stock;
pub mod weights;

pub use engine::{Engine, Footprint, Generation, Request, Sampling, TokenEvent};
pub use error::EngineError;
