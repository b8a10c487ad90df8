//! What the two sides of Bakeoff say to each other. Pure data and pure functions: no I/O, no async.
//!
//! Layout, along the data's way:
//! - [`job`]: a cell (model × prompt × run) and a job (one model with its cells)
//! - [`attempt`]: who holds a job, and when a job has been tried often enough
//! - [`event`]: what a worker tells while it works (live display only)
//! - [`record`]: the metrics record of a finished generation
//! - [`telemetry`]: the columns of what was sampled meanwhile
//! - [`failure`]: why a cell has no record, and whether trying again could help
//! - [`status`]: what became of a planned cell
//! - [`document`]: the markdown file of one generation, written and read back
//! - [`exit`]: the exit codes of both programs
//! - [`limits`]: limits that both sides keep
//! - [`names`]: stream, subjects, buckets and object keys
//! - [`digest`]: the hashes that identities are made of
//! - [`redact`]: addresses as messages may show them

pub mod attempt;
pub mod digest;
pub mod document;
pub mod event;
pub mod exit;
pub mod failure;
pub mod job;
pub mod limits;
pub mod names;
pub mod record;
pub mod redact;
pub mod status;
pub mod telemetry;

pub use attempt::{Attempt, AttemptId, Claim, MAX_FRUITLESS_ATTEMPTS};
pub use event::{JobEvent, JobPhase};
pub use failure::{Disposition, Failure, FailureKind};
pub use job::{Cell, CellId, Incarnation, Job, JobId, SweepId, SweepName};
pub use record::{FinishReason, Metrics, MetricsRecord};
pub use status::CellStatus;

/// Version of every JSON document this crate defines. A reader accepts its own version and older
/// ones.
pub const SCHEMA_VERSION: u32 = 1;

/// The schema version of a JSON document that is too new to be read here, whatever else it holds.
pub fn newer_schema(json: &[u8]) -> Option<u64> {
    #[derive(serde::Deserialize)]
    struct Versioned {
        schema_version: u64,
    }
    let versioned: Versioned = serde_json::from_slice(json).ok()?;
    Some(versioned.schema_version).filter(|version| *version > u64::from(SCHEMA_VERSION))
}
