//! `coordinator collect`: CSV and report from the store alone.

use std::path::PathBuf;

use bakeoff_proto::SweepName;
use clap::Args;

use super::shared;
use crate::collect::read;
use crate::connect::{OpenStore, StoreOnly};
use crate::error::Error;
use crate::results;
use crate::sweep::{self, ReportRules};
use bakeoff_proto::exit::Exit;

/// Make CSV and report of a sweep from what is in the store
///
/// Needs neither queue nor workers. Twice gives identical bytes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coordinator collect my-sweep --store s3://results
  coordinator collect my-sweep --store ./bakeoff-results --prune
  coordinator collect my-sweep --store s3://results --rules sweep.toml")]
pub struct CollectArgs {
    /// The sweep's name
    name: SweepName,
    #[command(flatten)]
    connect: StoreOnly,
    /// Remove files that no record names (they are listed otherwise)
    #[arg(long)]
    prune: bool,
    /// Judge by the [report] rules of this sweep file, not by those frozen with the plan
    #[arg(long, value_name = "SWEEP")]
    rules: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub async fn execute(args: CollectArgs) -> Result<Exit, Error> {
    let store = args.connect.store().await?;
    if args.prune {
        prune(&store, &args.name).await?;
    }
    let rules = match &args.rules {
        Some(path) => Some(sweep::load(path)?.report),
        None => None,
    };
    print_summary(&store, &args.name, rules, args.json).await
}

/// Collects, stores CSV and report, and prints where they are.
pub async fn finish(store: &OpenStore, name: &SweepName, json: bool) -> Result<Exit, Error> {
    print_summary(store, name, None, json).await
}

async fn print_summary(
    store: &OpenStore,
    name: &SweepName,
    rules: Option<ReportRules>,
    json: bool,
) -> Result<Exit, Error> {
    let (collected, outputs) = results::collect_by_rules(&store.objects, name, rules).await?;
    let counts = collected.counts();
    let locations: Vec<_> = outputs.iter().map(|output| store.location(&output.key)).collect();
    let (csv, report) = (&locations[0], &locations[1]);
    if json {
        shared::print_json(&serde_json::json!({
            "sweep": name, "counts": counts, "csv": csv, "report": report,
            "orphans": collected.orphans, "problems": collected.problems,
        }))?;
        return Ok(shared::ending(&counts));
    }
    shared::warn(&collected.problems);
    if !collected.orphans.is_empty() {
        for orphan in &collected.orphans {
            eprintln!("no record names {}", store.location(orphan));
        }
        eprintln!("remove such files with: coordinator collect {name} --prune");
    }
    println!("{name}: {counts}");
    for row in &collected.rows {
        if let Some(failure) = collected.failure(row) {
            println!(
                "  {} {} run {}: {} ({}): {}",
                row.model,
                row.prompt_id,
                row.run,
                row.status.as_str(),
                failure.kind.as_str(),
                failure.message.lines().next().unwrap_or_default()
            );
        }
    }
    if counts.failed + counts.cancelled > 0 {
        println!("take these up again with: coordinator retry {name}, or coordinator run --retry");
    }
    println!("report  {report}\ncsv     {csv}");
    Ok(shared::ending(&counts))
}

async fn prune(store: &OpenStore, name: &SweepName) -> Result<(), Error> {
    let collected = read::collect(store.objects.clone(), name).await?;
    let pending = collected.counts().pending;
    if pending > 0 {
        return Err(Error::Input(format!(
            "{name} has {}: a file that no record names may be about to get one; \
             prune once the sweep has ended, or cancel it with `coordinator cancel {name}`",
            shared::count(pending, "pending cell", "pending cells")
        )));
    }
    for key in &collected.orphans {
        bakeoff_transport::store::remove(store.objects.as_ref(), key).await?;
        eprintln!("removed {}", store.location(key));
    }
    Ok(())
}
