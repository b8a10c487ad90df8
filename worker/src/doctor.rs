//! What works on this machine, what does not, and what to do about it.

use std::fmt;

use bakeoff_engine::host;
use bakeoff_transport::args::{NatsArgs, StoreArgs};
use bakeoff_transport::queue::nats::NatsQueue;
use bakeoff_transport::store;
use serde::Serialize;

use crate::telemetry::Gpu;

/// The outcome of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    Works,
    /// Not asked for, so not looked at.
    NotAsked,
    Broken,
}

/// One line of the report.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    pub what: &'static str,
    pub health: Health,
    pub detail: String,
}

/// Everything that was looked at.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub build: &'static str,
    pub findings: Vec<Finding>,
}

impl Report {
    pub fn healthy(&self) -> bool {
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

/// Looks at the machine, and at the broker and the store if they are set.
pub async fn examine(nats: &NatsArgs, store: &StoreArgs, gpu_index: Option<u32>) -> Report {
    let findings =
        vec![machine(), gpu(gpu_index), broker(nats).await, object_store(store).await, hub()];
    Report { build: crate::cli::BUILD, findings }
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

fn gpu(index: Option<u32>) -> Finding {
    let gpu = Gpu::open(index);
    let (health, detail) = match (gpu.describe(), gpu.note()) {
        (Some((name, driver, total)), _) => (
            Health::Works,
            format!("{name}, driver {driver}, {:.1} GB, telemetry by NVML", total as f64 / 1e9),
        ),
        (None, note) if index.is_none() => (
            Health::NotAsked,
            format!("{}; set --device cuda:0 for a GPU", note.unwrap_or_default()),
        ),
        (None, note) => (
            Health::Broken,
            format!(
                "{}; install the NVIDIA driver, or give the container the GPU (nvidia.com/gpu)",
                note.unwrap_or_else(|| "NVML tells neither name nor memory".into())
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
        Err(error) => Finding { what, health: Health::Broken, detail: error.to_string() },
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
        Err(error) => Finding { what, health: Health::Broken, detail: error.to_string() },
    }
}

/// The hub is asked only when a model needs it: here is told what it would be asked with.
fn hub() -> Finding {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let endpoint = std::env::var("HF_ENDPOINT").unwrap_or_else(|_| "https://huggingface.co".into());
    let detail = if set("HF_HUB_OFFLINE") {
        "offline: models come from the cache only (HF_HUB_OFFLINE is set)".to_owned()
    } else {
        let token = if set("HF_TOKEN") { "a token is set" } else { "no token (HF_TOKEN)" };
        format!("{endpoint}, {token}; asked when a job needs it")
    };
    Finding { what: "hub", health: Health::NotAsked, detail }
}
