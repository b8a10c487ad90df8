//! What is known of models and GPUs before anything runs. Pure data and pure functions: no I/O.
//!
//! - [`vocabulary`]: the words that files, flags and labels share, each an enum
//! - [`settings`]: how to generate and on which engine, as the sweep fixes it
//! - [`spec`]: which model, from where, formatted how
//! - [`shape`]: a model's sizes from its `config.json`, and what follows from them
//! - [`sampling`]: how the next token is chosen, within bounds stated once
//! - [`percentile`]: percentiles by one definition
//! - [`known`]: the models whose configurations are inside the program
//! - [`gpus`]: the one table of GPUs, their memory, bandwidth and price
//! - [`ledger`]: device memory by formula, checked before a byte is loaded

pub mod gpus;
pub mod known;
pub mod ledger;
pub mod percentile;
pub mod sampling;
pub mod settings;
pub mod shape;
pub mod spec;
pub mod vocabulary;

pub use gpus::{GpuSpec, GpuTable};
pub use known::KnownModel;
pub use sampling::{Sampling, SamplingParams};
pub use settings::{EngineSettings, GenerationSettings};
pub use shape::{Architecture, ModelShape, ShapeError};
pub use spec::{ModelSource, ModelSpec};
pub use vocabulary::{Dtype, EngineKind, Format, LoadFormat, SamplingSource, Thinking};
