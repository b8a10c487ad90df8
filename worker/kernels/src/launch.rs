//! The stream that kernels are queued on, and the checks all launches share.

use std::{ffi::c_void, sync::Arc};

use cudarc::driver::{CudaStream, sys};

use crate::{DevicePtr, KernelError};

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
                expected: "9: these kernels are built for Hopper GPUs only",
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

/// Where and how to launch, as the C side takes it.
#[repr(C)]
pub(crate) struct Target {
    stream: *mut c_void,
    sm_count: u32,
    dependent: u32,
}

unsafe extern "C" {
    fn bk_error_name(code: i32) -> *const std::ffi::c_char;
}

/// Turns a `cudaError_t` into a result.
pub(crate) fn status(kernel: &'static str, code: i32) -> Result<(), KernelError> {
    if code == 0 {
        return Ok(());
    }
    // SAFETY: the runtime returns a static, terminated string for every code.
    let text = unsafe { std::ffi::CStr::from_ptr(bk_error_name(code)) };
    Err(KernelError::Cuda { kernel, code, text: text.to_string_lossy().into_owned() })
}

/// Collects shape checks of one kernel.
pub(crate) struct Check(pub &'static str);

impl Check {
    pub fn that(
        &self,
        holds: bool,
        what: &'static str,
        got: u32,
        expected: &'static str,
    ) -> Result<(), KernelError> {
        if holds {
            return Ok(());
        }
        Err(KernelError::Shape { kernel: self.0, what, got: got.into(), expected })
    }

    /// Rows of this many BF16 values start on 16 bytes.
    pub fn whole_vectors(&self, what: &'static str, got: u32) -> Result<(), KernelError> {
        self.that(got > 0 && got.is_multiple_of(8), what, got, "a positive multiple of 8")
    }

    pub fn positive(&self, what: &'static str, got: u32) -> Result<(), KernelError> {
        self.that(got > 0, what, got, "positive")
    }

    pub fn aligned<T>(&self, what: &'static str, ptr: DevicePtr<T>) -> Result<(), KernelError> {
        if ptr.address().is_multiple_of(16) {
            return Ok(());
        }
        Err(KernelError::Alignment { kernel: self.0, what, address: ptr.address() })
    }
}

/// Checks that name a rule of the models.
impl Check {
    /// A normalised row is held in shared memory.
    pub fn norm_width(&self, hidden: u32) -> Result<(), KernelError> {
        self.whole_vectors("hidden", hidden)?;
        self.that(hidden <= 16_384, "hidden", hidden, "at most 16384")
    }

    pub fn head_dim(&self, head_dim: u32) -> Result<(), KernelError> {
        let supported = matches!(head_dim, 16 | 32 | 64 | 128);
        self.that(supported, "head_dim", head_dim, "16, 32, 64 or 128")
    }

    pub fn heads(&self, heads: u32, kv_heads: u32) -> Result<(), KernelError> {
        self.positive("kv_heads", kv_heads)?;
        self.that(
            heads > 0 && heads.is_multiple_of(kv_heads),
            "heads",
            heads,
            "a positive multiple of kv_heads",
        )
    }

    pub fn experts(&self, experts: u32, top_k: u32) -> Result<(), KernelError> {
        self.that((1..=256).contains(&experts), "experts", experts, "between 1 and 256")?;
        self.that(
            (1..=experts.min(16)).contains(&top_k),
            "top_k",
            top_k,
            "between 1 and the smaller of 16 and the number of experts",
        )
    }
}
