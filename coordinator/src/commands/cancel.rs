//! `coordinator cancel`: stop a sweep; what is done stays.

use bakeoff_proto::SweepName;
use clap::Args;

use super::shared;
use crate::collect::read;
use crate::connect::Connections;
use crate::error::Error;
use crate::publish;
use bakeoff_proto::exit::Exit;

/// Drop a sweep's queued jobs and stop those being worked on
///
/// Finished cells stay. `coordinator retry` takes the rest up again.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  coordinator cancel my-sweep --nats nats://broker:4222 --store s3://results")]
pub struct CancelArgs {
    /// The sweep's name
    name: SweepName,
    #[command(flatten)]
    connect: Connections,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub async fn execute(args: CancelArgs) -> Result<Exit, Error> {
    let store = args.connect.store().await?;
    let plan = read::plan(store.objects.as_ref(), &args.name).await?;
    let queue = args.connect.queue().await?;
    let now = jiff::Timestamp::now();
    let cancelled = publish::cancel(queue.as_ref(), store.objects.as_ref(), &plan, now).await?;
    if args.json {
        shared::print_json(&serde_json::json!({"sweep": args.name, "cancelled": cancelled}))?;
        return Ok(Exit::Success);
    }
    println!("{}: {} cancelled", args.name, shared::count(cancelled, "cell", "cells"));
    if cancelled > 0 {
        println!("take them up again with: coordinator retry {}", args.name);
    }
    Ok(Exit::Success)
}
