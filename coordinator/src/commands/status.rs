//! `coordinator status`: which sweeps there are and how far they are.

use bakeoff_proto::SweepName;
use clap::Args;
use object_store::ObjectStore;

use super::shared;
use crate::collect::{Counts, read};
use crate::connect::Connections;
use crate::error::Error;
use bakeoff_proto::exit::Exit;

/// List the sweeps in the store, or the jobs of one
///
/// With --nats, also what is queued and being worked on.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coordinator status --store s3://results
  coordinator status my-sweep --nats nats://broker:4222 --store s3://results --json")]
pub struct StatusArgs {
    /// The sweep's name; without it, all sweeps are listed
    name: Option<SweepName>,
    #[command(flatten)]
    connect: Connections,
    /// Print one JSON value
    #[arg(long)]
    json: bool,
}

pub async fn execute(args: StatusArgs) -> Result<Exit, Error> {
    let store = args.connect.store().await?;
    match &args.name {
        None => list(&args, store.objects.as_ref()).await,
        Some(name) => one(&args, store.objects.as_ref(), name).await,
    }
}

async fn list(args: &StatusArgs, store: &dyn ObjectStore) -> Result<Exit, Error> {
    let mut sweeps = Vec::new();
    for name in read::sweeps(store).await? {
        let plan = read::plan(store, &name).await?;
        let counts = Counts::of(read::statuses(store, &plan).await?);
        sweeps.push((name, counts));
    }
    if args.json {
        let list: Vec<_> = sweeps
            .iter()
            .map(|(name, counts)| serde_json::json!({"sweep": name, "counts": counts}))
            .collect();
        shared::print_json(&list)?;
    } else if sweeps.is_empty() {
        println!("the store holds no sweep");
    } else {
        for (name, counts) in sweeps {
            println!("{name}  {counts}");
        }
    }
    Ok(Exit::Success)
}

async fn one(args: &StatusArgs, store: &dyn ObjectStore, name: &SweepName) -> Result<Exit, Error> {
    let plan = read::plan(store, name).await?;
    let statuses = read::statuses(store, &plan).await?;
    let counts = Counts::of(statuses.iter().copied());
    let (queued, stats) = if args.connect.has_queue() {
        let queue = args.connect.queue().await?;
        (Some(queue.open_jobs(&plan.sweep_id()).await?), Some(queue.stats(&[]).await?))
    } else {
        (None, None)
    };
    let mut rest = statuses.as_slice();
    let mut jobs = Vec::new();
    for planned in &plan.jobs {
        let (own, others) = rest.split_at(planned.job.cells.len());
        rest = others;
        let in_queue = queued.as_ref().map(|ids| ids.contains(&planned.job.id));
        jobs.push((planned, Counts::of(own.iter().copied()), in_queue));
    }
    if args.json {
        let list: Vec<_> = jobs
            .iter()
            .map(|(planned, counts, in_queue)| {
                serde_json::json!({
                    "job": planned.job.id, "model": planned.model_name,
                    "engine": planned.job.engine.engine, "counts": counts, "in_queue": in_queue,
                })
            })
            .collect();
        let queue = stats.map(|s| {
            serde_json::json!({
                "pending": s.pending, "in_flight": s.in_flight,
                "waiting_workers": s.waiting_workers,
            })
        });
        shared::print_json(&serde_json::json!({
            "sweep": name, "counts": counts, "jobs": list, "queue": queue,
        }))?;
        return Ok(Exit::Success);
    }
    println!("{name}: {counts}");
    for (planned, counts, in_queue) in jobs {
        let queued = if in_queue == Some(true) { ", in the queue" } else { "" };
        println!("  {}  {counts}{queued}", planned.model_name);
    }
    if let Some(stats) = stats {
        println!(
            "queue: {} waiting, {} being worked on, {} idle workers",
            stats.pending, stats.in_flight, stats.waiting_workers
        );
    }
    Ok(Exit::Success)
}
