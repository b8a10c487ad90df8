//! Bakeoff's own CUDA kernels for Hopper GPUs (sm_90a): batch-1 decoding at the memory-bandwidth
//! bound, the helpers of prefill, sampling on the device, and a read-bandwidth measurement.
//!
//! - [`step`]: a whole decode step, from the residual stream to the logits, in one kernel
//! - [`sample`]: from logits to the next token, entirely on the device
//! - [`rows`]: the same small steps over many tokens, for prefill
//! - [`few_rows`]: the MLP and attention of few tokens, for short prompts
//! - [`grouped`]: sorting tokens by expert and the experts' tensor-core products, for prefill
//! - [`util`]: random weights and the read-bandwidth measurement
//! - [`layout`]: what lives in device memory and is shared with the kernels
//! - [`launch`], [`ptr`], [`error`]: the stream, typed device addresses, and what can go wrong
//!
//! Every kernel is a plain struct of device addresses and shapes. `launch` checks the shapes and
//! queues the kernel on a stream without synchronising; the struct's documentation says what each
//! address must hold. Nothing here owns device memory.
//!
//! All of it needs the feature `cuda`; without that the crate is empty, so that machines without
//! CUDA can build the workspace.
#![cfg(feature = "cuda")]

pub mod error;
pub mod few_rows;
pub mod grouped;
pub mod launch;
pub mod layout;
pub mod ptr;
pub mod rows;
pub mod sample;
pub mod step;
pub mod util;

pub use error::KernelError;
pub use launch::Launcher;
pub use layout::{DecodeState, RingEntry, SampleSettings, StepError, StopReason};
pub use ptr::DevicePtr;
