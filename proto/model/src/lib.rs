//! What is known of models and GPUs before anything runs. Pure data and pure functions: no I/O.
//!
//! - [`settings`]: how to generate and on which engine, as the sweep fixes it
//! - [`spec`]: which model, from where, formatted how
//! - [`shape`]: a model's sizes from its `config.json`, and what follows from them
//! - [`ledger`]: device memory by formula, checked before a byte is loaded

pub mod ledger;
pub mod settings;
pub mod shape;
pub mod spec;

pub use settings::{
    Dtype, EngineKind, EngineSettings, GenerationSettings, LoadFormat, SamplingSource,
};
pub use shape::{Architecture, ModelShape, ShapeError};
pub use spec::{Format, ModelSource, ModelSpec, Thinking};
