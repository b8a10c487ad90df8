//! What this machine can do, measured before any model is loaded.

use std::{collections::BTreeMap, fmt};

use bakeoff_engine::load::DeviceChoice;

use super::args::BenchArgs;

/// Bounds, in the process whose speeds are held against them.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    pub name: String,
    pub driver: String,
    /// Reading the device's memory, GB/s.
    pub read_bandwidth_gb_s: f64,
    /// cuBLAS in BF16 at so many rows, TFLOP/s; only on a GPU.
    pub gemm_tflop_s: BTreeMap<usize, f64>,
    /// Pinned memory to the device, GB/s; only on a GPU.
    pub host_to_device_gb_s: Option<f64>,
}

impl Machine {
    /// # Errors
    /// The device does not answer.
    pub fn measure(args: &BenchArgs) -> anyhow::Result<Self> {
        match args.device {
            DeviceChoice::Cpu => Ok(Self {
                name: bakeoff_engine::host::cpu_name(),
                read_bandwidth_gb_s: bakeoff_engine::bandwidth::measure_host().gb_s,
                ..Self::default()
            }),
            DeviceChoice::Cuda(ordinal) => Self::gpu(args, ordinal),
        }
    }

    #[cfg(feature = "cuda")]
    fn gpu(args: &BenchArgs, ordinal: usize) -> anyhow::Result<Self> {
        use bakeoff_engine::fused::{device::Gpu, measure};
        let gpu = Gpu::open(ordinal, &bakeoff_model::EngineSettings::default())?;
        let (name, driver) = gpu.names();
        let mut gemm_tflop_s = BTreeMap::new();
        for prompt in &args.prompt_tokens {
            for depth in &args.depth {
                let rows = prompt + depth;
                gemm_tflop_s.insert(rows, measure::gemm_tflop_s(&gpu, rows)?);
            }
        }
        Ok(Self {
            name,
            driver,
            read_bandwidth_gb_s: measure::read_bandwidth_gb_s(&gpu)?,
            gemm_tflop_s,
            host_to_device_gb_s: Some(measure::host_to_device_gb_s(&gpu)?),
        })
    }

    #[cfg(not(feature = "cuda"))]
    fn gpu(_args: &BenchArgs, ordinal: usize) -> anyhow::Result<Self> {
        anyhow::bail!("--device cuda:{ordinal}: this worker was built without the feature `cuda`")
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)?;
        if !self.driver.is_empty() {
            write!(f, " ({})", self.driver)?;
        }
        write!(f, ": reads {:.0} GB/s", self.read_bandwidth_gb_s)?;
        for (rows, rate) in &self.gemm_tflop_s {
            write!(f, ", cuBLAS at {rows} rows {rate:.0} TFLOP/s")?;
        }
        match self.host_to_device_gb_s {
            Some(rate) => write!(f, ", host to device {rate:.1} GB/s"),
            None => Ok(()),
        }
    }
}
