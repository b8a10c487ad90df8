//! The one table of GPUs: memory, bandwidth and price, read from `deploy/gpus.toml`, which says
//! where each figure is from.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::ledger::{CUDA_CONTEXT_BYTES, DeviceMemory};

/// `deploy/gpus.toml` as this program was built with it.
pub const SHIPPED: &str = include_str!("../../../deploy/gpus.toml");

/// One kind of GPU, as a whole card (MIG off).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GpuSpec {
    /// What `--gpu` takes: `h100`.
    pub name: String,
    /// Other names that `--gpu` takes.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// What tables say: `H100 80GB`.
    pub title: String,
    /// The name that NVML reports: `NVIDIA H100 80GB HBM3`.
    pub product: String,
    /// Total memory as NVML reports it, MiB.
    pub memory_mib: u64,
    /// The maker's peak, GB/s (10^9 bytes).
    pub bandwidth_gb_s: f64,
    /// What an hour costs.
    pub price: GpuPrice,
    /// The maker's page for memory and bandwidth.
    pub source: String,
    /// A page that was read and states the same.
    pub seen: String,
}

/// The list price of one GPU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GpuPrice {
    /// Price of an hour, in `currency`.
    pub per_hour: f64,
    pub currency: String,
    /// Nobody found a source of the price.
    pub assumed: bool,
    /// Whose price it is, and where it was read.
    pub source: String,
    /// When it was so: `2026-11-09`, or a month.
    pub date: String,
}

impl GpuSpec {
    /// Total memory as NVML reports it.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_mib << 20
    }

    /// Total memory as NVML reports it, GB of 10^9 bytes.
    pub fn memory_gb(&self) -> f64 {
        self.memory_bytes() as f64 / 1e9
    }

    /// What the memory ledger plans for: total, CUDA context and reserve.
    pub fn memory(&self) -> DeviceMemory {
        DeviceMemory::gpu(self.memory_bytes(), CUDA_CONTEXT_BYTES)
    }

    /// Value of the node label `nvidia.com/gpu.product`.
    pub fn node_label(&self) -> String {
        self.product.replace(' ', "-")
    }

    fn answers_to(&self, name: &str) -> bool {
        let names = std::iter::once(&self.name).chain(&self.aliases);
        names.into_iter().any(|known| known.eq_ignore_ascii_case(name))
    }
}

impl GpuPrice {
    /// Where the price is from, and when; that it is assumed, if it is.
    pub fn provenance(&self) -> String {
        let assumed = if self.assumed { "assumption, edit: " } else { "" };
        format!("{assumed}{} ({})", self.source, self.date)
    }
}

/// A table of GPUs cannot be used, or lacks the one asked for.
#[derive(Debug, thiserror::Error)]
pub enum GpuTableError {
    #[error("the table of GPUs is malformed")]
    Malformed(#[from] toml::de::Error),
    #[error("`{key}` of GPU `{name}` is {found}, expected a number above 0")]
    NotPositive { name: String, key: &'static str, found: f64 },
    #[error("the name `{name}` stands twice in the table of GPUs: give each GPU names of its own")]
    Twice { name: String },
    #[error("unknown GPU `{name}`: expected one of {known}")]
    Unknown { name: String, known: String },
}

/// The GPUs of a table, in its order.
#[derive(Debug, Clone, PartialEq)]
pub struct GpuTable {
    gpus: Vec<GpuSpec>,
}

impl GpuTable {
    /// Reads a table in the form of `deploy/gpus.toml`.
    ///
    /// # Errors
    /// Not TOML, a key missing or unknown, a figure that is not above 0, a name given twice.
    pub fn parse(text: &str) -> Result<Self, GpuTableError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File {
            gpus: Vec<GpuSpec>,
        }
        let gpus = toml::from_str::<File>(text)?.gpus;
        let mut names = std::collections::BTreeSet::new();
        for gpu in &gpus {
            for (key, found) in [
                ("memory_mib", gpu.memory_mib as f64),
                ("bandwidth_gb_s", gpu.bandwidth_gb_s),
                ("price.per_hour", gpu.price.per_hour),
            ] {
                if !(found.is_finite() && found > 0.0) {
                    let name = gpu.name.clone();
                    return Err(GpuTableError::NotPositive { name, key, found });
                }
            }
            for name in std::iter::once(&gpu.name).chain(&gpu.aliases) {
                if !names.insert(name.to_lowercase()) {
                    return Err(GpuTableError::Twice { name: name.clone() });
                }
            }
        }
        Ok(Self { gpus })
    }

    /// The table that this program was built with.
    ///
    /// # Panics
    /// Never: a test reads the table.
    pub fn shipped() -> &'static Self {
        static TABLE: LazyLock<GpuTable> =
            LazyLock::new(|| GpuTable::parse(SHIPPED).expect("a test reads the table"));
        &TABLE
    }

    /// The GPU of a short name or alias, in any case.
    ///
    /// # Errors
    /// There is none; the error lists the names.
    pub fn find(&self, name: &str) -> Result<&GpuSpec, GpuTableError> {
        self.gpus.iter().find(|gpu| gpu.answers_to(name)).ok_or_else(|| {
            let known: Vec<_> = self.gpus.iter().map(|gpu| gpu.name.as_str()).collect();
            GpuTableError::Unknown { name: name.to_owned(), known: known.join(", ") }
        })
    }

    /// The GPU that NVML calls `product`, as records have it in their device.
    pub fn of_product(&self, product: &str) -> Option<&GpuSpec> {
        self.gpus.iter().find(|gpu| gpu.product == product)
    }

    /// All of them.
    pub fn as_slice(&self) -> &[GpuSpec] {
        &self.gpus
    }
}

impl<'a> IntoIterator for &'a GpuTable {
    type Item = &'a GpuSpec;
    type IntoIter = std::slice::Iter<'a, GpuSpec>;

    fn into_iter(self) -> Self::IntoIter {
        self.gpus.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_gpu_that_ships_says_where_its_figures_are_from() {
        for gpu in GpuTable::shipped() {
            assert!(gpu.source.starts_with("https://") && gpu.seen.starts_with("https://"));
            assert!(gpu.price.assumed != gpu.price.source.contains("https://"), "{}", gpu.name);
            assert!(gpu.price.provenance().ends_with(&format!("({})", gpu.price.date)));
        }
    }

    #[test]
    fn a_gpu_is_found_by_name_alias_and_product() {
        let table = GpuTable::shipped();
        let h100 = table.find("H100").expect("it ships");
        // What nvidia-smi says of the H100 that Bakeoff is measured on.
        assert_eq!(h100.memory_bytes(), 81_559 << 20);
        assert_eq!(h100.node_label(), "NVIDIA-H100-80GB-HBM3");
        assert_eq!(table.find("h100-sxm").expect("an alias"), h100);
        assert_eq!(table.of_product("NVIDIA H100 80GB HBM3"), Some(h100));
        assert_eq!(table.of_product("NVIDIA H100 80GB HBM3 MIG 1g.10gb"), None);
        let error = table.find("tpu").expect_err("no GPU").to_string();
        assert!(error.starts_with("unknown GPU `tpu`: expected one of l4, a10g"), "{error}");
        assert!(error.contains("h100-nvl") && error.contains("a100-40gb"), "{error}");
    }

    #[test]
    fn a_table_with_a_mistake_is_refused() {
        let refusal = |from: &str, to: &str| {
            assert!(SHIPPED.contains(from), "{from}");
            let error = GpuTable::parse(&SHIPPED.replacen(from, to, 1)).expect_err(to);
            match std::error::Error::source(&error) {
                Some(source) => source.to_string(),
                None => error.to_string(),
            }
        };
        let zero = refusal("memory_mib = 23034", "memory_mib = 0");
        assert_eq!(zero, "`memory_mib` of GPU `l4` is 0, expected a number above 0");
        assert!(refusal("per_hour = 0.80", "per_hour = nan").contains("`price.per_hour` of GPU"));
        assert!(refusal("name = \"a10g\"", "name = \"L4\"").contains("`L4` stands twice"));
        assert!(refusal("memory_mib = 23034", "memory_gb = 24").contains("memory_gb"));
        assert!(refusal("name = \"l4\"\n", "").contains("missing field `name`"));
    }
}
