//! `coordinator retry`: failed and cancelled cells once more.

use bakeoff_proto::SweepName;
use clap::Args;

use super::shared;
use crate::collect::read;
use crate::connect::{Connections, QueueArgs};
use crate::error::Error;
use crate::publish::{self, Scope};
use bakeoff_proto::exit::Exit;

/// Queue the failed and cancelled cells of a sweep again
///
/// Their jobs get a new generation; the earlier failures stay in the store as history. Finished
/// cells are not done again.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  coordinator retry my-sweep --nats nats://broker:4222 --store s3://results")]
pub struct RetryArgs {
    /// The sweep's name
    name: SweepName,
    #[command(flatten)]
    connect: Connections,
    #[command(flatten)]
    queue: QueueArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub async fn execute(args: RetryArgs) -> Result<Exit, Error> {
    let store = args.connect.store().await?;
    let plan = read::plan(store.objects.as_ref(), &args.name).await?;
    let queue = args.connect.queue().await?;
    let settings = args.queue.settings();
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
