//! GPUs that `plan` knows by name: memory as the driver reports it, bandwidth as the maker states
//! it.

/// One kind of GPU.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gpu {
    /// As `--gpu` takes it.
    pub name: &'static str,
    /// As the driver reports it.
    pub title: &'static str,
    /// Total memory in bytes as NVML reports it.
    pub memory_bytes: u64,
    /// Peak of the data sheet, GB/s.
    pub bandwidth_gb_s: f64,
}

const MIB: u64 = 1 << 20;

/// From the makers' data sheets (bandwidth) and `nvidia-smi` (memory).
pub const GPUS: [Gpu; 8] = [
    Gpu { name: "l4", title: "NVIDIA L4", memory_bytes: 23_034 * MIB, bandwidth_gb_s: 300.0 },
    Gpu { name: "a10g", title: "NVIDIA A10G", memory_bytes: 23_028 * MIB, bandwidth_gb_s: 600.0 },
    Gpu { name: "l40s", title: "NVIDIA L40S", memory_bytes: 46_068 * MIB, bandwidth_gb_s: 864.0 },
    Gpu {
        name: "a100-40gb",
        title: "NVIDIA A100 SXM4 40GB",
        memory_bytes: 40_960 * MIB,
        bandwidth_gb_s: 1555.0,
    },
    Gpu {
        name: "a100",
        title: "NVIDIA A100 SXM4 80GB",
        memory_bytes: 81_920 * MIB,
        bandwidth_gb_s: 2039.0,
    },
    Gpu {
        name: "h100",
        title: "NVIDIA H100 80GB HBM3",
        memory_bytes: 81_559 * MIB,
        bandwidth_gb_s: 3350.0,
    },
    Gpu {
        name: "h100-nvl",
        title: "NVIDIA H100 NVL",
        memory_bytes: 95_830 * MIB,
        bandwidth_gb_s: 3938.0,
    },
    Gpu { name: "h200", title: "NVIDIA H200", memory_bytes: 143_771 * MIB, bandwidth_gb_s: 4800.0 },
];

/// The GPU of a name, or the message that lists them.
pub fn find(name: &str) -> Result<Gpu, String> {
    let wanted = name.to_lowercase();
    GPUS.iter().find(|gpu| gpu.name == wanted).copied().ok_or_else(|| {
        let names: Vec<_> = GPUS.iter().map(|gpu| gpu.name).collect();
        format!("unknown GPU \"{name}\": known are {}", names.join(", "))
    })
}
