//! Limits that both sides keep.

/// Bytes of a job's message. NATS lets a message have 1 MiB with its headers unless the server is
/// told otherwise (`max_payload`); 4 KiB of it are left to the headers.
pub const MAX_JOB_BYTES: usize = (1 << 20) - 4096;
