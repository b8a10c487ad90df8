//! `coordinator watch`: live progress until the sweep has ended, then CSV and report.

use bakeoff_proto::SweepName;
use clap::Args;

use super::{collect, shared};
use crate::collect::{Counts, read};
use crate::connect::{Connections, OpenStore};
use crate::error::Error;
use crate::plan::Plan;
use crate::watch::{self, WatchOptions, Watched};
use bakeoff_proto::exit::Exit;

/// Show a sweep's progress until it has ended, then collect it
///
/// A line per job on a terminal, log lines otherwise. Ctrl-C stops watching; the sweep goes on.
/// Without --nats there is nothing to watch: a sweep that has ended is collected.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coordinator watch my-sweep --nats nats://broker:4222 --store s3://results
  coordinator watch my-sweep --json > result.json")]
pub struct WatchArgs {
    /// The sweep's name
    name: SweepName,
    /// Print one JSON object when the sweep has ended
    #[arg(long)]
    json: bool,
    // Last: their headings would go on to options that follow.
    #[command(flatten)]
    connect: Connections,
}

pub async fn execute(args: WatchArgs) -> Result<Exit, Error> {
    let store = args.connect.existing_store().await?;
    let plan = read::plan(store.objects.as_ref(), &args.name).await?;
    if !args.connect.has_queue() {
        return without_broker(&args, &store, &plan).await;
    }
    let queue = args.connect.queue().await?;
    let options = WatchOptions { republish: None, embedded: false };
    let objects = store.objects.clone();
    match watch::watch(queue, objects, &plan, &options, shared::interrupted()).await {
        Watched::Finished => collect::finish(&store, &args.name, args.json).await,
        Watched::Interrupted => {
            eprintln!(
                "stopped watching; the sweep goes on. Watch it again with: coordinator watch {}",
                args.name
            );
            Ok(Exit::Failure)
        }
    }
}

/// A sweep of this machine: its own `coordinator run` shows how it goes, and nobody else knows.
async fn without_broker(args: &WatchArgs, store: &OpenStore, plan: &Plan) -> Result<Exit, Error> {
    let name = &args.name;
    let counts = Counts::of(read::statuses(store.objects.as_ref(), plan).await?);
    if counts.pending == 0 {
        return collect::finish(store, name, args.json).await;
    }
    Err(Error::Input(format!(
        "{name}: {counts}, and no broker to watch: go on with it on this machine with `coordinator \
        run SWEEP.toml`, which shows its progress, or name the broker with --nats"
    )))
}
