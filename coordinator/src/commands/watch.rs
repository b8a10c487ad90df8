//! `coordinator watch`: live progress until the sweep has ended, then CSV and report.

use bakeoff_proto::SweepName;
use clap::Args;

use super::{collect, shared};
use crate::collect::read;
use crate::connect::Connections;
use crate::error::Error;
use crate::watch::{self, WatchOptions, Watched};
use bakeoff_proto::exit::Exit;

/// Show a sweep's progress until it has ended, then collect it
///
/// A line per job on a terminal, log lines otherwise. Ctrl-C stops watching; the sweep goes on.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coordinator watch my-sweep --nats nats://broker:4222 --store s3://results
  coordinator watch my-sweep --json > result.json")]
pub struct WatchArgs {
    /// The sweep's name
    name: SweepName,
    #[command(flatten)]
    connect: Connections,
    /// Print one JSON object when the sweep has ended
    #[arg(long)]
    json: bool,
}

pub async fn execute(args: WatchArgs) -> Result<Exit, Error> {
    let store = args.connect.store().await?;
    let plan = read::plan(store.objects.as_ref(), &args.name).await?;
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
