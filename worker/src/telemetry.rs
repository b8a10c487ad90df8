//! GPU and process, sampled ten times a second while a cell runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bakeoff_engine::load::DeviceChoice;
use bakeoff_proto::{names, telemetry};
use nvml_wrapper::Nvml;
use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};

use crate::host;

const INTERVAL: Duration = Duration::from_millis(100);

/// The GPU's counters, or why there are none.
pub enum Gpu {
    Nvml { nvml: Box<Nvml>, index: u32 },
    Absent { reason: String },
}

impl Gpu {
    /// The counters of a device that is used.
    pub fn of(device: DeviceChoice) -> Self {
        Self::open(device.gpu_index())
    }

    /// `index` is `None` on a worker that runs on the CPU.
    pub fn open(index: Option<u32>) -> Self {
        let Some(index) = index else {
            return Self::Absent { reason: "the worker runs on the CPU".into() };
        };
        match Nvml::init() {
            Ok(nvml) => match nvml.device_by_index(index).map(|_| ()) {
                Ok(()) => Self::Nvml { nvml: Box::new(nvml), index },
                Err(error) => Self::Absent { reason: format!("NVML has no GPU {index}: {error}") },
            },
            Err(error) => Self::Absent { reason: format!("NVML could not be loaded: {error}") },
        }
    }

    /// Why there are no counters, if there are none.
    pub fn note(&self) -> Option<String> {
        match self {
            Self::Nvml { .. } => None,
            Self::Absent { reason } => Some(reason.clone()),
        }
    }

    /// Name, driver and total bytes, for class and `doctor`.
    pub fn describe(&self) -> Option<(String, String, u64)> {
        let Self::Nvml { nvml, index } = self else { return None };
        let device = nvml.device_by_index(*index).ok()?;
        let driver = nvml.sys_driver_version().ok()?;
        Some((device.name().ok()?, driver, device.memory_info().ok()?.total))
    }

    /// The class of jobs that this machine takes beside `any`.
    pub fn class(&self) -> String {
        match self.describe() {
            Some((name, ..)) => names::class_token(&name),
            None => names::CPU_CLASS.to_owned(),
        }
    }

    /// What the GPU does at this moment, and which it is; `None` without one.
    pub fn load(&self) -> Option<(u32, GpuLoad)> {
        let Self::Nvml { index, .. } = self else { return None };
        let sample = self.sample();
        let load = GpuLoad {
            used_bytes: sample.used_bytes,
            utilization: sample.util_pct.map(|pct| f64::from(pct) / 100.0),
            power_w: sample.power_w,
            temperature_c: sample.temperature_c.map(f64::from),
        };
        Some((*index, load))
    }

    fn sample(&self) -> GpuSample {
        let Self::Nvml { nvml, index } = self else { return GpuSample::default() };
        let Ok(device) = nvml.device_by_index(*index) else { return GpuSample::default() };
        let memory = device.memory_info().ok();
        GpuSample {
            used_bytes: memory.as_ref().map(|m| m.used),
            free_bytes: memory.as_ref().map(|m| m.free),
            util_pct: device.utilization_rates().ok().map(|u| u.gpu),
            power_w: device.power_usage().ok().map(|mw| f64::from(mw) / 1e3),
            sm_mhz: device.clock_info(Clock::SM).ok(),
            memory_mhz: device.clock_info(Clock::Memory).ok(),
            temperature_c: device.temperature(TemperatureSensor::Gpu).ok(),
            throttled: device.current_throttle_reasons().ok().map(|reasons| {
                // The software power cap is normal operation of a card under load.
                reasons.intersects(
                    ThrottleReasons::HW_SLOWDOWN
                        | ThrottleReasons::SW_THERMAL_SLOWDOWN
                        | ThrottleReasons::HW_THERMAL_SLOWDOWN
                        | ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN,
                )
            }),
            energy_mj: device.total_energy_consumption().ok(),
        }
    }
}

/// A GPU's load for a dashboard, each figure as far as NVML reports it.
#[derive(Debug, Clone, Copy, Default)]
pub struct GpuLoad {
    pub used_bytes: Option<u64>,
    /// 0 to 1.
    pub utilization: Option<f64>,
    pub power_w: Option<f64>,
    pub temperature_c: Option<f64>,
}

#[derive(Debug, Clone, Copy, Default)]
struct GpuSample {
    used_bytes: Option<u64>,
    free_bytes: Option<u64>,
    util_pct: Option<u32>,
    power_w: Option<f64>,
    sm_mhz: Option<u32>,
    memory_mhz: Option<u32>,
    temperature_c: Option<u32>,
    throttled: Option<bool>,
    energy_mj: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    at_s: f64,
    gpu: GpuSample,
    rss_bytes: Option<u64>,
    cpu_s: f64,
}

/// A sampler at work; [`Sampler::finish`] ends it.
pub struct Sampler {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Sample>>,
}

impl Sampler {
    /// Samples on a thread of its own until [`Sampler::finish`].
    pub fn start(gpu: Arc<Gpu>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let started = Instant::now();
            let mut samples = Vec::new();
            loop {
                let last = stopped.load(Ordering::Acquire);
                samples.push(Sample {
                    at_s: started.elapsed().as_secs_f64(),
                    gpu: gpu.sample(),
                    rss_bytes: host::rss_bytes(),
                    cpu_s: host::cpu_seconds(),
                });
                if last {
                    return samples;
                }
                std::thread::park_timeout(INTERVAL);
            }
        });
        Self { stop, thread }
    }

    /// Takes a last sample and sums up.
    pub fn finish(self) -> Timeline {
        self.stop.store(true, Ordering::Release);
        self.thread.thread().unpark();
        Timeline { samples: self.thread.join().unwrap_or_default() }
    }
}

/// The samples of one cell.
pub struct Timeline {
    samples: Vec<Sample>,
}

/// Telemetry over one cell; `None` where nothing could be measured.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Summary {
    pub peak_memory_gb: Option<f64>,
    pub gpu_free_gb: Option<f64>,
    pub gpu_util_mean_pct: Option<f64>,
    pub power_mean_w: Option<f64>,
    pub energy_j: Option<f64>,
    pub sm_clock_min_mhz: Option<u32>,
    pub throttled: Option<bool>,
    pub host_rss_peak_gb: Option<f64>,
    pub host_cpu_s: Option<f64>,
}

impl Timeline {
    /// Maxima, means and differences over the samples.
    pub fn summary(&self) -> Summary {
        let gpu = || self.samples.iter().map(|sample| sample.gpu);
        let gb = |bytes: u64| bytes as f64 / 1e9;
        let ends = self.samples.first().zip(self.samples.last());
        let throttled: Vec<_> = gpu().filter_map(|g| g.throttled).collect();
        Summary {
            peak_memory_gb: gpu().filter_map(|g| g.used_bytes).max().map(gb),
            gpu_free_gb: self.samples.last().and_then(|last| last.gpu.free_bytes).map(gb),
            gpu_util_mean_pct: mean(gpu().filter_map(|g| g.util_pct).map(f64::from)),
            power_mean_w: mean(gpu().filter_map(|g| g.power_w)),
            energy_j: ends.and_then(|(first, last)| {
                let used = last.gpu.energy_mj?.checked_sub(first.gpu.energy_mj?)?;
                Some(used as f64 / 1e3)
            }),
            sm_clock_min_mhz: gpu().filter_map(|g| g.sm_mhz).min(),
            throttled: (!throttled.is_empty()).then(|| throttled.contains(&true)),
            host_rss_peak_gb: self.samples.iter().filter_map(|s| s.rss_bytes).max().map(gb),
            host_cpu_s: ends.map(|(first, last)| last.cpu_s - first.cpu_s),
        }
    }

    /// One line a sample; empty fields where nothing could be measured.
    pub fn csv(&self) -> String {
        telemetry::render(self.samples.iter().map(|Sample { at_s, gpu, rss_bytes, cpu_s }| {
            [
                format!("{at_s:.3}"),
                field(gpu.used_bytes),
                field(gpu.util_pct),
                field(gpu.power_w),
                field(gpu.sm_mhz),
                field(gpu.memory_mhz),
                field(gpu.temperature_c),
                field(gpu.throttled),
                field(gpu.energy_mj),
                field(*rss_bytes),
                format!("{cpu_s:.3}"),
            ]
        }))
    }
}

fn field(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0u32), |(sum, count), v| (sum + v, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_gpu_its_fields_are_empty_and_the_process_is_still_seen() {
        let gpu = Arc::new(Gpu::open(None));
        assert!(gpu.note().unwrap().contains("CPU"));
        let timeline = Sampler::start(gpu).finish();
        let summary = timeline.summary();
        assert_eq!((summary.peak_memory_gb, summary.throttled), (None, None));
        assert!(summary.host_cpu_s.is_some());
        let csv = timeline.csv();
        // What the report will draw of it.
        let table = telemetry::Table::parse(&csv);
        assert_eq!(table.series(telemetry::CPU_S).len(), csv.lines().count() - 1);
        assert!(table.series(telemetry::RSS_BYTES).iter().all(|(_, bytes)| *bytes > 0.0), "{csv}");
        assert_eq!(table.series(telemetry::GPU_USED_BYTES), []);
    }
}
