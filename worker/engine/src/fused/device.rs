//! The GPU: its stream, its memory, and the settings that change its arithmetic.

use std::{ffi::c_void, sync::Arc};

use bakeoff_kernels::{DevicePtr, KernelError, Launcher};
use bakeoff_model::{EngineSettings, ledger::DeviceMemory};
use bakeoff_proto::{FailureKind};
use candle_core::{CudaDevice, Device};
use cudarc::driver::{CudaContext, CudaStream, DriverError, result, sys};

use crate::EngineError;

/// A CUDA device opened for one engine: candle's handle, our launcher, one stream for both.
#[derive(Clone)]
pub struct Gpu {
    pub device: Device,
    pub launcher: Launcher,
    cuda: CudaDevice,
}

impl Gpu {
    /// Opens a device as [`open_device`] does, for our own kernels.
    ///
    /// # Errors
    /// No such device, or one that is not of compute capability 9.0.
    pub fn open(ordinal: usize, settings: &EngineSettings) -> Result<Self, EngineError> {
        let device = open_device(ordinal, settings)?;
        let cuda = cuda_device(&device)?.clone();
        let launcher = Launcher::new(cuda.cuda_stream()).map_err(|error| match error {
            KernelError::Shape { .. } => {
                EngineError::new(FailureKind::Unsupported, format!("engine fused: {error}"))
            }
            error => kernel_error(error),
        })?;
        Ok(Self { device, launcher, cuda })
    }

    pub fn stream(&self) -> &Arc<CudaStream> {
        self.launcher.stream()
    }

    pub fn context(&self) -> &Arc<CudaContext> {
        self.stream().context()
    }

    pub(super) fn cuda(&self) -> &CudaDevice {
        &self.cuda
    }

    /// Waits for everything queued so far.
    ///
    /// # Errors
    /// The device failed, now or earlier.
    pub fn synchronize(&self) -> Result<(), EngineError> {
        self.stream().synchronize().map_err(driver_error)
    }

    /// Name and driver version, as they appear in a record.
    pub fn names(&self) -> (String, String) {
        names(self.context())
    }
}

/// Opens a device for any engine, with a stream of its own and without the events that candle
/// would record around each operation; frees what an earlier engine left in the memory pool, and
/// applies the settings that change cuBLAS's arithmetic.
///
/// # Errors
/// No such device.
pub fn open_device(ordinal: usize, settings: &EngineSettings) -> Result<Device, EngineError> {
    let device = Device::new_cuda_with_stream(ordinal).map_err(|error| {
        EngineError::new(
            FailureKind::Device,
            format!("CUDA device {ordinal} could not be opened: {error}"),
        )
    })?;
    let cuda = cuda_device(&device)?;
    // SAFETY: one engine uses one stream, so nothing needs events to order it.
    unsafe { cuda.disable_event_tracking() };
    keep_pool(cuda.cuda_stream().context()).map_err(driver_error)?;
    super::gemm::apply_settings(cuda, settings)?;
    Ok(device)
}

/// The memory of an opened device: total, and what its context (and whoever else is there) takes.
///
/// # Errors
/// The device does not answer.
pub fn device_memory(device: &Device) -> Result<DeviceMemory, EngineError> {
    let context = cuda_device(device)?.cuda_stream().context().clone();
    let (free, total) = context.mem_get_info().map_err(driver_error)?;
    Ok(DeviceMemory::gpu(total as u64, (total - free) as u64))
}

fn cuda_device(device: &Device) -> Result<&CudaDevice, EngineError> {
    device.as_cuda_device().map_err(candle_error)
}

/// Name of an opened device and version of the driver's CUDA.
///
/// # Errors
/// Not a CUDA device.
pub fn device_names(device: &Device) -> Result<(String, String), EngineError> {
    Ok(names(cuda_device(device)?.cuda_stream().context()))
}

fn names(context: &CudaContext) -> (String, String) {
    let name = context.name().unwrap_or_else(|_| "unknown CUDA device".to_owned());
    let mut version = 0;
    // SAFETY: the pointer is valid for the call.
    let status = unsafe { sys::cuDriverGetVersion(&mut version) };
    let driver = match status {
        sys::CUresult::CUDA_SUCCESS => {
            format!("CUDA {}.{}", version / 1000, version % 1000 / 10)
        }
        _ => String::new(),
    };
    (name, driver)
}

/// Gives back what the pool holds unused, then lets it keep what it will get: returning memory to
/// the driver at every synchronisation costs milliseconds.
fn keep_pool(context: &CudaContext) -> Result<(), DriverError> {
    context.bind_to_thread()?;
    // SAFETY: the device is open, and the attribute is a 64-bit number.
    unsafe {
        let pool = result::device::get_mem_pool(context.cu_device())?;
        result::mem_pool::trim_to(pool, 0)?;
        let mut threshold = u64::MAX;
        result::mem_pool::set_attribute(
            pool,
            sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD,
            std::ptr::from_mut(&mut threshold).cast(),
        )
    }
}

/// Device memory of its own, outside the pool: freed exactly when dropped.
pub struct Buffer<T> {
    ptr: DevicePtr<T>,
    len: usize,
    context: Arc<CudaContext>,
}

impl<T: Copy> Buffer<T> {
    /// Memory for `len` elements, all bytes zero.
    ///
    /// # Errors
    /// The device has no such amount free.
    pub fn zeroed(gpu: &Gpu, len: usize) -> Result<Self, EngineError> {
        let buffer = Self::uninitialised(gpu, len)?;
        // SAFETY: the range was just allocated; the stream orders the fill before any use.
        unsafe {
            result::memset_d8_async(
                buffer.ptr.address(),
                0,
                buffer.bytes(),
                gpu.stream().cu_stream(),
            )
        }
        .map_err(driver_error)?;
        Ok(buffer)
    }

    /// The same, with whatever the memory held before.
    ///
    /// # Errors
    /// The device has no such amount free.
    pub fn uninitialised(gpu: &Gpu, len: usize) -> Result<Self, EngineError> {
        let context = gpu.context().clone();
        context.bind_to_thread().map_err(driver_error)?;
        let bytes = (len * size_of::<T>()).max(16);
        // SAFETY: a plain allocation; nothing reads it before it is written, which is up to us.
        let address = unsafe { result::malloc_sync(bytes) }.map_err(|error| {
            let EngineError { kind, message } = driver_error(error);
            EngineError::new(kind, format!("{message} (allocating {:.3} GB)", bytes as f64 / 1e9))
        })?;
        let ptr = DevicePtr::new(address).expect("an allocation is never at address zero");
        Ok(Self { ptr, len, context })
    }

    /// From values on the host.
    ///
    /// # Errors
    /// As [`Buffer::uninitialised`].
    pub fn from_host(gpu: &Gpu, values: &[T]) -> Result<Self, EngineError> {
        let buffer = Self::uninitialised(gpu, values.len())?;
        buffer.write(gpu, values)?;
        gpu.synchronize()?;
        Ok(buffer)
    }

    pub fn ptr(&self) -> DevicePtr<T> {
        self.ptr
    }

    pub fn bytes(&self) -> usize {
        self.len * size_of::<T>()
    }

    /// Queues a copy of `values` to the start of the buffer. The values are staged before it
    /// returns: they need not live on.
    ///
    /// # Errors
    /// A device error.
    ///
    /// # Panics
    /// More values than the buffer holds.
    pub fn write(&self, gpu: &Gpu, values: &[T]) -> Result<(), EngineError> {
        assert!(values.len() <= self.len, "{} values into {}", values.len(), self.len);
        // SAFETY: the length was checked. The driver copies pageable memory of any size to its
        // staging area before it returns.
        unsafe { result::memcpy_htod_async(self.ptr.address(), values, gpu.stream().cu_stream()) }
            .map_err(driver_error)
    }

    /// Queues a fill with zero bytes.
    ///
    /// # Errors
    /// A device error.
    pub fn clear(&self, gpu: &Gpu) -> Result<(), EngineError> {
        // SAFETY: the whole of a live allocation.
        unsafe {
            result::memset_d8_async(self.ptr.address(), 0, self.bytes(), gpu.stream().cu_stream())
        }
        .map_err(driver_error)
    }

    /// Waits for what is queued and copies the buffer's first elements out.
    ///
    /// # Errors
    /// A device error.
    ///
    /// # Panics
    /// More elements than the buffer holds.
    pub fn read(&self, gpu: &Gpu, out: &mut [T]) -> Result<(), EngineError> {
        assert!(out.len() <= self.len, "{} values from {}", out.len(), self.len);
        // SAFETY: the length was checked, and the copy is complete before `out` is used.
        unsafe { result::memcpy_dtoh_async(out, self.ptr.address(), gpu.stream().cu_stream()) }
            .map_err(driver_error)?;
        gpu.synchronize()
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        // SAFETY: allocated by `malloc_sync` and freed once; freeing waits for the device.
        let freed = self
            .context
            .bind_to_thread()
            .and_then(|()| unsafe { result::free_sync(self.ptr.address()) });
        self.context.record_err(freed);
    }
}

/// Pinned host memory that kernels write and the host reads while they run: not write-combined,
/// which would make reading slow.
pub struct Mapped<T> {
    host: *mut T,
    device: DevicePtr<T>,
    len: usize,
    context: Arc<CudaContext>,
}

// SAFETY: the memory belongs to this value alone, and all accesses are volatile.
unsafe impl<T: Send> Send for Mapped<T> {}

impl<T: Copy> Mapped<T> {
    /// Memory for `len` elements, all bytes zero.
    ///
    /// # Errors
    /// The host cannot pin so much.
    pub fn zeroed(gpu: &Gpu, len: usize) -> Result<Self, EngineError> {
        let context = gpu.context().clone();
        context.bind_to_thread().map_err(driver_error)?;
        let flags = sys::CU_MEMHOSTALLOC_DEVICEMAP | sys::CU_MEMHOSTALLOC_PORTABLE;
        let bytes = len * size_of::<T>();
        // SAFETY: fresh memory, zeroed before anything reads it; the address is asked for at once.
        let (host, address) = unsafe {
            let host = result::malloc_host(bytes, flags).map_err(driver_error)?;
            std::ptr::write_bytes(host.cast::<u8>(), 0, bytes);
            let mut address = 0;
            sys::cuMemHostGetDevicePointer_v2(&mut address, host, 0)
                .result()
                .map_err(driver_error)?;
            (host, address)
        };
        let device = DevicePtr::new(address).expect("mapped memory is never at address zero");
        Ok(Self { host: host.cast(), device, len, context })
    }

    pub fn ptr(&self) -> DevicePtr<T> {
        self.device
    }

    /// Writes every element.
    pub fn fill(&self, value: T) {
        for at in 0..self.len {
            self.set(at, value);
        }
    }

    /// What the device last wrote there.
    ///
    /// # Panics
    /// Beyond the end.
    pub fn get(&self, at: usize) -> T {
        assert!(at < self.len);
        // SAFETY: in bounds, and plain numbers of at most 8 aligned bytes are never torn.
        unsafe { self.host.add(at).read_volatile() }
    }

    /// Writes one element.
    ///
    /// # Panics
    /// Beyond the end.
    pub fn set(&self, at: usize, value: T) {
        assert!(at < self.len);
        // SAFETY: as for `get`.
        unsafe { self.host.add(at).write_volatile(value) }
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: allocated by `malloc_host` and freed once.
        let freed = self
            .context
            .bind_to_thread()
            .and_then(|()| unsafe { result::free_host(self.host.cast::<c_void>()) });
        self.context.record_err(freed);
    }
}

pub(super) fn driver_error(error: DriverError) -> EngineError {
    let kind = match error.0 {
        sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => FailureKind::OutOfMemory,
        _ => FailureKind::Device,
    };
    EngineError::new(kind, format!("CUDA driver: {error}"))
}

pub(super) fn kernel_error(error: KernelError) -> EngineError {
    match error {
        KernelError::Driver(error) => driver_error(error),
        KernelError::Shape { .. } => EngineError::new(FailureKind::Unsupported, error.to_string()),
        KernelError::Alignment { .. } | KernelError::Cuda { .. } => {
            EngineError::new(FailureKind::Device, error.to_string())
        }
    }
}

pub(super) fn candle_error(error: candle_core::Error) -> EngineError {
    EngineError::new(FailureKind::Device, error.to_string())
}
