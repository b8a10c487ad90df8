//! Names that hide the model.

use std::collections::BTreeMap;

use bakeoff_proto::{CellId, digest};

/// The blinded name of a cell's output.
pub fn name(seed: u64, cell: &CellId) -> String {
    let mut hex = digest::sha256_hex(format!("{seed}/{cell}").as_bytes());
    hex.truncate(10);
    hex
}

/// The cells by blinded name. The order of the names is the order of the review: it mixes models,
/// prompts and runs, and is the same whenever the seed is.
pub fn cells<'a>(
    seed: u64,
    cells: impl IntoIterator<Item = &'a CellId>,
) -> BTreeMap<String, &'a CellId> {
    cells.into_iter().map(|cell| (name(seed, cell), cell)).collect()
}

/// The seed when nobody names one: it follows from the sweep, so that two reviewers see one order.
pub fn default_seed(sweep: &str) -> u64 {
    let hex = digest::sha256_hex(format!("review/{sweep}").as_bytes());
    // TOML integers are signed: one bit less.
    u64::from_str_radix(&hex[..15], 16).expect("a SHA-256 starts with 15 hexadecimal digits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_depends_on_the_seed_alone() {
        let ids: Vec<_> =
            (0..40u8).map(|i| CellId::parse(&format!("{i:016x}")).expect("hexadecimal")).collect();
        let order = |seed| cells(seed, &ids).into_values().cloned().collect::<Vec<_>>();
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
        assert_ne!(order(1), ids);
        assert_eq!(order(1).len(), 40);
        assert!(i64::try_from(default_seed("demo")).is_ok());
    }
}
