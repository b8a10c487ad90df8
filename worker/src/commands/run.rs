//! `worker run`: serve the queue.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bakeoff_proto::exit::Exit;
use bakeoff_proto::names;
use bakeoff_transport::args::{NatsArgs, StoreArgs};
use bakeoff_transport::queue::nats::NatsQueue;
use bakeoff_transport::queue::{JobQueue, QueueError};
use bakeoff_transport::store::{self, StoreError};
use clap::Args;
use object_store::ObjectStore;

use super::device::DeviceArgs;
use crate::engine_models::EngineModels;
use crate::error::CommandError;
use crate::host;
use crate::observe::{self, Health, Meters};
use crate::serve::{Leave, WorkerConfig, serve};
use crate::signals;
use crate::telemetry::Gpu;

const AFTER_HELP: &str = "\
Examples:
  worker run --nats nats://broker:4222 --store s3://results
  worker run --nats nats://127.0.0.1:4222 --store ./results --device cpu --idle-exit 60
  worker run --once        with NATS_URL and BAKEOFF_STORE set

A second SIGTERM (or Ctrl-C) hands the job back at the next token.

Exit codes:
  0  it left by itself: --once, --max-jobs or --idle-exit
  1  a failure that may pass, such as a generation that hangs
  2  usage, or a broker, store or address that cannot be used as given
  4  SIGTERM or SIGINT stopped it; what it held was finished or handed back";

/// Serve the queue until SIGTERM, which drains: the current cell is finished, the rest handed back
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct RunArgs {
    #[command(flatten)]
    device: DeviceArgs,
    /// Name of this worker in records and events [default: host name and process id]
    #[arg(long, env = "BAKEOFF_WORKER_NAME")]
    name: Option<String>,
    /// Serve this GPU class beside `any` [default: from the GPU's name; `cpu` without one]
    #[arg(long, env = "BAKEOFF_GPU_CLASS")]
    gpu_class: Option<String>,
    /// Leave after one job
    #[arg(long)]
    once: bool,
    /// Leave after so many jobs
    #[arg(long, env = "BAKEOFF_MAX_JOBS", conflicts_with = "once")]
    max_jobs: Option<u64>,
    /// Leave when no job came for so long
    #[arg(long, env = "BAKEOFF_IDLE_EXIT", value_name = "SECONDS")]
    idle_exit: Option<u64>,
    /// Seconds that the current cell may take to finish after SIGTERM
    #[arg(long, env = "BAKEOFF_GRACE", value_name = "SECONDS", default_value_t = 25)]
    grace: u64,
    /// Seconds between renewals of a lease: a quarter of the queue's ack_wait
    #[arg(
        long,
        env = "BAKEOFF_HEARTBEAT",
        value_name = "SECONDS",
        default_value = "15",
        value_parser = positive_seconds
    )]
    heartbeat: Duration,
    /// Seconds without any movement after which a job is given up
    #[arg(
        long,
        env = "BAKEOFF_STALL_LIMIT",
        value_name = "SECONDS",
        default_value = "120",
        value_parser = positive_seconds
    )]
    stall_limit: Duration,
    /// Serve /healthz, /readyz and /metrics here, such as 0.0.0.0:9090 [default: not at all]
    #[arg(long, env = "BAKEOFF_HEALTH_ADDR", value_name = "IP:PORT")]
    health_addr: Option<SocketAddr>,
    // Last: their headings would go on to options that follow.
    #[command(flatten)]
    nats: NatsArgs,
    #[command(flatten)]
    store: StoreArgs,
}

impl RunArgs {
    /// What can be said without a connection.
    fn check(&self) -> Result<(), CommandError> {
        if self.nats.servers().is_empty() {
            return Err(QueueError::NotSet.into());
        }
        if self.store.store.is_none() {
            return Err(StoreError::NotSet.into());
        }
        Ok(())
    }

    /// The worker's settings.
    fn config(&self) -> WorkerConfig {
        let device = self.device.device;
        let gpu = Arc::new(Gpu::of(device));
        let class = self.gpu_class.clone().unwrap_or_else(|| gpu.class());
        let name = self.name.clone();
        let name = name.unwrap_or_else(|| format!("{}-{}", host::name(), std::process::id()));
        let classes = vec![names::ANY_CLASS.to_owned(), class];
        let models = Arc::new(EngineModels::new(device));
        WorkerConfig {
            heartbeat: self.heartbeat,
            stall_limit: self.stall_limit,
            grace: Duration::from_secs(self.grace),
            max_jobs: if self.once { Some(1) } else { self.max_jobs },
            idle_exit: self.idle_exit.map(Duration::from_secs),
            meters: Arc::new(Meters::new(gpu.clone())),
            ..WorkerConfig::new(name, classes, models, gpu)
        }
    }
}

pub(super) async fn execute(args: RunArgs) -> Result<Exit, CommandError> {
    args.check()?;
    let mut stop = signals::stop_on_signals()
        .map_err(|source| CommandError::System { what: "cannot listen for signals", source })?;
    let config = args.config();
    let health = Health::start();
    if let Some(address) = args.health_addr {
        let address = observe::serve_http(address, health.clone(), config.meters.clone())?;
        tracing::info!(%address, "serving /healthz, /readyz and /metrics");
    }
    let (queue, store) = tokio::select! {
        connected = connect(&args) => connected?,
        () = signals::asked(&mut stop) => return Ok(Exit::Stopped),
    };
    tracing::info!(worker = config.name, classes = ?config.classes, "serving the queue");
    health.serves(queue.clone(), store.clone(), stop.clone());
    let served = serve(config, queue, store, stop).await?;
    tracing::info!(jobs = served.jobs, reason = served.reason.as_str(), "leaving");
    Ok(match served.reason {
        Leave::MaxJobs | Leave::Idle => Exit::Success,
        Leave::Stopped => Exit::Stopped,
    })
}

async fn connect(
    args: &RunArgs,
) -> Result<(Arc<dyn JobQueue>, Arc<dyn ObjectStore>), CommandError> {
    let queue = NatsQueue::connect(&args.nats).await?;
    let store = store::open(&args.store).await?;
    Ok((Arc::new(queue), store))
}

fn positive_seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds < 1e6 => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("expected a number of seconds above 0".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_positive_numbers() {
        assert_eq!(positive_seconds("0.25"), Ok(Duration::from_millis(250)));
        for bad in ["0", "-1", "nan", "inf", "x"] {
            assert!(positive_seconds(bad).is_err(), "{bad}");
        }
    }
}
