//! The worker's command line.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bakeoff_engine::load::DeviceChoice;
use bakeoff_engine::source::hub::HubSettings;
use bakeoff_proto::names;
use bakeoff_transport::args::{NatsArgs, StoreArgs};
use bakeoff_transport::logging::{self, LogArgs};
use bakeoff_transport::queue::nats::NatsQueue;
use bakeoff_transport::queue::{JobQueue, QueueError};
use bakeoff_transport::store::{self, StoreError};
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use tokio::sync::watch;

use crate::bench::{self, BenchArgs};
use crate::doctor::{self, Wanted};
use crate::engine_models::EngineModels;
use crate::fetch::{self, FetchArgs};
use crate::generate::{self, GenerateArgs};
use crate::observe::server::ListenError;
use crate::observe::{self, Health, Meters};
use crate::run::{Stop, WorkerConfig, WorkerError, serve};
use crate::telemetry::Gpu;

/// Serves a queue of generations on this machine.
#[derive(Debug, Parser)]
#[command(name = "worker", version = bakeoff_version::BUILD, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    logging: LogArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the queue until SIGTERM, which drains: the current cell is finished, the rest handed back
    #[command(after_help = "Examples:\n  \
        worker run --nats nats://broker:4222 --store s3://results\n  \
        worker run --nats nats://127.0.0.1:4222 --store ./results --device cpu --idle-exit 60\n  \
        worker run --once        with NATS_URL and BAKEOFF_STORE set\n\n\
        A second SIGTERM (or Ctrl-C) hands the job back at the next token.")]
    Run(RunArgs),
    /// Tell what works on this machine, what does not, and what to do about it
    #[command(after_help = "Examples:\n  \
        worker doctor\n  \
        worker doctor --nats nats://broker:4222 --store s3://results --json\n\n\
        Exit code 1 when something that was asked for does not work.")]
    Doctor(DoctorArgs),
    /// Measure the engine alone, every speed beside this machine's bound
    #[command(after_help = "Examples:\n  \
        worker bench --model Qwen/Qwen3-32B=deploy/models/Qwen3-32B.json --depth 0,8192\n  \
        worker bench --model ./my-model --engine fused,stock --json")]
    Bench(BenchArgs),
    /// One generation without a queue: text to stdout, figures to stderr
    #[command(after_help = generate::EXAMPLES)]
    Generate(Box<GenerateArgs>),
    /// Bring models from the hub into the cache (HF_HOME) ahead of the jobs that need them
    #[command(after_help = fetch::EXAMPLES)]
    Fetch(FetchArgs),
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  worker completions bash > /etc/bash_completion.d/worker")]
    Completions { shell: Shell },
}

#[derive(Debug, Args)]
struct RunArgs {
    #[command(flatten)]
    nats: NatsArgs,
    #[command(flatten)]
    store: StoreArgs,
    /// auto, cpu or cuda:N; auto is the first GPU, if this build can use one and one is there
    #[arg(long, env = "BAKEOFF_DEVICE", default_value = "auto", value_parser = parse_device)]
    device: DeviceChoice,
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
    #[arg(long, env = "BAKEOFF_HEARTBEAT", value_name = "SECONDS", default_value_t = 15.0, value_parser = positive_seconds)]
    heartbeat: f64,
    /// Seconds without any movement after which a job is given up
    #[arg(long, env = "BAKEOFF_STALL_LIMIT", value_name = "SECONDS", default_value_t = 120.0, value_parser = positive_seconds)]
    stall_limit: f64,
    /// Serve /healthz, /readyz and /metrics here, such as 0.0.0.0:9090 [default: not at all]
    #[arg(long, env = "BAKEOFF_HEALTH_ADDR", value_name = "IP:PORT")]
    health_addr: Option<SocketAddr>,
}

#[derive(Debug, Args)]
struct DoctorArgs {
    #[command(flatten)]
    nats: NatsArgs,
    #[command(flatten)]
    store: StoreArgs,
    /// auto, cpu or cuda:N; auto is the first GPU, if this build can use one and one is there
    #[arg(long, env = "BAKEOFF_DEVICE", default_value = "auto", value_parser = parse_device)]
    device: DeviceChoice,
    /// One JSON object instead of lines
    #[arg(long)]
    json: bool,
}

/// The command line, for completions and the configuration reference.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Parses, runs, and turns the outcome into an exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let _logging = logging::start("bakeoff-worker", cli.logging, "info,async_nats=off");
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = match cli.command {
        Command::Run(args) => runtime.block_on(run(args)),
        Command::Doctor(args) => runtime.block_on(run_doctor(args)),
        Command::Bench(args) => bench::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Generate(args) => Ok(generate::run(&args)),
        Command::Fetch(args) => fetch::run(&args),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut command(), "worker", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    };
    // A generation that hangs would keep the runtime, and so the process, alive.
    runtime.shutdown_background();
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        if error.chain().any(is_bad_input) { ExitCode::from(2) } else { ExitCode::FAILURE }
    })
}

/// As the coordinator has it: what the user can mend ends with 2.
fn is_bad_input(cause: &(dyn std::error::Error + 'static)) -> bool {
    let of_queue = |error: &QueueError| error.is_bad_input();
    cause.downcast_ref::<QueueError>().is_some_and(of_queue)
        || cause.downcast_ref::<StoreError>().is_some_and(StoreError::is_bad_input)
        || cause.is::<ListenError>()
        || cause.downcast_ref::<WorkerError>().is_some_and(|error| match error {
            WorkerError::Queue(error) => error.is_bad_input(),
            WorkerError::Hung(_) => false,
        })
}

async fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    if args.nats.nats.is_none() {
        eprintln!("error: no broker: set --nats or NATS_URL, such as nats://127.0.0.1:4222");
        return Ok(ExitCode::from(2));
    }
    if args.store.store.is_none() {
        eprintln!("error: no object store: set --store or BAKEOFF_STORE");
        return Ok(ExitCode::from(2));
    }
    let gpu = Arc::new(Gpu::open(gpu_index(args.device)));
    let class = args.gpu_class.clone().unwrap_or_else(|| gpu.class());
    let meters = Arc::new(Meters::new(gpu.clone()));
    let health = Health::start();
    if let Some(address) = args.health_addr {
        let address = observe::server::start(address, health.clone(), meters.clone())?;
        tracing::info!(%address, "serving /healthz, /readyz and /metrics");
    }
    let queue: Arc<dyn JobQueue> =
        Arc::new(NatsQueue::connect(&args.nats).await.context("the queue")?);
    let store = store::open(&args.store).await.context("the object store")?;
    let name =
        args.name.clone().unwrap_or_else(|| format!("{}-{}", host_name(), std::process::id()));
    let models = Arc::new(EngineModels::new(args.device));
    let mut config = WorkerConfig::new(name, vec![names::ANY_CLASS.into(), class], models, gpu);
    config.meters = meters;
    config.heartbeat = Duration::from_secs_f64(args.heartbeat);
    config.stall_limit = Duration::from_secs_f64(args.stall_limit);
    config.grace = Duration::from_secs(args.grace);
    config.max_jobs = if args.once { Some(1) } else { args.max_jobs };
    config.idle_exit = args.idle_exit.map(Duration::from_secs);
    tracing::info!(worker = config.name, classes = ?config.classes, "serving the queue");
    let stop = on_signals()?;
    health.serves(queue.clone(), store.clone(), stop.clone());
    let served = serve(config, queue, store, stop).await?;
    tracing::info!(jobs = served.jobs, "leaving");
    Ok(ExitCode::SUCCESS)
}

async fn run_doctor(args: DoctorArgs) -> anyhow::Result<ExitCode> {
    let report = doctor::examine(&Wanted {
        nats: &args.nats,
        store: &args.store,
        gpu_index: gpu_index(args.device),
        hub: HubSettings::from_env(),
    })
    .await;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    Ok(if report.healthy() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The first SIGTERM or SIGINT drains, the second stops at once.
fn on_signals() -> anyhow::Result<watch::Receiver<Stop>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    let (sender, receiver) = watch::channel(Stop::No);
    tokio::spawn(async move {
        for stop in [Stop::Drain, Stop::Now] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::warn!(?stop, "told to stop");
            sender.send_replace(stop);
        }
        sender.closed().await;
    });
    Ok(receiver)
}

/// This machine's name, or `worker` where it has none.
pub fn host_name() -> String {
    let name = std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty());
    name.or_else(|| std::fs::read_to_string("/etc/hostname").ok())
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "worker".to_owned())
}

/// The GPU's number, for NVML.
pub fn gpu_index(device: DeviceChoice) -> Option<u32> {
    match device {
        DeviceChoice::Cpu => None,
        DeviceChoice::Cuda(index) => u32::try_from(index).ok(),
    }
}

/// A device by name, `auto` resolved.
///
/// # Errors
/// Another name.
pub fn parse_device(text: &str) -> Result<DeviceChoice, String> {
    let expected = || format!("`{text}` is no device: use auto, cpu or cuda:N");
    match text.split_once(':') {
        None if text == "auto" => Ok(DeviceChoice::auto()),
        None if text == "cpu" => Ok(DeviceChoice::Cpu),
        None if text == "cuda" => Ok(DeviceChoice::Cuda(0)),
        Some(("cuda", index)) => index.parse().map(DeviceChoice::Cuda).map_err(|_| expected()),
        _ => Err(expected()),
    }
}

fn positive_seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds < 1e6 => Ok(seconds),
        _ => Err(format!("`{text}` is no number of seconds above 0")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn no_secret_shows_in_the_parsed_command_line() {
        let words = ["worker", "run", "--nats", "nats://u:hunter2@b", "--nats-password", "hunter2"];
        let shown = format!("{:?}", Cli::try_parse_from(words).unwrap());
        assert!(shown.contains("nats://b") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn devices_and_seconds_are_checked() {
        assert_eq!(parse_device("cuda:1"), Ok(DeviceChoice::Cuda(1)));
        assert!(parse_device("tpu").unwrap_err().contains("cuda:N"));
        assert!(positive_seconds("0").is_err() && positive_seconds("nan").is_err());
    }
}
