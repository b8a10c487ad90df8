//! `coordinator run`: everything in one command.

use std::path::PathBuf;

use bakeoff_proto::SweepName;
use clap::Args;

use super::here::{HereArgs, Work};
use super::{collect, shared};
use crate::collect::Counts;
use crate::collect::read;
use crate::connect::{Connections, QueueArgs};
use crate::error::Error;
use crate::publish::{self, Scope};
use crate::watch::Watched;
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
    /// Also take up cells that failed or were cancelled before; the demo's are taken up with
    /// `coordinator retry demo`
    #[arg(long, requires = "sweep")]
    retry: bool,
    #[command(flatten)]
    here: HereArgs,
    /// Print one JSON object at the end
    #[arg(long)]
    json: bool,
    // Last: their headings would go on to options that follow.
    #[command(flatten)]
    connect: Connections,
    #[command(flatten)]
    queue: QueueArgs,
}

pub async fn execute(args: RunArgs) -> Result<Exit, Error> {
    let sweep = shared::load_sweep(args.sweep.as_deref(), args.rename.as_ref())?;
    let embedded = !args.connect.has_queue();
    if embedded {
        args.here.check()?;
        shared::check_folders(&sweep)?;
    }
    let store = args.connect.store().await?;
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
    let scope = if args.retry { Scope::Retry } else { Scope::Open };
    let work = Work { settings: args.queue.settings(), scope };
    let watched = if embedded {
        work.here(args.here, &store, &plan).await?
    } else {
        work.at_broker(args.connect.queue().await?, &store, &plan).await?
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
