//! Times the decode kernels one by one at the models' shapes, on a GPU: microseconds and GB/s of
//! weights or cache read, against the read bandwidth measured first. Weights are random and rotate
//! through more memory than the L2 cache holds.

use std::{process::ExitCode, sync::Arc};

use bakeoff_kernels::{
    DecodeState, DevicePtr, KernelError, Launcher,
    attention::DecodeAttention,
    linear::{LinearResidual, NormGateUp, NormLinear},
    moe::{ExpertDown, ExpertGateUp, Router},
    util::{FillRandom, measure_read_bandwidth},
};
use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DevicePtr as _, sys::CUevent_flags};
use half::bf16;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Launches of one measurement.
const LAUNCHES: usize = 48;
const ARENA_VALUES: usize = 8 << 30;

struct Bench {
    stream: Arc<CudaStream>,
    launcher: Launcher,
    /// Random BF16 values, read as weights, caches and inputs alike.
    arena: CudaSlice<bf16>,
    scratch: CudaSlice<f32>,
    bandwidth_gb_s: f64,
}

impl Bench {
    fn new() -> Outcome<Self> {
        let stream = CudaContext::new(0)?.new_stream()?;
        let launcher = Launcher::new(stream.clone())?;
        let mut bandwidth = measure_read_bandwidth(&launcher, 8 << 30, 9)?;
        bandwidth.sort_by(f64::total_cmp);
        // SAFETY: filled below, before anything reads it.
        let arena = unsafe { stream.alloc::<bf16>(ARENA_VALUES)? };
        let bench = Self {
            scratch: stream.alloc_zeros(1 << 20)?,
            arena,
            bandwidth_gb_s: bandwidth[bandwidth.len() / 2],
            launcher,
            stream,
        };
        FillRandom {
            out: bench.weights(0, 0),
            count: ARENA_VALUES as u64,
            first: 0,
            seed: 1,
            mean: 0.0,
            deviation: 0.02,
        }
        .launch(&bench.launcher)?;
        println!("read bandwidth {:.0} GB/s (median of 9)", bench.bandwidth_gb_s);
        Ok(bench)
    }

    /// The `turn`-th piece of `values` weights.
    fn weights(&self, turn: usize, values: usize) -> DevicePtr<bf16> {
        let turns = ARENA_VALUES.checked_div(values).unwrap_or(1);
        let base = DevicePtr::new(self.arena.device_ptr(&self.stream).0).expect("an allocation");
        base.offset(turn % turns * values)
    }

    /// One of sixteen FP32 buffers of 65,536 values.
    fn buffer(&self, at: usize) -> DevicePtr<f32> {
        let base = DevicePtr::new(self.scratch.device_ptr(&self.stream).0).expect("an allocation");
        base.offset(at << 16)
    }

    /// Median over five rounds of the time of one launch.
    fn time(
        &self,
        name: &str,
        bytes: usize,
        launch: impl Fn(usize) -> Result<(), KernelError>,
    ) -> Outcome<()> {
        let context = self.stream.context();
        let mut micros = Vec::new();
        for round in 0..6 {
            let start = context.new_event(Some(CUevent_flags::CU_EVENT_DEFAULT))?;
            let end = context.new_event(Some(CUevent_flags::CU_EVENT_DEFAULT))?;
            start.record(&self.stream)?;
            for turn in 0..LAUNCHES {
                launch(round * LAUNCHES + turn)?;
            }
            end.record(&self.stream)?;
            let elapsed = f64::from(start.elapsed_ms(&end)?) * 1e3 / LAUNCHES as f64;
            if round > 0 {
                micros.push(elapsed);
            }
        }
        micros.sort_by(f64::total_cmp);
        let median = micros[micros.len() / 2];
        let rate = bytes as f64 / median / 1e3;
        println!(
            "{name:<44} {median:8.1} us {rate:6.0} GB/s {:5.1} %",
            rate / self.bandwidth_gb_s * 100.0
        );
        Ok(())
    }

    fn projections(
        &self,
        model: &str,
        hidden: u32,
        qkv: u32,
        heads_width: u32,
        inter: u32,
    ) -> Outcome<()> {
        let values = |rows: u32, columns: u32| rows as usize * columns as usize;
        let gamma = self.weights(0, 0);
        let n = values(qkv, hidden);
        self.time(&format!("{model} norm + QKV {qkv}x{hidden}"), 2 * n, |turn| {
            NormLinear {
                h: self.buffer(0),
                gamma,
                weight: self.weights(turn, n),
                bias: None,
                out: self.buffer(1),
                state: None,
                hidden,
                rows: qkv,
                eps: 1e-6,
            }
            .launch(&self.launcher)
        })?;
        for inner in [heads_width, inter] {
            let n = values(hidden, inner);
            self.time(&format!("{model} linear + residual {hidden}x{inner}"), 2 * n, |turn| {
                LinearResidual {
                    x: gamma,
                    weight: self.weights(turn, n),
                    h: self.buffer(2),
                    state: None,
                    inner,
                    hidden,
                }
                .launch(&self.launcher)
            })?;
        }
        let n = values(2 * inter, hidden);
        self.time(&format!("{model} norm + gate/up {inter}x{hidden}"), 2 * n, |turn| {
            NormGateUp {
                h: self.buffer(0),
                gamma,
                weight: self.weights(turn, n),
                out: self.buffer(3).cast(),
                state: None,
                hidden,
                inter,
                eps: 1e-6,
            }
            .launch(&self.launcher)
        })
    }

    fn attention(&self, model: &str, heads: u32, kv_heads: u32, position: u32) -> Outcome<()> {
        let state = DecodeState { position, cache_len: position + 1, ..Default::default() };
        let words =
            [state.seed, u64::from(state.position), 0, u64::from(state.cache_len) << 32, 0, 0];
        let state = self.stream.clone_htod(&words)?;
        let state_at = DevicePtr::new(state.device_ptr(&self.stream).0).expect("an allocation");
        let cache = (position as usize + 1) * kv_heads as usize * 128;
        self.time(
            &format!("{model} attention {heads}/{kv_heads} at {position}"),
            4 * cache,
            |turn| {
                DecodeAttention {
                    qkv: self.buffer(0),
                    q_norm: None,
                    k_norm: None,
                    cos: self.weights(0, 0).cast(),
                    sin: self.weights(0, 0).cast(),
                    k_cache: self.weights(2 * turn, cache),
                    v_cache: self.weights(2 * turn + 1, cache),
                    out: self.buffer(4).cast(),
                    state: state_at,
                    prefetch: None,
                    prefetch_bytes: 0,
                    heads,
                    kv_heads,
                    head_dim: 128,
                    eps: 1e-6,
                    scale: 0.088,
                }
                .launch(&self.launcher)
            },
        )
    }

    fn experts(&self, model: &str) -> Outcome<()> {
        let (hidden, inter, experts, top_k) = (2048, 768, 128, 8);
        let one = hidden as usize * inter as usize;
        let gamma = self.weights(0, 0);
        self.time(&format!("{model} router"), 2 * 128 * 2048, |turn| {
            Router {
                h: self.buffer(0),
                gamma,
                weight: self.weights(turn, 128 * 2048),
                logits: self.buffer(5),
                state: None,
                prefetch: None,
                prefetch_bytes: 0,
                hidden,
                experts,
                eps: 1e-6,
            }
            .launch(&self.launcher)
        })?;
        self.time(&format!("{model} choice + gate/up, 8 of 128"), 2 * 8 * 2 * one, |turn| {
            ExpertGateUp {
                h: self.buffer(0),
                gamma,
                logits: self.buffer(5),
                weight: self.weights(turn, 128 * 2 * one),
                out: self.buffer(6),
                state: None,
                hidden,
                inter,
                experts,
                top_k,
                eps: 1e-6,
            }
            .launch(&self.launcher)
        })?;
        self.time(&format!("{model} down + combine, 8 of 128"), 2 * 8 * one, |turn| {
            ExpertDown {
                act: self.buffer(6),
                logits: self.buffer(5),
                weight: self.weights(turn, 128 * one),
                h: self.buffer(7),
                ids: None,
                weights: None,
                expert_loads: None,
                state: None,
                hidden,
                inter,
                experts,
                top_k,
                renormalise: 1,
            }
            .launch(&self.launcher)
        })
    }
}

fn all() -> Outcome<()> {
    let bench = Bench::new()?;
    bench.projections("7B", 3584, 4608, 3584, 18_944)?;
    bench.projections("Coder-32B", 5120, 7168, 5120, 27_648)?;
    bench.projections("Qwen3-32B", 5120, 10_240, 8192, 25_600)?;
    for position in [127, 8192] {
        bench.attention("7B", 28, 4, position)?;
        bench.attention("Coder-32B", 40, 8, position)?;
        bench.attention("Qwen3-32B", 64, 8, position)?;
        bench.attention("30B-A3B", 32, 4, position)?;
    }
    bench.experts("30B-A3B")
}

fn main() -> ExitCode {
    match all() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
