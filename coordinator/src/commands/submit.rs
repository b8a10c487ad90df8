//! `coordinator submit`: freeze the plan and put its jobs on the queue.

use std::path::PathBuf;

use bakeoff_proto::SweepName;
use clap::Args;

use super::shared;
use crate::connect::{Connections, QueueArgs};
use crate::error::Error;
use crate::publish::{self, Frozen, Scope};
use bakeoff_proto::exit::Exit;

/// Put a sweep's jobs on the queue, and return
///
/// Doing it twice changes nothing: jobs that are queued stay, cells with a record are not done
/// again. Another plan under the same name is refused.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coordinator submit sweep.toml --nats nats://broker:4222 --store s3://results
  coordinator submit sweep.toml --as second-try        the same sweep, afresh")]
pub struct SubmitArgs {
    /// Sweep file (TOML)
    sweep: PathBuf,
    /// Take this name instead of the sweep's own
    #[arg(long = "as", value_name = "NAME")]
    rename: Option<SweepName>,
    #[command(flatten)]
    connect: Connections,
    #[command(flatten)]
    queue: QueueArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub async fn execute(args: SubmitArgs) -> Result<Exit, Error> {
    let sweep = shared::load_sweep(Some(&args.sweep), args.rename.as_ref())?;
    let store = args.connect.store().await?;
    let (mut plan, notes) = shared::make_plan(sweep, Some(store.objects.as_ref())).await?;
    shared::warn(&notes);
    let queue = args.connect.queue().await?;
    let frozen = publish::freeze(store.objects.as_ref(), &mut plan).await?;
    let settings = args.queue.settings();
    let outcome =
        publish::publish(queue.as_ref(), store.objects.as_ref(), &plan, &settings, Scope::Open)
            .await?;

    let name = &plan.sweep.name;
    if args.json {
        shared::print_json(&serde_json::json!({
            "sweep": name, "resumed": frozen == Frozen::Resumed,
            "cells": plan.cell_count(), "jobs": outcome,
        }))?;
        return Ok(Exit::Success);
    }
    let state = if frozen == Frozen::New { "new" } else { "resumed" };
    println!(
        "{name} ({state}): {} in {}: {} published, {} queued before, {} done, {} failed or \
        cancelled",
        shared::count(plan.cell_count(), "cell", "cells"),
        shared::count(plan.jobs.len(), "job", "jobs"),
        outcome.published,
        outcome.already_queued,
        outcome.done,
        outcome.ended,
    );
    if outcome.ended > 0 {
        println!("take the failed ones up again with: coordinator retry {name}");
    }
    println!("follow it with: coordinator watch {name}");
    Ok(Exit::Success)
}
