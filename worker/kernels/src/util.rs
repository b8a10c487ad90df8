//! Random weights, and the measure every speed is held against.

use std::time::Duration;

pub use crate::abi::{FillRandom, ReadBandwidth};
use crate::{DevicePtr, Kernel, KernelError, Launcher, check::Check, limits::MAX_READ_BLOCKS};

/// No values are no launch.
impl Kernel for FillRandom {
    const NAME: &'static str = "fill_random";

    fn check(&self) -> Result<(), KernelError> {
        Ok(())
    }
}

impl ReadBandwidth {
    /// Length of the sink.
    pub const SINK_LEN: usize = MAX_READ_BLOCKS as usize;
}

impl Kernel for ReadBandwidth {
    const NAME: &'static str = "read_bandwidth";

    fn check(&self) -> Result<(), KernelError> {
        Check(Self::NAME).aligned("data", self.data)
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
    let fill = FillRandom {
        out: address(data_address).cast(),
        count: (bytes / 2) as u64,
        first: 0,
        seed: 0x5eed,
        mean: 0.0,
        deviation: 1.0,
    };
    let read = ReadBandwidth {
        data: address(data_address),
        bytes: bytes as u64,
        sink: address(sink_address).cast(),
    };
    // SAFETY: both buffers were allocated above with these lengths, on this stream, and live until
    // the events of the last round were waited for.
    let queue = || unsafe { read.launch(launcher) };
    // SAFETY: likewise.
    unsafe { fill.launch(launcher)? };
    queue()?;
    let context = stream.context();
    let mut samples = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let start = context.new_event(Some(CUevent_flags::CU_EVENT_DEFAULT))?;
        let end = context.new_event(Some(CUevent_flags::CU_EVENT_DEFAULT))?;
        start.record(stream)?;
        queue()?;
        end.record(stream)?;
        let elapsed = Duration::from_secs_f32(start.elapsed_ms(&end)? / 1e3);
        samples.push(bytes as f64 / elapsed.as_secs_f64() / 1e9);
    }
    Ok(samples)
}
