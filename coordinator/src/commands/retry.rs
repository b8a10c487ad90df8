//! `coordinator retry`: failed and cancelled cells once more.

use bakeoff_proto::SweepName;
use clap::Args;

use super::here::{HereArgs, Work};
use super::{collect, shared};
use crate::collect::read;
use crate::connect::{Connections, QueueArgs};
use crate::error::Error;
use crate::publish::{self, Scope};
use crate::watch::Watched;
use bakeoff_proto::exit::Exit;

/// Do the failed and cancelled cells of a sweep again
///
/// With --nats they are queued, for the workers there; without, they are done on this machine, and
/// the sweep is collected.
/// Their jobs get a new generation; the earlier failures stay in the store as history. Finished
/// cells are not done again.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coordinator retry my-sweep                       a sweep in ./bakeoff-results, on this machine
  coordinator retry my-sweep --nats nats://broker:4222 --store s3://results")]
pub struct RetryArgs {
    /// The sweep's name
    name: SweepName,
    #[command(flatten)]
    here: HereArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    // Last: their headings would go on to options that follow.
    #[command(flatten)]
    connect: Connections,
    #[command(flatten)]
    queue: QueueArgs,
}

pub async fn execute(args: RetryArgs) -> Result<Exit, Error> {
    let store = args.connect.existing_store().await?;
    let plan = read::plan(store.objects.as_ref(), &args.name).await?;
    let settings = args.queue.settings();
    if !args.connect.has_queue() {
        args.here.check()?;
        shared::check_folders(&plan.sweep)?;
        let work = Work { settings, scope: Scope::Retry };
        return match work.here(args.here, &store, &plan).await? {
            Watched::Finished => collect::finish(&store, &args.name, args.json).await,
            Watched::Interrupted => {
                eprintln!("stopped; what is done is kept. Go on with the same command");
                Ok(Exit::Failure)
            }
        };
    }
    let queue = args.connect.queue().await?;
    let outcome =
        publish::publish(queue.as_ref(), store.objects.as_ref(), &plan, &settings, Scope::Retry)
            .await?;
    if args.json {
        shared::print_json(&serde_json::json!({"sweep": args.name, "jobs": outcome}))?;
        return Ok(Exit::Success);
    }
    println!(
        "{}: {} published, {} still queued or being worked on, {} done",
        args.name,
        shared::count(outcome.published, "job", "jobs"),
        outcome.already_queued,
        outcome.done
    );
    println!("follow it with: coordinator watch {}", args.name);
    Ok(Exit::Success)
}
