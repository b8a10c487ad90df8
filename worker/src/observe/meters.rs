//! Metrics in Prometheus's conventions: base units, `_total` for counters, label values that are
//! stable names (`labels`).
//!
//! The metrics are listed with their meaning in [`Meters::catalogue`], from which
//! deploy/CONFIGURATION.md is made. The generating thread touches them at every token, which is
//! cheap; what NVML knows is asked for at the scrape.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bakeoff_proto::JobPhase;
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::labels::{
    CellOutcome, GpuLabel, JobOutcome, ModelLabel, OutcomeLabel, Phase, PhaseLabel,
};
use crate::telemetry::Gpu;

type PerModel = Family<ModelLabel, Histogram, fn() -> Histogram>;
type PerGpu = Family<GpuLabel, Gauge<f64, AtomicU64>>;

/// The worker's metrics. Cheap to touch: the generating thread does so at every token.
pub struct Meters {
    registry: Registry,
    catalogue: Vec<(&'static str, &'static str)>,
    gpu: Arc<Gpu>,
    phase_now: AtomicU8,
    /// When the broker last confirmed the lease of the job in hand.
    lease: Mutex<Option<Instant>>,
    jobs: Family<OutcomeLabel, Counter>,
    cells: Family<OutcomeLabel, Counter>,
    redeliveries: Counter,
    phases: Family<PhaseLabel, Gauge>,
    lease_age: Gauge<f64, AtomicU64>,
    load: PerModel,
    ttft: PerModel,
    tpot: PerModel,
    tokens: Family<ModelLabel, Counter>,
    store_retries: Counter,
    gpu_memory: PerGpu,
    gpu_utilization: PerGpu,
    gpu_power: PerGpu,
    gpu_temperature: PerGpu,
}

impl Meters {
    /// All at zero.
    pub fn new(gpu: Arc<Gpu>) -> Self {
        let mut meters = Self {
            registry: Registry::default(),
            catalogue: Vec::new(),
            gpu,
            phase_now: AtomicU8::new(Phase::Idle as u8),
            lease: Mutex::new(None),
            jobs: Family::default(),
            cells: Family::default(),
            redeliveries: Counter::default(),
            phases: Family::default(),
            lease_age: Gauge::default(),
            load: Family::new_with_constructor(load_buckets),
            ttft: Family::new_with_constructor(ttft_buckets),
            tpot: Family::new_with_constructor(tpot_buckets),
            tokens: Family::default(),
            store_retries: Counter::default(),
            gpu_memory: Family::default(),
            gpu_utilization: Family::default(),
            gpu_power: Family::default(),
            gpu_temperature: Family::default(),
        };
        meters.register();
        meters
    }

    fn register(&mut self) {
        // What counts from zero is there from the start, so that a rate over it is never missing.
        for outcome in JobOutcome::ALL {
            drop(self.jobs.get_or_create(&OutcomeLabel { outcome: outcome.as_str() }));
        }
        for outcome in CellOutcome::ALL {
            drop(self.cells.get_or_create(&OutcomeLabel { outcome: outcome.as_str() }));
        }
        macro_rules! register {
            ($($name:literal, $help:literal, $field:ident;)+) => {$(
                // The encoder appends `_total` to counters.
                let stem = $name.strip_suffix("_total").unwrap_or($name);
                self.registry.register(stem, $help, self.$field.clone());
                self.catalogue.push(($name, $help));
            )+};
        }
        register! {
            "bakeoff_jobs_total", "Deliveries of jobs that ended, by outcome", jobs;
            "bakeoff_cells_total", "Cells that ended, by outcome", cells;
            "bakeoff_job_redeliveries_total",
                "Deliveries of a job that somebody had held before", redeliveries;
            "bakeoff_job_phase", "1 for the phase the worker is in", phases;
            "bakeoff_lease_age_seconds",
                "Since the broker last confirmed the lease in hand, 0 without a job", lease_age;
            "bakeoff_model_load_seconds", "Weights from storage to ready", load;
            "bakeoff_ttft_seconds", "Time to the first token, one observation a cell", ttft;
            "bakeoff_tpot_seconds", "Mean time per output token, one observation a cell", tpot;
            "bakeoff_tokens_generated_total", "Tokens of measured cells", tokens;
            "bakeoff_store_retries_total",
                "Operations tried again because the object store did not answer", store_retries;
            "bakeoff_gpu_memory_used_bytes", "Device memory in use, by NVML", gpu_memory;
            "bakeoff_gpu_utilization_ratio",
                "Share of the last sample period in which a kernel ran, by NVML", gpu_utilization;
            "bakeoff_gpu_power_watts", "Power drawn, by NVML", gpu_power;
            "bakeoff_gpu_temperature_celsius", "Temperature of the GPU, by NVML", gpu_temperature;
        }
        let build = [
            ("version", bakeoff_version::VERSION),
            ("commit", bakeoff_version::COMMIT.unwrap_or("unknown")),
        ];
        let help = "Always 1: version and commit of this worker";
        self.registry.register("bakeoff_build", help, Info::new(build.to_vec()));
        self.catalogue.push(("bakeoff_build_info", help));
    }

    /// Every metric's name and meaning, for the reference.
    pub fn catalogue(&self) -> &[(&'static str, &'static str)] {
        &self.catalogue
    }

    /// A job came in.
    pub fn delivered(&self, times: u64) {
        if times > 1 {
            self.redeliveries.inc();
        }
        self.lease_renewed();
    }

    /// The broker confirmed that the job is still ours.
    pub fn lease_renewed(&self) {
        *self.lease.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// The job in hand ended, one way or another.
    pub fn job_ended(&self, outcome: JobOutcome) {
        *self.lease.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.phase_now.store(Phase::Idle as u8, Ordering::Relaxed);
        self.jobs.get_or_create(&OutcomeLabel { outcome: outcome.as_str() }).inc();
    }

    /// A cell ended, one way or another.
    pub fn cell_ended(&self, outcome: CellOutcome) {
        self.cells.get_or_create(&OutcomeLabel { outcome: outcome.as_str() }).inc();
    }

    /// The job in hand is in this phase.
    pub fn phase(&self, phase: &JobPhase) {
        if let Some(phase) = Phase::of(phase) {
            self.phase_now.store(phase as u8, Ordering::Relaxed);
        }
    }

    /// A model was loaded in `load_s` seconds.
    pub fn model_loaded(&self, model: &str, load_s: f64) {
        self.load.get_or_create(&label(model)).observe(load_s);
    }

    /// Speed of a finished cell; `tpot` is undefined for one token.
    pub fn cell_timed(&self, model: &str, ttft: Duration, tpot: Option<Duration>) {
        self.ttft.get_or_create(&label(model)).observe(ttft.as_secs_f64());
        if let Some(tpot) = tpot {
            self.tpot.get_or_create(&label(model)).observe(tpot.as_secs_f64());
        }
    }

    /// The counter of a model's tokens, looked up once a generation.
    pub fn tokens_of(&self, model: &str) -> Counter {
        self.tokens.get_or_create_owned(&label(model))
    }

    /// An operation on the object store is tried again.
    pub fn store_retried(&self) {
        self.store_retries.inc();
    }

    /// All metrics as text. Asks NVML: may block for some milliseconds.
    pub fn render(&self) -> String {
        let now = self.phase_now.load(Ordering::Relaxed);
        for phase in Phase::ALL {
            let gauge = self.phases.get_or_create(&PhaseLabel { phase: phase.as_str() });
            gauge.set(i64::from(phase as u8 == now));
        }
        let lease = *self.lease.lock().unwrap_or_else(PoisonError::into_inner);
        self.lease_age.set(lease.map_or(0.0, |at| at.elapsed().as_secs_f64()));
        self.read_gpu();
        let mut out = String::new();
        text::encode(&mut out, &self.registry).expect("a string takes any text");
        out
    }

    fn read_gpu(&self) {
        let Some((index, load)) = self.gpu.load() else { return };
        let label = GpuLabel { gpu: index };
        let set = |family: &PerGpu, value: Option<f64>| {
            if let Some(value) = value {
                family.get_or_create(&label).set(value);
            }
        };
        set(&self.gpu_memory, load.used_bytes.map(|bytes| bytes as f64));
        set(&self.gpu_utilization, load.utilization);
        set(&self.gpu_power, load.power_w);
        set(&self.gpu_temperature, load.temperature_c);
    }
}

fn label(model: &str) -> ModelLabel {
    ModelLabel { model: model.to_owned() }
}

/// From a toy to 65 GB over a slow network disk.
fn load_buckets() -> Histogram {
    Histogram::new([0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0])
}

fn ttft_buckets() -> Histogram {
    Histogram::new([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0])
}

/// Dense between 2 and 50 ms, where 7B to 32B models decode on a GPU.
fn tpot_buckets() -> Histogram {
    Histogram::new([
        0.001, 0.002, 0.003, 0.004, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.1,
        0.25, 0.5, 1.0,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_is_what_is_shown() {
        let meters = Meters::new(Arc::new(Gpu::open(None)));
        assert!(meters.render().contains("bakeoff_job_phase{phase=\"idle\"} 1\n"));
        meters.delivered(1);
        meters.delivered(2);
        meters.phase(&JobPhase::Loading { bytes: 1, total_bytes: 2 });
        meters.model_loaded("o/m", 0.3);
        meters.tokens_of("o/m").inc_by(41);
        meters.cell_timed("o/m", Duration::from_millis(30), Some(Duration::from_millis(6)));
        meters.cell_timed("o/m", Duration::from_millis(30), None);
        meters.store_retried();
        let text = meters.render();
        for line in [
            "bakeoff_job_redeliveries_total 1",
            "bakeoff_job_phase{phase=\"idle\"} 0",
            "bakeoff_job_phase{phase=\"loading\"} 1",
            "bakeoff_model_load_seconds_bucket{le=\"0.5\",model=\"o/m\"} 1",
            "bakeoff_tokens_generated_total{model=\"o/m\"} 41",
            "bakeoff_ttft_seconds_count{model=\"o/m\"} 2",
            "bakeoff_tpot_seconds_count{model=\"o/m\"} 1",
            "bakeoff_store_retries_total 1",
            "bakeoff_jobs_total{outcome=\"done\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "no `{line}` in\n{text}");
        }
        assert!(!text.contains("bakeoff_lease_age_seconds 0.0\n"), "a job is held");
        assert!(!text.contains("gpu=\""), "there is no GPU");
        meters.job_ended(JobOutcome::HandedBack);
        let text = meters.render();
        assert!(text.contains("bakeoff_jobs_total{outcome=\"handed_back\"} 1\n"));
        assert!(text.contains("bakeoff_lease_age_seconds 0.0\n"), "{text}");
    }
}
