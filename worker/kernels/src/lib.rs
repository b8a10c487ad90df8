//! Bakeoff's own CUDA kernels for Hopper GPUs (sm_90a): batch-1 decoding at the memory-bandwidth
//! bound, the helpers of prefill, sampling on the device, and a read-bandwidth measurement.
//!
//! Without CUDA:
//! - [`limits`]: what the kernels can take
//! - [`plan`]: how a decode step is cut for a device, and the shared memory that takes
//! - [`abi`]: what host and device share, each struct once; [`describe`] turns it into `cuda/abi.h`
//! - [`ptr`]: typed device addresses
//!
//! With the feature `cuda`, which needs a CUDA 13 toolkit to build and a Hopper GPU to run:
//! - `kernel`: the trait `Kernel`, the stream that kernels are queued on, the functions behind
//! - `step`: a whole decode step, from the residual stream to the logits, in one kernel
//! - `sample`: from logits to the next token, entirely on the device
//! - `rows`: the same small steps over many tokens, for prefill
//! - `few_rows`: the MLP and attention of few tokens, for short prompts
//! - `grouped`: sorting tokens by expert and the experts' tensor-core products, for prefill
//! - `util`: random weights and the read-bandwidth measurement
//! - `check`, `error`: the checks before a launch, and what can go wrong
//!
//! A kernel is a plain struct of device addresses and sizes. `Kernel::launch` checks the sizes
//! and queues the kernel on a stream without synchronising; the struct's documentation says what
//! each address must hold. Nothing here owns device memory.

pub mod abi;
#[cfg(feature = "cuda")]
mod check;
pub mod describe;
#[cfg(feature = "cuda")]
pub mod error;
#[cfg(feature = "cuda")]
pub mod few_rows;
#[cfg(feature = "cuda")]
pub mod grouped;
#[cfg(feature = "cuda")]
pub mod kernel;
pub mod limits;
pub mod plan;
pub mod ptr;
#[cfg(feature = "cuda")]
pub mod rows;
#[cfg(feature = "cuda")]
pub mod sample;
#[cfg(feature = "cuda")]
pub mod step;
#[cfg(feature = "cuda")]
pub mod util;

pub use abi::{DecodeState, RingEntry, SampleSettings, StepError, StopReason};
#[cfg(feature = "cuda")]
pub use error::KernelError;
pub use half::bf16;
#[cfg(feature = "cuda")]
pub use kernel::{Kernel, Launcher};
pub use ptr::DevicePtr;
