//! `coordinator run`: everything in one command.

use std::path::PathBuf;
use std::sync::Arc;

use bakeoff_proto::SweepName;
use bakeoff_transport::queue::JobQueue;
use clap::Args;

use super::{collect, shared};
use crate::collect::Counts;
use crate::collect::read;
use crate::connect::{Connections, OpenStore, QueueArgs};
use crate::error::Error;
use crate::plan::Plan;
use crate::publish::{self, Scope};
use crate::watch::{self, WatchOptions, Watched};
use bakeoff_proto::exit::Exit;

/// Plan a sweep, run it, and make its report
///
/// Without --nats everything happens in this process: a queue, a worker on this machine, and
/// results under ./bakeoff-results. Without a sweep file the demo runs: three tiny models that are
/// part of the program. What is done already is not done again.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coordinator run                                  the demo
  coordinator run --as fresh                       the demo once more, under another name
  coordinator run sweep.toml --store ./results     a sweep on this machine
  coordinator run sweep.toml --nats nats://broker:4222 --store s3://results")]
pub struct RunArgs {
    /// Sweep file (TOML); the demo if left out
    sweep: Option<PathBuf>,
    /// Take this name instead of the sweep's own
    #[arg(long = "as", value_name = "NAME")]
    rename: Option<SweepName>,
    /// Also take up cells that failed or were cancelled before
    #[arg(long)]
    retry: bool,
    #[command(flatten)]
    connect: Connections,
    #[command(flatten)]
    queue: QueueArgs,
    /// Without --nats: auto, cpu or cuda:N; auto is the first GPU, if this build can use one and
    /// one is there
    #[cfg(feature = "embedded")]
    #[arg(long, env = "BAKEOFF_DEVICE", default_value = "auto")]
    device: bakeoff_worker::engine_models::DeviceChoice,
    /// Print one JSON object at the end
    #[arg(long)]
    json: bool,
}

pub async fn execute(args: RunArgs) -> Result<Exit, Error> {
    let sweep = shared::load_sweep(args.sweep.as_deref(), args.rename.as_ref())?;
    let embedded = !args.connect.has_queue();
    if embedded {
        shared::check_folders(&sweep)?;
    }
    let store = args.connect.store_or_local().await?;
    let (mut plan, notes) = shared::make_plan(sweep, Some(store.objects.as_ref())).await?;
    shared::warn(&notes);
    publish::freeze(store.objects.as_ref(), &mut plan).await?;

    let statuses = read::statuses(store.objects.as_ref(), &plan).await?;
    let counts = Counts::of(statuses);
    let open = counts.pending + if args.retry { counts.failed + counts.cancelled } else { 0 };
    let name = &plan.sweep.name;
    if open == 0 {
        if !args.json {
            println!(
                "{} of {} already done; for a fresh run take another name: --as NAME",
                counts.done, counts.cells
            );
        }
        return collect::finish(&store, name, args.json).await;
    }
    if counts.done > 0 {
        eprintln!("{} of {} already done", counts.done, counts.cells);
    }
    let watched = if embedded {
        run_here(&args, &store, &plan).await?
    } else {
        let queue = args.connect.queue().await?;
        publish_and_watch(&args, queue, &store, &plan, false).await?
    };
    match watched {
        Watched::Finished => collect::finish(&store, name, args.json).await,
        Watched::Interrupted if embedded => {
            eprintln!("stopped; what is done is kept. Go on with the same command");
            Ok(Exit::Failure)
        }
        Watched::Interrupted => {
            eprintln!(
                "stopped watching; the sweep goes on. Watch it again with: coordinator watch {name}"
            );
            Ok(Exit::Failure)
        }
    }
}

async fn publish_and_watch(
    args: &RunArgs,
    queue: Arc<dyn JobQueue>,
    store: &OpenStore,
    plan: &Plan,
    embedded: bool,
) -> Result<Watched, Error> {
    let settings = args.queue.settings();
    let scope = if args.retry { Scope::Retry } else { Scope::Open };
    publish::publish(queue.as_ref(), store.objects.as_ref(), plan, &settings, scope).await?;
    let options = WatchOptions { republish: Some(settings), embedded };
    let objects = store.objects.clone();
    Ok(watch::watch(queue, objects, plan, &options, shared::interrupted()).await)
}

#[cfg(feature = "embedded")]
async fn run_here(args: &RunArgs, store: &OpenStore, plan: &Plan) -> Result<Watched, Error> {
    crate::embedded::with_worker(store.objects.clone(), args.device, |queue| {
        publish_and_watch(args, queue, store, plan, true)
    })
    .await
}

#[cfg(not(feature = "embedded"))]
async fn run_here(_args: &RunArgs, _store: &OpenStore, _plan: &Plan) -> Result<Watched, Error> {
    Err(Error::Input(
        "this coordinator was built without a worker inside: name a broker with --nats, and start \
        workers beside it"
            .to_owned(),
    ))
}
