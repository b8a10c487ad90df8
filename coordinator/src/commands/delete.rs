//! `coordinator delete`: remove a sweep from the store.

use std::io::{BufRead, IsTerminal, Write};

use bakeoff_proto::{SweepName, names};
use bakeoff_transport::store;
use clap::Args;
use object_store::ObjectStore;

use super::shared;
use crate::collect::read;
use crate::connect::Connections;
use crate::error::Error;
use bakeoff_proto::exit::Exit;

/// Remove a sweep and all its results from the store
///
/// Asks first, unless --yes is given. With --nats, a sweep that still has jobs in the queue is
/// refused: cancel it before.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  coordinator delete my-sweep --store s3://results --yes")]
pub struct DeleteArgs {
    /// The sweep's name
    name: SweepName,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    // Last: their headings would go on to options that follow.
    #[command(flatten)]
    connect: Connections,
}

pub async fn execute(args: DeleteArgs) -> Result<Exit, Error> {
    let store = args.connect.existing_store().await?;
    let name = &args.name;
    let keys = read::list(store.objects.as_ref(), name.as_str()).await?;
    if keys.is_empty() {
        // Fails, and says which sweeps there are.
        read::plan(store.objects.as_ref(), name).await?;
    }
    let plan_key = names::plan_key(name);
    if !keys.contains(&plan_key) {
        return Err(Error::Input(format!(
            "`{name}` is not a sweep: there is no {}, so nothing was removed; check the name and \
             --store",
            store.location(&plan_key)
        )));
    }
    if args.connect.has_queue() {
        let plan = read::plan(store.objects.as_ref(), name).await?;
        let open = args.connect.queue().await?.open_jobs(&plan.sweep_id()).await?.len();
        if open > 0 {
            return Err(Error::Input(format!(
                "{name} has {} in the queue: cancel it first with `coordinator cancel {name}`",
                shared::count(open, "job", "jobs"),
            )));
        }
    }
    let files = keys.len();
    if !args.yes && !confirmed(name, files, &store.location(name.as_str()))? {
        eprintln!("nothing removed");
        return Ok(Exit::Failure);
    }
    remove(store.objects.as_ref(), name, keys.into_iter().collect()).await?;
    if args.json {
        shared::print_json(&serde_json::json!({"sweep": name, "removed": files}))?;
    } else {
        println!("{name}: {} removed", shared::count(files, "file", "files"));
    }
    Ok(Exit::Success)
}

/// The plan goes last: whoever is interrupted can delete the rest by the same command.
async fn remove(
    objects: &dyn ObjectStore,
    name: &SweepName,
    mut keys: Vec<String>,
) -> Result<(), Error> {
    let plan = names::plan_key(name);
    keys.sort_by_key(|key| *key == plan);
    for key in keys {
        store::remove(objects, &key).await?;
    }
    Ok(())
}

fn confirmed(name: &SweepName, files: usize, location: &str) -> Result<bool, Error> {
    if !std::io::stdin().is_terminal() {
        return Err(Error::Input(format!(
            "deleting {name} needs a confirmation, and there is no terminal to ask on: add --yes"
        )));
    }
    eprint!("remove {} of {name} at {location}? [y/N] ", shared::count(files, "file", "files"));
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}
