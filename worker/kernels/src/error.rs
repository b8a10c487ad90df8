//! What can go wrong when a kernel is launched.

/// A launch that was refused, by us before it started or by the CUDA runtime.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// A shape the kernel cannot work with.
    #[error("{kernel}: {what} is {got}, but must be {expected}")]
    Shape {
        /// The kernel that refused.
        kernel: &'static str,
        /// The dimension at fault.
        what: &'static str,
        /// Its value.
        got: u64,
        /// What would have been accepted.
        expected: String,
    },
    /// A device address that is not aligned to 16 bytes.
    #[error("{kernel}: the address of {what} ({address:#x}) is not a multiple of 16 bytes")]
    Alignment {
        /// The kernel that refused.
        kernel: &'static str,
        /// The buffer at fault.
        what: &'static str,
        /// Its address.
        address: u64,
    },
    /// The CUDA runtime refused the launch.
    #[error("{kernel}: CUDA error {code} ({text})")]
    Cuda {
        /// The kernel that failed.
        kernel: &'static str,
        /// The runtime's `cudaError_t`.
        code: i32,
        /// The runtime's name for it.
        text: String,
    },
    /// The CUDA driver failed outside a launch.
    #[error("CUDA driver: {0}")]
    Driver(#[from] cudarc::driver::DriverError),
}
