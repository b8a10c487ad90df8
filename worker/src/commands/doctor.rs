//! `worker doctor`: what works on this machine, what does not, and what to do about it.

use std::fmt;
use std::io::Write;
use std::time::Duration;

use bakeoff_engine::host;
use bakeoff_engine::source::hub::probe::{Answer, probe};
use bakeoff_engine::source::hub::{HubSettings, cache_room};
use bakeoff_proto::exit::Exit;
use bakeoff_transport::args::{NatsArgs, StoreArgs};
use bakeoff_transport::error::describe;
use bakeoff_transport::queue::nats::NatsQueue;
use bakeoff_transport::store;
use clap::Args;
use serde::Serialize;

use super::device::DeviceArgs;
use crate::error::CommandError;
use crate::telemetry::Gpu;

const AFTER_HELP: &str = "\
Examples:
  worker doctor
  worker doctor --nats nats://broker:4222 --store s3://results --json

Exit code 1 when something that was asked for does not work.";

/// Show what works on this machine, what does not, and what to do about it
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct DoctorArgs {
    #[command(flatten)]
    device: DeviceArgs,
    /// One JSON object instead of lines
    #[arg(long)]
    json: bool,
    // Last: their headings would go on to options that follow.
    #[command(flatten)]
    nats: NatsArgs,
    #[command(flatten)]
    store: StoreArgs,
}

/// A hub that needs longer is as good as silent.
const HUB_TIMEOUT: Duration = Duration::from_secs(5);

/// The outcome of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Health {
    Works,
    /// Not asked for, so not looked at.
    NotAsked,
    Broken,
}

/// One line of the report.
#[derive(Debug, Clone, Serialize)]
struct Finding {
    what: &'static str,
    health: Health,
    detail: String,
}

/// Everything that was looked at.
#[derive(Debug, Clone, Serialize)]
struct Report {
    build: &'static str,
    findings: Vec<Finding>,
}

impl Report {
    fn healthy(&self) -> bool {
        self.findings.iter().all(|finding| finding.health != Health::Broken)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "worker {}", self.build)?;
        for Finding { what, health, detail } in &self.findings {
            let mark = match health {
                Health::Works => "ok  ",
                Health::NotAsked => "-   ",
                Health::Broken => "FAIL",
            };
            writeln!(f, "{mark}  {what}: {detail}")?;
        }
        Ok(())
    }
}

pub(super) async fn execute(args: DoctorArgs) -> Result<Exit, CommandError> {
    let report = examine(&args, &HubSettings::from_env()).await;
    let text = if args.json {
        let json = serde_json::to_string_pretty(&report).expect("texts become JSON");
        format!("{json}\n")
    } else {
        report.to_string()
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(if report.healthy() { Exit::Success } else { Exit::Failure })
}

/// Looks at the machine and the hub, and at the broker and the store if they are set.
async fn examine(args: &DoctorArgs, hub_settings: &HubSettings) -> Report {
    let (broker, store, hub) =
        tokio::join!(broker(&args.nats), object_store(&args.store), hub(hub_settings));
    let gpu = gpu(args.device.device.gpu_index());
    let findings = vec![machine(), gpu, broker, store, hub, model_cache(hub_settings)];
    Report { build: bakeoff_version::BUILD, findings }
}

fn machine() -> Finding {
    let memory = host::memory_bytes().map_or_else(
        || "memory unknown".to_owned(),
        |bytes| format!("{:.1} GB of memory", bytes as f64 / 1e9),
    );
    Finding {
        what: "machine",
        health: Health::Works,
        detail: format!("{}, {memory}", host::cpu_name()),
    }
}

/// The GPU asked for; without one, what NVML knows of the first.
fn gpu(asked: Option<u32>) -> Finding {
    let gpu = Gpu::open(asked.or(Some(0)));
    let seen = gpu.describe().map(|(name, driver, total)| {
        format!("{name}, driver {driver}, {:.1} GB", total as f64 / 1e9)
    });
    let note = || gpu.note().unwrap_or_else(|| "NVML reports neither name nor memory".into());
    let (health, detail) = match (seen, asked) {
        (Some(seen), None) => {
            (Health::NotAsked, format!("{seen}: not used; set --device cuda:0 to use it"))
        }
        (None, None) => {
            (Health::NotAsked, format!("none used ({}); the worker runs on the CPU", note()))
        }
        (Some(seen), Some(index)) if !cfg!(feature = "cuda") => (
            Health::Broken,
            format!(
                "{seen}, but this worker was built without CUDA: take a build with `--features \
                 cuda`, or --device cpu instead of cuda:{index}"
            ),
        ),
        (Some(seen), Some(_)) => (Health::Works, format!("{seen}, telemetry by NVML")),
        (None, Some(_)) => (
            Health::Broken,
            format!(
                "{}; install the NVIDIA driver, or give the container the GPU (nvidia.com/gpu)",
                note()
            ),
        ),
    };
    Finding { what: "gpu", health, detail }
}

async fn broker(args: &NatsArgs) -> Finding {
    let what = "nats";
    if args.nats.is_none() {
        let detail = "not set; give --nats or NATS_URL to check it".to_owned();
        return Finding { what, health: Health::NotAsked, detail };
    }
    match NatsQueue::connect(args).await {
        Ok(queue) => {
            let detail = format!("{}, nats-server {}", args.redacted_url(), queue.server_version());
            Finding { what, health: Health::Works, detail }
        }
        Err(error) => Finding { what, health: Health::Broken, detail: describe(&error) },
    }
}

async fn object_store(args: &StoreArgs) -> Finding {
    let what = "store";
    let Some(url) = &args.store else {
        let detail = "not set; give --store or BAKEOFF_STORE to check it".to_owned();
        return Finding { what, health: Health::NotAsked, detail };
    };
    match store::open(args).await {
        Ok(_) => Finding { what, health: Health::Works, detail: format!("{url} answers") },
        Err(error) => Finding { what, health: Health::Broken, detail: describe(&error) },
    }
}

/// Jobs whose model has a hub id need it, unless the cache holds the model.
async fn hub(settings: &HubSettings) -> Finding {
    let what = "hub";
    let endpoint = settings.shown_endpoint();
    if settings.offline {
        let detail = "not asked: HF_HUB_OFFLINE is set, models come from folders and the cache";
        return Finding { what, health: Health::NotAsked, detail: detail.to_owned() };
    }
    let (health, detail) = match probe(settings, HUB_TIMEOUT).await {
        Ok(Answer::Account(name)) => (Health::Works, format!("{endpoint}, as {name}")),
        Ok(Answer::Anonymous) => {
            (Health::Works, format!("{endpoint}, without a token; gated models need HF_TOKEN"))
        }
        Ok(Answer::NoAccounts) => {
            (Health::Works, format!("{endpoint}, which does not say whose token HF_TOKEN is"))
        }
        Err(error) => (Health::Broken, describe(&error)),
    };
    Finding { what, health, detail }
}

fn model_cache(settings: &HubSettings) -> Finding {
    let what = "model cache";
    let folder = settings.cache_dir.display();
    let (health, detail) = match cache_room(settings) {
        _ if settings.offline && settings.cache_dir.is_dir() => {
            (Health::Works, format!("{folder}, only read (HF_HUB_OFFLINE)"))
        }
        _ if settings.offline => (
            Health::NotAsked,
            format!(
                "{folder} does not exist and HF_HUB_OFFLINE is set: no model with a hub id will be \
                 found; fill it, or set HF_HOME to the folder that is filled"
            ),
        ),
        Ok(bytes) => (Health::Works, format!("{folder}, {:.1} GB free", bytes as f64 / 1e9)),
        Err(error) => (Health::Broken, describe(&error)),
    };
    Finding { what, health, detail }
}
