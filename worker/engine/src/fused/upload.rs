//! Weights from files to their final place on the device: several threads read chunks into pinned
//! buffers and queue their copies, so that reading, converting and copying overlap.

use std::{
    alloc::{Layout, alloc, dealloc, handle_alloc_error},
    fs::File,
    os::unix::fs::FileExt as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bakeoff_kernels::DevicePtr;
use bakeoff_proto::FailureKind;
use cudarc::driver::{CudaEvent, CudaStream, sys};
use half::{bf16, f16};

use super::{
    device::{Buffer, Gpu},
    error::driver_error,
};
use crate::{
    EngineError,
    loaded::{LoadProgress, OnLoad, abandoned},
};

/// Bytes read at once: one huge page, and so few that all buffers together stay in the processor's
/// cache between the read that fills and the copy that empties them.
const CHUNK_BYTES: usize = 2 << 20;
/// With two buffers each, 64 MB of pinned memory.
const MAX_THREADS: usize = 16;
const BUFFERS: usize = 2;

/// How a stored tensor is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    Bf16,
    F16,
    F32,
}

impl Stored {
    fn bytes(self) -> usize {
        match self {
            Self::Bf16 | Self::F16 => 2,
            Self::F32 => 4,
        }
    }
}

/// Where stored bytes come from.
#[derive(Clone)]
pub enum Source {
    File(Arc<File>),
    Memory(&'static [u8]),
}

/// One tensor on its way: rows of `row_elements`, row `i` to `to + i * pitch_bytes`.
#[derive(Clone)]
pub struct Upload {
    pub name: String,
    pub source: Source,
    pub offset: u64,
    pub stored: Stored,
    pub rows: usize,
    pub row_elements: usize,
    pub to: DevicePtr<u8>,
    pub pitch_bytes: usize,
}

/// Some rows of one upload: what a thread handles at a time.
#[derive(Clone, Copy)]
struct Piece {
    upload: usize,
    first_row: usize,
    rows: usize,
}

/// Brings all tensors to the device and waits until they are there.
///
/// # Errors
/// A file cannot be read, the device fails, or `on_progress` breaks.
pub fn upload(gpu: &Gpu, uploads: &[Upload], on_progress: OnLoad<'_>) -> Result<(), EngineError> {
    let pieces = pieces(uploads);
    let total_bytes =
        uploads.iter().map(|u| (u.rows * u.row_elements * u.stored.bytes()) as u64).sum();
    let shared = Shared {
        uploads,
        pieces: &pieces,
        next: AtomicUsize::new(0),
        done_bytes: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        error: Mutex::new(None),
    };
    let cores = std::thread::available_parallelism().map_or(4, usize::from);
    let threads = cores.min(MAX_THREADS).min(pieces.len()).max(1);
    let mut cancelled = false;
    let waiting = std::thread::current();
    std::thread::scope(|scope| {
        let work = || {
            shared.work(gpu);
            waiting.unpark();
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        loop {
            let finished = workers.iter().all(std::thread::ScopedJoinHandle::is_finished);
            let bytes = shared.done_bytes.load(Ordering::Relaxed);
            if on_progress(LoadProgress { bytes, total_bytes }).is_break() {
                cancelled = true;
                shared.stop.store(true, Ordering::Relaxed);
            }
            if finished {
                break;
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
    });
    if let Some(error) = shared.error.into_inner().expect("no thread panics while it holds this") {
        return Err(error);
    }
    if cancelled {
        return Err(abandoned());
    }
    Ok(())
}

/// Cuts the tensors into pieces of whole rows that fit a buffer, in their order.
fn pieces(uploads: &[Upload]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (upload, u) in uploads.iter().enumerate() {
        let row_bytes = (u.row_elements * u.stored.bytes()).max(1);
        let rows = (CHUNK_BYTES / row_bytes).max(1);
        pieces.extend((0..u.rows).step_by(rows).map(|first_row| Piece {
            upload,
            first_row,
            rows: rows.min(u.rows - first_row),
        }));
    }
    pieces
}

struct Shared<'a> {
    uploads: &'a [Upload],
    pieces: &'a [Piece],
    next: AtomicUsize,
    done_bytes: AtomicU64,
    stop: AtomicBool,
    error: Mutex<Option<EngineError>>,
}

impl Shared<'_> {
    fn work(&self, gpu: &Gpu) {
        if let Err(error) = self.copy_pieces(gpu) {
            self.stop.store(true, Ordering::Relaxed);
            self.error.lock().expect("no thread panics while it holds this").get_or_insert(error);
        }
    }

    fn copy_pieces(&self, gpu: &Gpu) -> Result<(), EngineError> {
        let stream = gpu.context().new_stream().map_err(driver_error)?;
        let mut ring: Vec<Pinned> = Vec::new();
        let mut converted = Vec::new();
        for turn in 0.. {
            let at = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(piece) = self.pieces.get(at).filter(|_| !self.stop.load(Ordering::Relaxed))
            else {
                break;
            };
            if ring.len() < BUFFERS {
                ring.push(Pinned::new(gpu)?);
            }
            let buffer = &mut ring[turn % BUFFERS];
            buffer.copied.synchronize().map_err(driver_error)?;
            self.copy_piece(gpu, *piece, buffer, &mut converted, &stream)?;
        }
        stream.synchronize().map_err(driver_error)
    }

    fn copy_piece(
        &self,
        gpu: &Gpu,
        piece: Piece,
        buffer: &mut Pinned,
        converted: &mut Vec<u8>,
        stream: &CudaStream,
    ) -> Result<(), EngineError> {
        let upload = &self.uploads[piece.upload];
        let elements = piece.rows * upload.row_elements;
        let stored_row = upload.row_elements * upload.stored.bytes();
        let bytes = elements * upload.stored.bytes();
        let offset = upload.offset + (piece.first_row * stored_row) as u64;
        let place = buffer.bytes(elements * size_of::<bf16>());
        if upload.stored == Stored::Bf16 {
            upload.read(offset, place)?;
        } else {
            converted.resize(bytes, 0);
            upload.read(offset, converted)?;
            convert(upload.stored, converted, place);
        }
        let bytes_placed = place.len();
        let copy = RowCopy {
            from: place.as_ptr(),
            to: upload.to.address() + (piece.first_row * upload.pitch_bytes) as u64,
            rows: piece.rows,
            row_bytes: upload.row_elements * size_of::<bf16>(),
            pitch_bytes: upload.pitch_bytes,
        };
        if copy.is_contiguous() {
            copy.queue_to(copy.to, stream)?;
        } else {
            let staged = buffer.staging(gpu, bytes_placed)?;
            copy.queue_to(staged, stream)?;
            copy.queue_spread(staged, stream)?;
        }
        buffer.copied.record(stream).map_err(driver_error)?;
        self.done_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(())
    }
}

impl Upload {
    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), EngineError> {
        match &self.source {
            Source::File(file) => file.read_exact_at(into, offset).map_err(|error| {
                let message = format!("cannot read tensor {} at byte {offset}", self.name);
                EngineError::caused(FailureKind::BadWeights, message, error)
            }),
            Source::Memory(bytes) => {
                let range = usize::try_from(offset)
                    .ok()
                    .and_then(|at| bytes.get(at..at.checked_add(into.len())?));
                let range = range.ok_or_else(|| {
                    let message =
                        format!("tensor {} lies beyond the end of the weights", self.name);
                    EngineError::new(FailureKind::BadWeights, message)
                })?;
                into.copy_from_slice(range);
                Ok(())
            }
        }
    }
}

/// Little-endian numbers as BF16, rounded to nearest.
fn convert(stored: Stored, from: &[u8], into: &mut [u8]) {
    let places = into.chunks_exact_mut(2);
    match stored {
        Stored::Bf16 => into.copy_from_slice(from),
        Stored::F16 => {
            for (place, value) in places.zip(from.as_chunks::<2>().0) {
                let value = f16::from_le_bytes(*value).to_f32();
                place.copy_from_slice(&bf16::from_f32(value).to_le_bytes());
            }
        }
        Stored::F32 => {
            for (place, value) in places.zip(from.as_chunks::<4>().0) {
                let value = f32::from_le_bytes(*value);
                place.copy_from_slice(&bf16::from_f32(value).to_le_bytes());
            }
        }
    }
}

/// Contiguous rows on the host to rows `pitch_bytes` apart on the device.
struct RowCopy {
    from: *const u8,
    to: u64,
    rows: usize,
    row_bytes: usize,
    pitch_bytes: usize,
}

impl RowCopy {
    fn is_contiguous(&self) -> bool {
        self.pitch_bytes == self.row_bytes || self.rows == 1
    }

    /// Queues the rows, one behind the other, from the host to `to`.
    fn queue_to(&self, to: u64, stream: &CudaStream) -> Result<(), EngineError> {
        let bytes = self.rows * self.row_bytes;
        // SAFETY: the pinned buffer holds so many bytes and stays untouched until its event; `to`
        // is a place inside the weights' allocation, or a staging buffer of this size.
        unsafe { sys::cuMemcpyHtoDAsync_v2(to, self.from.cast(), bytes, stream.cu_stream()) }
            .result()
            .map_err(driver_error)
    }

    /// Queues the rows from a staging buffer on the device to their places. Spreading them on the
    /// way from the host would cost the copy engine a transfer a row.
    fn queue_spread(&self, staged: u64, stream: &CudaStream) -> Result<(), EngineError> {
        let copy = sys::CUDA_MEMCPY2D {
            srcXInBytes: 0,
            srcY: 0,
            srcMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_DEVICE,
            srcHost: std::ptr::null(),
            srcDevice: staged,
            srcArray: std::ptr::null_mut(),
            srcPitch: self.row_bytes,
            dstXInBytes: 0,
            dstY: 0,
            dstMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_DEVICE,
            dstHost: std::ptr::null_mut(),
            dstDevice: self.to,
            dstArray: std::ptr::null_mut(),
            dstPitch: self.pitch_bytes,
            WidthInBytes: self.row_bytes,
            Height: self.rows,
        };
        // SAFETY: the staging buffer holds the rows, and the plan's places lie inside the weights'
        // allocation; the descriptor is read before the call returns.
        unsafe { sys::cuMemcpy2DAsync_v2(&copy, stream.cu_stream()) }.result().map_err(driver_error)
    }
}

/// A pinned buffer and the event after its last copy.
struct Pinned {
    address: *mut u8,
    copied: CudaEvent,
    /// As large, on the device; for rows that are to be spread.
    staging: Option<Buffer<u8>>,
}

impl Pinned {
    const LAYOUT: Layout = match Layout::from_size_align(CHUNK_BYTES, CHUNK_BYTES) {
        Ok(layout) => layout,
        Err(_) => panic!("a power of two"),
    };

    /// A huge page is pinned in no time; the driver's own pinned memory is made of small ones, and
    /// costs half a second a GB.
    fn new(gpu: &Gpu) -> Result<Self, EngineError> {
        let copied = gpu.context().new_event(None).map_err(driver_error)?;
        // SAFETY: the layout is not empty.
        let address = unsafe { alloc(Self::LAYOUT) };
        if address.is_null() {
            handle_alloc_error(Self::LAYOUT);
        }
        // SAFETY: the range was just allocated. Where the system has no huge pages to give, small
        // ones do.
        unsafe {
            libc::madvise(address.cast(), CHUNK_BYTES, libc::MADV_HUGEPAGE);
            std::ptr::write_bytes(address, 0, CHUNK_BYTES);
        }
        let flags = sys::CU_MEMHOSTREGISTER_PORTABLE;
        // SAFETY: the range stays allocated until it is unregistered on drop.
        let pinned = unsafe { sys::cuMemHostRegister_v2(address.cast(), CHUNK_BYTES, flags) };
        if let Err(error) = pinned.result() {
            // SAFETY: allocated above with this layout, and nothing else knows of it.
            unsafe { dealloc(address, Self::LAYOUT) };
            return Err(driver_error(error));
        }
        Ok(Self { address, copied, staging: None })
    }

    /// Address of the staging buffer, allocated when it is first needed.
    fn staging(&mut self, gpu: &Gpu, len: usize) -> Result<u64, EngineError> {
        assert!(len <= CHUNK_BYTES, "{len} bytes exceed the staging buffer");
        let staging = match self.staging.take() {
            Some(staging) => staging,
            None => Buffer::uninitialised(gpu, CHUNK_BYTES)?,
        };
        Ok(self.staging.insert(staging).ptr().address())
    }

    /// The first `len` bytes. Rows longer than the buffer do not occur: see `supported`.
    fn bytes(&mut self, len: usize) -> &mut [u8] {
        assert!(len <= CHUNK_BYTES, "a row of {len} bytes exceeds the pinned buffer");
        // SAFETY: allocated with `CHUNK_BYTES`; `&mut self` makes it exclusive, and the caller has
        // waited for the last copy out of it.
        unsafe { std::slice::from_raw_parts_mut(self.address, len) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let waited = self.copied.synchronize();
        // SAFETY: registered in `new`, and no copy uses it any more.
        let freed = unsafe { sys::cuMemHostUnregister(self.address.cast()) }.result();
        // SAFETY: allocated in `new` with this layout, freed once.
        unsafe { dealloc(self.address, Self::LAYOUT) };
        self.copied.context().record_err(waited.and(freed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_all_rows_once_and_fit_a_buffer() {
        let upload = |rows, row_elements, stored| Upload {
            name: "w".to_owned(),
            source: Source::Memory(&[]),
            offset: 0,
            stored,
            rows,
            row_elements,
            to: DevicePtr::new(256).expect("not zero"),
            pitch_bytes: 2 * row_elements,
        };
        let uploads = [
            upload(18_944, 3_584, Stored::Bf16),
            upload(1, 3_584, Stored::F32),
            upload(152_064, 3_584, Stored::F32),
        ];
        let mut rows = [0; 3];
        for piece in pieces(&uploads) {
            assert_eq!(piece.first_row, rows[piece.upload]);
            rows[piece.upload] += piece.rows;
            let u = &uploads[piece.upload];
            assert!(piece.rows * u.row_elements * u.stored.bytes() <= CHUNK_BYTES);
        }
        assert_eq!(rows, [18_944, 1, 152_064]);
    }

    #[test]
    fn wider_numbers_round_to_bf16() {
        let mut out = [0; 4];
        let from: Vec<u8> = [1.0f32, -2.5].iter().flat_map(|v| v.to_le_bytes()).collect();
        convert(Stored::F32, &from, &mut out);
        assert_eq!(out, [0x80, 0x3f, 0x20, 0xc0]);
        let from: Vec<u8> =
            [1.0f32, -2.5].iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect();
        convert(Stored::F16, &from, &mut out);
        assert_eq!(out, [0x80, 0x3f, 0x20, 0xc0]);
    }
}
