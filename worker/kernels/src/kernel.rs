//! The stream that kernels are queued on, and how one is queued.

use std::sync::Arc;

use cudarc::driver::{CudaStream, sys};

use crate::{KernelError, abi::Target};

/// A kernel with its arguments. Its documentation says what each address must hold.
pub trait Kernel: private::Queue {
    /// Its name in messages.
    const NAME: &'static str;

    /// Whether the kernel can work with these sizes, and with addresses of this alignment.
    ///
    /// # Errors
    /// [`KernelError::Shape`] or [`KernelError::Alignment`], for the first that it cannot take.
    fn check(&self) -> Result<(), KernelError>;

    /// Checks the arguments and queues the kernel behind what the stream holds. Nothing waits.
    ///
    /// # Safety
    /// Until the stream is through with the kernel, and with every graph that it was captured into:
    /// - each address is of memory that the launcher's device can access and that holds as many
    ///   values as the field's documentation says for the sizes given;
    /// - what the memory holds obeys that documentation (ids below the number of rows, a plan that
    ///   was sorted, counters at zero), as left by the kernels before it on the same stream;
    /// - memory marked as written is read or written by nothing outside this stream, and memory
    ///   that is only read is written by nothing outside it, but for mapped host memory, whose
    ///   words the host may read and write volatile.
    ///
    /// # Errors
    /// As [`Kernel::check`]; [`KernelError::Cuda`] for a launch that the CUDA runtime refuses.
    unsafe fn launch(&self, launcher: &Launcher) -> Result<(), KernelError> {
        self.check()?;
        // SAFETY: as the caller promises for this function.
        status(Self::NAME, unsafe { self.queue(launcher)? })
    }
}

pub(crate) mod private {
    use super::Launcher;
    use crate::KernelError;

    /// The function behind a kernel; only this crate's structs have one.
    pub trait Queue {
        /// Queues the kernel unchecked and returns a `cudaError_t`.
        ///
        /// # Safety
        /// As [`super::Kernel::launch`], with arguments that were checked.
        ///
        /// # Errors
        /// A plan that cannot be made for this device.
        unsafe fn queue(&self, launcher: &Launcher) -> Result<i32, KernelError>;
    }
}

/// Queues kernels on one stream.
///
/// With dependent launch (the default) a kernel of decoding, and most of prefill's, may start while
/// its predecessor on the stream drains: it requests its weights first and waits before it touches
/// anything that an earlier kernel writes. A graph captured from the stream keeps these edges.
/// Weights must therefore be in place before the first such kernel is queued behind another:
/// upload, synchronise, then prefill and decode.
#[derive(Debug, Clone)]
pub struct Launcher {
    stream: Arc<CudaStream>,
    sm_count: u32,
    dependent: bool,
}

impl Launcher {
    /// A launcher for `stream`, which must belong to a device of compute capability 9.0.
    ///
    /// # Errors
    /// [`KernelError::Shape`] for another device; [`KernelError::Driver`] if it cannot be asked.
    pub fn new(stream: Arc<CudaStream>) -> Result<Self, KernelError> {
        use sys::CUdevice_attribute_enum as Attribute;
        let context = stream.context();
        let major = context.attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        if major != 9 {
            return Err(KernelError::Shape {
                kernel: "launcher",
                what: "the device's compute capability (major)",
                got: major as u64,
                expected: "9: these kernels are built for Hopper GPUs only".to_owned(),
            });
        }
        let sm_count =
            context.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as u32;
        Ok(Self { stream, sm_count, dependent: true })
    }

    /// The same launcher with dependent launch on or off.
    pub fn with_dependent_launch(mut self, on: bool) -> Self {
        self.dependent = on;
        self
    }

    /// The stream.
    pub fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    /// Multiprocessors of the device.
    pub fn sm_count(&self) -> u32 {
        self.sm_count
    }

    pub(crate) fn target(&self) -> Target {
        Target {
            stream: self.stream.cu_stream().cast(),
            sm_count: self.sm_count,
            dependent: self.dependent.into(),
        }
    }
}

/// The functions of `cuda/*.cu`, as `cuda/abi.h` declares them.
pub(crate) mod entry {
    use crate::abi::*;

    macro_rules! declare {
        ($($args:ident: $entry:ident,)*) => {
            unsafe extern "C" {
                $(pub fn $entry(args: *const $args, target: *const Target) -> i32;)*
                pub fn bk_error_name(code: i32) -> *const std::ffi::c_char;
            }

            $(impl crate::kernel::private::Queue for $args {
                unsafe fn queue(
                    &self,
                    launcher: &crate::Launcher,
                ) -> Result<i32, crate::KernelError> {
                    // SAFETY: both structs have the layout of the header's (asserted there), and
                    // the addresses in them are as the caller promises.
                    Ok(unsafe { $entry(self, &launcher.target()) })
                }
            })*
        };
    }
    for_each_kernel!(declare);
}

/// Turns a `cudaError_t` into a result.
fn status(kernel: &'static str, code: i32) -> Result<(), KernelError> {
    if code == 0 {
        return Ok(());
    }
    // SAFETY: the runtime returns a static, terminated string for every code.
    let text = unsafe { std::ffi::CStr::from_ptr(entry::bk_error_name(code)) };
    Err(KernelError::Cuda { kernel, code, text: text.to_string_lossy().into_owned() })
}
