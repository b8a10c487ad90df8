//! Loads a model and generates tokens. Knows neither queue nor object store.
//!
//! Layout, along the data's way:
//! - [`source`]: from a model's name to its files
//! - [`load`]: from its files to an engine, the memory ledger checked first
//! - [`engine`]: the trait every engine implements, its requests, events and results
//! - [`error`]: everything that can go wrong, each mapped to one [`bakeoff_proto::FailureKind`]
pub mod engine;
pub mod error;
pub mod load;
pub mod source;

pub use engine::{Engine, Footprint, Generation, Request, Sampling, TokenEvent};
pub use error::EngineError;
