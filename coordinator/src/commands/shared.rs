//! What several commands share: reading a sweep, resolving its plan, ending with its counts.

use std::path::Path;

use bakeoff_model::ModelSource;
use bakeoff_proto::SweepName;
use object_store::ObjectStore;
use serde::Serialize;

use crate::collect::Counts;
use crate::error::Error;
use crate::plan::Plan;
use crate::sweep::{self, Sweep};
use crate::{hub, publish};
use bakeoff_proto::exit::Exit;

/// Reads a sweep, or the demo where there is none, under another name if one is given.
pub fn load_sweep(path: Option<&Path>, rename: Option<&SweepName>) -> Result<Sweep, Error> {
    let mut sweep = match path {
        Some(path) => sweep::load(path)?,
        None => sweep::demo(),
    };
    if let Some(name) = rename {
        sweep.rename(name.clone());
    }
    Ok(sweep)
}

/// The plan of a sweep, and what could not be resolved as sentences. With a store, a sweep that was
/// submitted before keeps the commits it was frozen with.
pub async fn make_plan(
    sweep: Sweep,
    store: Option<&dyn ObjectStore>,
) -> Result<(Plan, Vec<String>), Error> {
    let frozen = match store {
        Some(store) => publish::stored_plan(store, &sweep.name).await?,
        None => None,
    };
    let resolution = hub::resolve(&sweep, frozen.as_ref()).await?;
    Ok((Plan::build(sweep, resolution.revisions)?, resolution.notes))
}

/// For a run on this machine: every model folder must be here.
pub fn check_folders(sweep: &Sweep) -> Result<(), Error> {
    for model in &sweep.models {
        if let ModelSource::Path { path } = &model.source
            && !Path::new(path).join("config.json").is_file()
        {
            return Err(Error::Input(format!(
                "model folder {path} has no config.json: `path` names the folder of a checkpoint"
            )));
        }
    }
    Ok(())
}

/// Prints warnings to stderr.
pub fn warn(notes: &[String]) {
    for note in notes {
        eprintln!("warning: {note}");
    }
}

/// One JSON value on stdout.
pub fn print_json(value: &impl Serialize) -> Result<(), Error> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

/// How a finished sweep ends.
pub fn ending(counts: &Counts) -> Exit {
    if counts.failed + counts.cancelled > 0 { Exit::FailedCells } else { Exit::Success }
}

/// `1 job`, `2 jobs`.
pub fn count(n: usize, one: &str, many: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{n} {many}") }
}

/// Completes when the user presses Ctrl-C or the process receives SIGTERM.
pub async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        },
        // Without a handler the signal's default action applies, and ends the process.
        Err(_) => std::future::pending().await,
    }
}
