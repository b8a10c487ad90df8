//! Opens an object store, reads from it, and creates objects so that a race has one winner.
//!
//! - `open`: from an address to a store that answers; `named`: a store shown by its address
//! - `objects`: read, write, list by key
//! - `create`: creation with one winner
//! - `error`: what can go wrong, by kind

mod create;
mod error;
mod named;
mod objects;
mod open;

pub use create::{Created, create_if_absent};
pub use error::StoreError;
pub use objects::{Look, exists, list, look, read, remove, write};
pub use open::{memory, open, probe};
