//! Device memory by formula: what a model, its cache and its workspace need, against what the device allows.

/// Planned bytes on the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    pub weight_bytes: u64,
    pub kv_bytes: u64,
    pub workspace_bytes: u64,
    /// `min(max_memory_gb, device total - context - 4 GB)`; `None` where no device is known.
    pub cap_bytes: Option<u64>,
}
