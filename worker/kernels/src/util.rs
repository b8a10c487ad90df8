//! Random weights, and the measure every speed is held against.

use std::time::Duration;

use half::bf16;

use crate::{
    DevicePtr, KernelError, Launcher,
    launch::{Target, status},
};

/// Fills `count` BF16 values with normally distributed numbers from a counter-based generator:
/// element `i` depends on `seed` and `first + i` only. Never all zeros: the memory system moves
/// zeros faster than data.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct FillRandom {
    /// `[count]`.
    pub out: DevicePtr<bf16>,
    /// Number of values.
    pub count: u64,
    /// Index of the first value in the sequence of this seed.
    pub first: u64,
    /// Key of the generator.
    pub seed: u64,
    /// Mean of the values: 0 for projections, 1 for norm weights.
    pub mean: f32,
    /// Standard deviation of the values; 0.02 is what the models were initialised with.
    pub deviation: f32,
}

/// Reads `bytes` once and writes one checksum word for each block.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct ReadBandwidth {
    /// What to read; much more than the L2 cache holds, and random.
    pub data: DevicePtr<u8>,
    /// How many bytes; a multiple of 16.
    pub bytes: u64,
    /// `[ReadBandwidth::SINK_LEN]`.
    pub sink: DevicePtr<u32>,
}

unsafe extern "C" {
    fn bk_fill_random(args: *const FillRandom, target: *const Target) -> i32;
    fn bk_read_bandwidth(args: *const ReadBandwidth, target: *const Target) -> i32;
}

impl FillRandom {
    /// Queues the kernel. Zero values are no launch.
    ///
    /// # Errors
    /// [`KernelError`] for a launch that fails.
    pub fn launch(&self, launcher: &Launcher) -> Result<(), KernelError> {
        if self.count == 0 {
            return Ok(());
        }
        // SAFETY: the struct has the C side's layout, and the caller vouches for its addresses.
        status("fill_random", unsafe { bk_fill_random(self, &launcher.target()) })
    }
}

impl ReadBandwidth {
    /// Length of the sink.
    pub const SINK_LEN: usize = 4096;

    /// Queues the kernel.
    ///
    /// # Errors
    /// [`KernelError`] for a launch that fails.
    pub fn launch(&self, launcher: &Launcher) -> Result<(), KernelError> {
        // SAFETY: the struct has the C side's layout, and the caller vouches for its addresses.
        status("read_bandwidth", unsafe { bk_read_bandwidth(self, &launcher.target()) })
    }
}

/// Measures the read bandwidth of the device in GB/s (10^9 bytes): `rounds` timed passes over
/// about `bytes` of random data in memory of its own, after one that is not counted.
///
/// # Errors
/// [`KernelError`] if memory cannot be had or a launch fails.
pub fn measure_read_bandwidth(
    launcher: &Launcher,
    bytes: usize,
    rounds: usize,
) -> Result<Vec<f64>, KernelError> {
    use cudarc::driver::{DevicePtrMut as _, sys::CUevent_flags};
    let stream = launcher.stream();
    let bytes = bytes.next_multiple_of(1 << 20);
    // SAFETY: filled below before it is read.
    let mut data = unsafe { stream.alloc::<u8>(bytes)? };
    let mut sink = stream.alloc_zeros::<u32>(ReadBandwidth::SINK_LEN)?;
    let (data_address, _data_guard) = data.device_ptr_mut(stream);
    let (sink_address, _sink_guard) = sink.device_ptr_mut(stream);
    let address = |at| DevicePtr::<u8>::new(at).expect("an allocation is never at address zero");
    FillRandom {
        out: address(data_address).cast(),
        count: (bytes / 2) as u64,
        first: 0,
        seed: 0x5eed,
        mean: 0.0,
        deviation: 1.0,
    }
    .launch(launcher)?;
    let read = ReadBandwidth {
        data: address(data_address),
        bytes: bytes as u64,
        sink: address(sink_address).cast(),
    };
    read.launch(launcher)?;
    let context = stream.context();
    let mut samples = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let start = context.new_event(Some(CUevent_flags::CU_EVENT_DEFAULT))?;
        let end = context.new_event(Some(CUevent_flags::CU_EVENT_DEFAULT))?;
        start.record(stream)?;
        read.launch(launcher)?;
        end.record(stream)?;
        let elapsed = Duration::from_secs_f32(start.elapsed_ms(&end)? / 1e3);
        samples.push(bytes as f64 / elapsed.as_secs_f64() / 1e9);
    }
    Ok(samples)
}
