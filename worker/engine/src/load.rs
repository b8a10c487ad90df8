//! Loading: from a model's files to an engine that generates.

use std::{
    ops::ControlFlow,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use bakeoff_model::{Dtype, EngineKind, EngineSettings, ledger::{DeviceMemory, DoesNotFit, Ledger}};
use bakeoff_proto::{FailureKind};
use candle_core::Device;

use crate::{
    Engine, EngineError, bandwidth, config::ModelConfig, host, reference::Reference,
    source::ModelFiles, stock::Stock, weights::Weights,
};

/// The device to load on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    #[default]
    Cpu,
    Cuda(usize),
}

impl DeviceChoice {
    /// The first GPU, if this build can use one and one is there; else the CPU.
    pub fn auto() -> Self {
        #[cfg(feature = "cuda")]
        if cudarc::driver::CudaContext::device_count().is_ok_and(|count| count > 0) {
            return Self::Cuda(0);
        }
        Self::Cpu
    }

    /// What reading this device's memory can reach, GB/s (10^9 bytes), measured once in the process: before a
    /// model is loaded, since a GPU is read over 4 GiB of its own. `None`, and a warning, where a GPU cannot
    /// be opened or has no room.
    pub fn read_bandwidth_gb_s(self, settings: &EngineSettings) -> Option<f64> {
        static MEASURED: Mutex<Vec<(DeviceChoice, f64)>> = Mutex::new(Vec::new());
        let mut measured = MEASURED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, gb_s)) = measured.iter().find(|(device, _)| *device == self) {
            return Some(*gb_s);
        }
        let measuring = match self {
            Self::Cpu => Ok(bandwidth::measure_host().gb_s),
            Self::Cuda(ordinal) => gpu_bandwidth_gb_s(ordinal, settings),
        };
        match measuring {
            Ok(gb_s) => {
                measured.push((self, gb_s));
                Some(gb_s)
            }
            Err(error) => {
                tracing::warn!(%error, "the read bandwidth could not be measured: no roofline");
                None
            }
        }
    }
}

#[cfg(feature = "cuda")]
fn gpu_bandwidth_gb_s(ordinal: usize, settings: &EngineSettings) -> Result<f64, EngineError> {
    let gpu = crate::fused::device::Gpu::open(ordinal, settings)?;
    crate::fused::measure::read_bandwidth_gb_s(&gpu)
}

#[cfg(not(feature = "cuda"))]
fn gpu_bandwidth_gb_s(_ordinal: usize, _settings: &EngineSettings) -> Result<f64, EngineError> {
    Err(unsupported("this build has no CUDA: it measures no GPU"))
}

/// What a load is told beside the model's files.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    pub settings: EngineSettings,
    pub device: DeviceChoice,
    /// Longest sequence the cells of this job need (prompt and output): the key and value cache is
    /// allocated for it.
    pub context: usize,
}

/// Bytes that reached their final place, of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadProgress {
    pub bytes: u64,
    pub total_bytes: u64,
}

/// Where progress goes; a `Break` abandons the load.
pub type OnLoad<'a> = &'a mut dyn FnMut(LoadProgress) -> ControlFlow<()>;

/// A loaded model and how long that took.
pub struct Loaded {
    pub engine: Box<dyn Engine>,
    /// Weights from storage to ready, in seconds, the device synchronised.
    pub load_s: f64,
    /// Bytes of weights as stored.
    pub stored_bytes: u64,
    pub ledger: Ledger,
    /// What identifies the weights in a fingerprint.
    pub weights_sha256: String,
    /// Settings that changed arithmetic, each `on`, `off` or `n/a`, as this engine honoured them.
    pub effective: Effective,
}

/// Settings as they took effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    pub engine: &'static str,
    pub device: String,
    pub driver: String,
    pub flash_attn: &'static str,
    pub tf32: &'static str,
    pub reduced_precision_reduction: &'static str,
    pub cuda_graph: &'static str,
}

/// Loads a model on a device. The ledger is computed and checked before a byte of weights is read.
///
/// # Errors
/// A bad configuration or bad weights, a model that does not fit, a device or engine that this build
/// does not have, a device that refuses, `on_progress` breaking.
pub fn load(
    files: &ModelFiles,
    options: &LoadOptions,
    on_progress: OnLoad<'_>,
) -> Result<Loaded, EngineError> {
    let config = ModelConfig::parse(&files.config)?;
    if options.context == 0 {
        return Err(EngineError::new(
            FailureKind::InvalidRequest,
            "the context to load for is 0 tokens: ask for prompt and output together",
        ));
    }
    // A sequence beyond the model's context is refused when it is asked for, which leaves the
    // others of the job alone.
    let context = options.context.min(config.shape.max_context);
    #[cfg(feature = "cuda")]
    if let Some(loaded) = load_fused(&config, files, options, context, on_progress)? {
        return Ok(loaded);
    }
    let target = Target::open(options)?;
    let settings = target.effective_settings(&options.settings);
    let ledger = Ledger::plan(&config.shape, &settings, context, 1, target.memory);
    ledger.fits()?;

    let weights =
        Weights::open(&files.weights, settings.load_format, &files.config, &config.shape)?;
    let started = Instant::now();
    let (dtype, device) = (settings.dtype, &target.device);
    let engine: Box<dyn Engine> = match target.engine {
        Implementation::Reference => {
            Box::new(Reference::load(&config, &weights, dtype, device, context, on_progress)?)
        }
        Implementation::Stock => {
            Box::new(Stock::load(&config, &weights, dtype, device, context, on_progress)?)
        }
    };
    device.synchronize()?;
    let load_s = started.elapsed().as_secs_f64();
    tracing::info!(model = files.id, engine = engine.name(), load_s, "model loaded");
    Ok(Loaded {
        effective: target.effective(&settings),
        engine,
        load_s,
        stored_bytes: weights.stored_bytes(),
        ledger,
        weights_sha256: weights.digest().to_owned(),
    })
}

/// Loads on the fused engine where it is asked for, or where `auto` finds that it can run the model.
#[cfg(feature = "cuda")]
fn load_fused(
    config: &ModelConfig,
    files: &ModelFiles,
    options: &LoadOptions,
    context: usize,
    on_progress: OnLoad<'_>,
) -> Result<Option<Loaded>, EngineError> {
    use crate::fused;
    let settings = &options.settings;
    let DeviceChoice::Cuda(ordinal) = options.device else { return Ok(None) };
    let gpu = match settings.engine {
        EngineKind::Reference | EngineKind::Stock => return Ok(None),
        EngineKind::Auto if fused::supports(config, settings).is_err() => return Ok(None),
        EngineKind::Auto => match fused::device::Gpu::open(ordinal, settings) {
            Err(error) if error.kind == FailureKind::Unsupported => return Ok(None),
            gpu => gpu?,
        },
        EngineKind::Fused => {
            fused::supports(config, settings)?;
            fused::device::Gpu::open(ordinal, settings)?
        }
    };
    fused::load(gpu, config, files, settings, context, on_progress).map(Some)
}

/// The engines that `auto` and the names in a sweep resolve to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Implementation {
    Reference,
    Stock,
}

/// Where a model is going to run, and by what.
struct Target {
    device: Device,
    device_name: String,
    /// Empty on a CPU.
    driver: String,
    memory: Option<DeviceMemory>,
    engine: Implementation,
}

impl Target {
    fn open(options: &LoadOptions) -> Result<Self, EngineError> {
        let engine = match options.settings.engine {
            EngineKind::Auto | EngineKind::Reference => Implementation::Reference,
            EngineKind::Stock => Implementation::Stock,
            EngineKind::Fused => {
                return Err(unsupported(
                    "the engine `fused` needs a build with the feature `cuda` and a CUDA device: \
                     use `auto` or `reference`, or a worker built with `--features cuda`",
                ));
            }
        };
        match options.device {
            DeviceChoice::Cpu => Ok(Self {
                device: Device::Cpu,
                device_name: host::cpu_name(),
                driver: String::new(),
                memory: host::memory_bytes().map(DeviceMemory::host),
                engine,
            }),
            #[cfg(feature = "cuda")]
            DeviceChoice::Cuda(index) => {
                use crate::fused::device::{device_memory, device_names, open_device};
                let device = open_device(index, &options.settings)?;
                let (device_name, driver) = device_names(&device)?;
                let memory = Some(device_memory(&device)?);
                Ok(Self { device, device_name, driver, memory, engine })
            }
            #[cfg(not(feature = "cuda"))]
            DeviceChoice::Cuda(index) => Err(unsupported(format!(
                "the device `cuda:{index}` needs a build with the feature `cuda`: use `cpu`, or a \
                 worker built with `--features cuda`"
            ))),
        }
    }

    /// The settings with those off that have no meaning here, so that nothing is planned for them.
    fn effective_settings(&self, settings: &EngineSettings) -> EngineSettings {
        EngineSettings { flash_attn: false, cuda_graph: false, ..settings.clone() }
    }

    fn effective(&self, settings: &EngineSettings) -> Effective {
        let on_off = |applies: bool, on: bool| match (applies, on) {
            (false, _) => "n/a",
            (true, true) => "on",
            (true, false) => "off",
        };
        let (cuda, bf16) = (self.device.is_cuda(), settings.dtype == Dtype::Bf16);
        Effective {
            engine: match self.engine {
                Implementation::Reference => "reference",
                Implementation::Stock => "stock",
            },
            device: self.device_name.clone(),
            driver: self.driver.clone(),
            flash_attn: "n/a",
            tf32: on_off(cuda && !bf16, settings.tf32),
            reduced_precision_reduction: on_off(cuda && bf16, settings.reduced_precision_reduction),
            cuda_graph: "n/a",
        }
    }
}

impl From<DoesNotFit> for EngineError {
    fn from(error: DoesNotFit) -> Self {
        Self::new(FailureKind::DoesNotFit, error.to_string())
    }
}

fn unsupported(message: impl Into<String>) -> EngineError {
    EngineError::new(FailureKind::Unsupported, message)
}
