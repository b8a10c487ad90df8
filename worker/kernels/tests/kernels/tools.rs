//! Device buffers, random numbers, comparisons, and the plain FP64 code that kernels are held
//! against.

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::SystemTime,
};

use bakeoff_kernels::{DevicePtr, Kernel, KernelError, Launcher};
use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DevicePtr as _, DeviceRepr};
use half::bf16;

pub type Outcome = Result<(), Box<dyn std::error::Error>>;

/// A device buffer and its address.
pub struct Buffer<T> {
    slice: CudaSlice<T>,
    pub at: DevicePtr<T>,
}

/// The next number of a linear congruential generator.
fn advance(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *seed >> 11
}

/// Values that a thread computes at a time.
const CHUNK: usize = 1 << 8;

/// Calls `fill` for each [`CHUNK`] of `values` with its number, on all cores: the host's FP64 code
/// takes most of the time of these checks.
fn in_parallel(values: &mut [f64], fill: impl Fn(usize, &mut [f64]) + Sync) {
    let chunks = Mutex::new(values.chunks_mut(CHUNK).enumerate());
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let next = chunks.lock().expect("no panic").next();
                    let Some((at, chunk)) = next else { break };
                    fill(at, chunk);
                }
            });
        }
    });
}

/// One test at a time: a decode step takes the whole device, and two at once would wait for each
/// other. Counts of all tests so far: passed, failed, not compared.
static DEVICE: Mutex<[usize; 3]> = Mutex::new([0; 3]);

/// Runs a test's checks and fails it if one of them failed.
pub fn on_device(checks: impl FnOnce(&mut Check) -> Outcome) {
    let mut counts = DEVICE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut check = Check::new().expect("a Hopper GPU");
    // On a line of its own behind what the test harness has begun.
    println!("\nseed {}", check.seed);
    let outcome = checks(&mut check);
    counts.iter_mut().zip(check.counts).for_each(|(all, own)| *all += own);
    let [passed, failed, skipped] = *counts;
    println!("{passed} ok, {failed} failed, {skipped} not compared so far");
    assert!(outcome.is_ok(), "{outcome:?}");
    assert_eq!(check.counts[1], 0, "failed checks; BAKEOFF_GPU_SEED={} repeats", check.seed);
}

/// The seed of a run: of `BAKEOFF_GPU_SEED`, or the time.
fn seed() -> u64 {
    let given = std::env::var("BAKEOFF_GPU_SEED");
    if let Ok(seed) = given {
        return seed.parse().expect("BAKEOFF_GPU_SEED is a number");
    }
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |d| d.as_secs())
}

pub struct Check {
    stream: Arc<CudaStream>,
    pub launcher: Launcher,
    /// As given.
    seed: u64,
    state: u64,
    /// Passed, failed, not compared.
    counts: [usize; 3],
}

impl Check {
    fn new() -> Result<Self, Box<dyn std::error::Error>> {
        let (stream, seed) = (CudaContext::new(0)?.new_stream()?, seed());
        let launcher = Launcher::new(stream.clone())?;
        Ok(Self { launcher, stream, seed, state: seed, counts: [0; 3] })
    }

    /// Queues a kernel.
    pub fn launch(&self, kernel: &impl Kernel) -> Result<(), KernelError> {
        // SAFETY: the tests give addresses of [`Buffer`]s of the sizes that each field asks for,
        // which are used, and freed when dropped, in the order of this stream.
        unsafe { kernel.launch(&self.launcher) }
    }

    pub fn next(&mut self) -> u64 {
        advance(&mut self.state)
    }

    /// Roughly normal numbers, rounded to BF16 so that either type holds them exactly.
    pub fn numbers(&mut self, count: usize, mean: f64, deviation: f64) -> Vec<f64> {
        let first = self.next();
        let mut numbers = vec![0.0; count];
        in_parallel(&mut numbers, |chunk, values| {
            let mut seed = first ^ (chunk as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            for value in values {
                let sum: f64 =
                    (0..4).map(|_| (advance(&mut seed) & 0xffff) as f64 / 65_536.0 - 0.5).sum();
                *value = bf16::from_f64(mean + deviation * sum * 3f64.sqrt()).to_f64();
            }
        });
        numbers
    }

    pub fn upload<T: DeviceRepr + Clone>(&self, values: &[T]) -> Buffer<T> {
        let slice = self.stream.clone_htod(values).expect("device memory for a test");
        let at = slice.device_ptr(&self.stream).0;
        Buffer { slice, at: DevicePtr::new(at).expect("an allocation") }
    }

    pub fn halves(&self, values: &[f64]) -> Buffer<bf16> {
        self.upload(&values.iter().map(|&v| bf16::from_f64(v)).collect::<Vec<_>>())
    }

    pub fn floats(&self, values: &[f64]) -> Buffer<f32> {
        self.upload(&values.iter().map(|&v| v as f32).collect::<Vec<_>>())
    }

    pub fn poisoned_halves(&self, count: usize) -> Buffer<bf16> {
        self.upload(&vec![bf16::NAN; count])
    }

    pub fn poisoned_floats(&self, count: usize) -> Buffer<f32> {
        self.upload(&vec![f32::NAN; count])
    }

    pub fn read<T: DeviceRepr + Clone + Default>(&self, buffer: &Buffer<T>) -> Vec<T> {
        self.stream.clone_dtoh(&buffer.slice).expect("the kernel ran")
    }

    pub fn read_halves(&self, buffer: &Buffer<bf16>) -> Vec<f64> {
        self.read(buffer).into_iter().map(|v| v.to_f64()).collect()
    }

    pub fn read_floats(&self, buffer: &Buffer<f32>) -> Vec<f64> {
        self.read(buffer).into_iter().map(f64::from).collect()
    }

    pub fn report(&mut self, name: &str, holds: bool, seen: &str) {
        println!("{} {name}: {seen}", if holds { "ok  " } else { "FAIL" });
        self.counts[usize::from(!holds)] += 1;
    }

    /// Says why something was not compared.
    pub fn skip(&mut self, name: &str, why: &str) {
        println!("--   {name}: {why}, not compared");
        self.counts[2] += 1;
    }

    /// Relative error in the Euclidean norm; a NaN anywhere fails.
    pub fn close(&mut self, name: &str, got: &[f64], want: &[f64], tolerance: f64) {
        assert_eq!(got.len(), want.len(), "{name}");
        let norm: f64 = want.iter().map(|w| w * w).sum();
        let error: f64 = got.iter().zip(want).map(|(g, w)| (g - w) * (g - w)).sum();
        let relative = (error / norm).sqrt();
        self.report(
            name,
            relative < tolerance,
            &format!("relative error {relative:.2e} of {tolerance:.0e}"),
        );
    }
}

pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

pub fn matvec(weight: &[f64], x: &[f64]) -> Vec<f64> {
    let mut products = vec![0.0; weight.len() / x.len()];
    in_parallel(&mut products, |chunk, values| {
        let rows = weight[chunk * CHUNK * x.len()..].chunks_exact(x.len());
        values.iter_mut().zip(rows).for_each(|(value, row)| *value = dot(row, x));
    });
    products
}

pub fn normed(h: &[f64], gamma: &[f64], eps: f64) -> Vec<f64> {
    let scale = (dot(h, h) / h.len() as f64 + eps).sqrt().recip();
    h.iter().zip(gamma).map(|(h, g)| h * scale * g).collect()
}

pub fn silu_mul(pairs: &[f64]) -> Vec<f64> {
    pairs.chunks_exact(2).map(|p| p[0] / (1.0 + (-p[0]).exp()) * p[1]).collect()
}

pub fn rotated(x: &[f64], cos: &[f64], sin: &[f64]) -> Vec<f64> {
    let half = x.len() / 2;
    let low = (0..half).map(|i| x[i] * cos[i] - x[half + i] * sin[i]);
    low.chain((0..half).map(|i| x[half + i] * cos[i] + x[i] * sin[i])).collect()
}

/// Cosines and sines of `len` positions, rounded to FP32.
pub fn rope_tables(len: usize, head_dim: usize) -> (Vec<f64>, Vec<f64>) {
    let half = head_dim / 2;
    let angle =
        |at: usize| (at / half) as f64 * 1e6f64.powf(-2.0 * (at % half) as f64 / head_dim as f64);
    (0..len * half)
        .map(|at| (f64::from(angle(at).cos() as f32), f64::from(angle(at).sin() as f32)))
        .unzip()
}

/// (ids, weights), most likely first, lower id first among equals.
pub fn chosen(logits: &[f64], top_k: usize, renormalise: bool) -> (Vec<usize>, Vec<f64>) {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    let largest = logits[order[0]];
    let total: f64 = logits.iter().map(|l| (l - largest).exp()).sum();
    order.truncate(top_k);
    let mut weights: Vec<f64> = order.iter().map(|&e| (logits[e] - largest).exp()).collect();
    let by = if renormalise { weights.iter().sum() } else { total };
    weights.iter_mut().for_each(|w| *w /= by);
    (order, weights)
}

/// A struct as words, since only plain numbers are uploaded.
pub fn words<T: Copy>(value: &T) -> Vec<u64> {
    // SAFETY: both structs this is used for are `repr(C)` without padding, a multiple of 8 bytes
    // long and aligned to more than that.
    unsafe {
        std::slice::from_raw_parts(std::ptr::from_ref(value).cast::<u64>(), size_of::<T>() / 8)
    }
    .to_vec()
}
