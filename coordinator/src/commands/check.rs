//! `coordinator check`: the sweep's execution checks over stored outputs.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use bakeoff_proto::{CellId, SweepName, names};
use bakeoff_transport::store;
use clap::Args;
use futures::{StreamExt, stream};

use super::shared;
use crate::check::run;
use crate::check::sandbox::{ACCEPT_FLAG, Sandbox};
use crate::check::score::count;
use crate::check::{CheckReport, Verdict};
use crate::collect::{Collected, Row, read};
use crate::connect::{OpenStore, StoreOnly};
use crate::error::Error;
use crate::sweep::{self, CheckSettings};
use bakeoff_proto::exit::Exit;

/// Execute stored outputs in a sandbox: do they compile, import, pass a test?
///
/// Runs what [checks] of the sweep asks for, and the test of every suite task. The sandbox
/// (bubblewrap) has no network, no files of this machine but its programs, and bounded CPU, time,
/// memory, processes, files and output. The results wait in the store for `collect`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coordinator check my-sweep --store s3://results
  coordinator check my-sweep --store s3://results --sweep with-checks.toml --again")]
pub struct CheckArgs {
    /// The sweep's name
    name: SweepName,
    #[command(flatten)]
    connect: StoreOnly,
    /// Take [checks] from this sweep file instead of the stored plan
    #[arg(long, value_name = "FILE")]
    sweep: Option<PathBuf>,
    /// Check outputs that have been checked before, too
    #[arg(long)]
    again: bool,
    /// Outputs checked at once; by default one per core
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// Run generated code without a sandbox, with all of your own rights
    #[arg(long)]
    unsandboxed_i_accept_the_risk: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub async fn execute(args: CheckArgs) -> Result<Exit, Error> {
    let store = args.connect.store().await?;
    let collected = Arc::new(read::collect(store.objects.clone(), &args.name).await?);
    let settings = settings(&args, &collected)?;
    let unsandboxed = args.unsandboxed_i_accept_the_risk;
    if unsandboxed {
        eprintln!("warning: {ACCEPT_FLAG}: generated code runs with all of your rights");
    }
    let open = settings.clone();
    let sandbox = tokio::task::spawn_blocking(move || Sandbox::open(&open, unsandboxed)).await??;
    let sandbox = Arc::new(sandbox);

    let mut reports: BTreeMap<CellId, CheckReport> = BTreeMap::new();
    let mut due = Vec::new();
    for row in collected.rows.iter().filter(|row| collected.outputs.contains_key(&row.cell)) {
        let known = if args.again { None } else { known(&collected, row) };
        match known {
            Some(report) => drop(reports.insert(row.cell.clone(), report)),
            None => due.push(row),
        }
    }
    let jobs = args.jobs.or_else(|| std::thread::available_parallelism().ok());
    let mut running = stream::iter(due.iter().map(|row| {
        let (row, settings) = ((*row).clone(), settings.clone());
        let (sandbox, collected) = (Arc::clone(&sandbox), Arc::clone(&collected));
        async move {
            tokio::task::spawn_blocking(move || check(&sandbox, &settings, &collected, &row))
                .await?
        }
    }))
    .buffer_unordered(jobs.map_or(1, NonZeroUsize::get));
    while let Some(report) = running.next().await {
        let report = report?;
        save(&store, &args.name, &report).await?;
        reports.insert(report.cell.clone(), report);
    }
    drop(running);
    print_summary(&args, &collected, &reports, due.len(), &sandbox)?;
    Ok(Exit::Success)
}

fn settings(args: &CheckArgs, collected: &Collected) -> Result<CheckSettings, Error> {
    let (settings, origin) = match &args.sweep {
        Some(path) => (sweep::load(path)?.checks, path.display().to_string()),
        None => (collected.plan.sweep.checks.clone(), format!("the plan of {}", args.name)),
    };
    settings.ok_or_else(|| {
        Error::Input(format!(
            "{origin} has no [checks], so nothing is executed: add [checks] to a sweep file and \
            name it with --sweep FILE"
        ))
    })
}

/// The stored checks of an output, if they are of this output and all of them ran: one that could
/// not run may do so now.
fn known(collected: &Collected, row: &Row) -> Option<CheckReport> {
    let document = &collected.record(row)?.document;
    let report =
        CheckReport::of_document(collected.checks.get(&row.cell)?, &document.sha256).ok()?;
    report.checks.iter().all(|check| check.verdict != Verdict::NotRun).then_some(report)
}

fn check(
    sandbox: &Sandbox,
    settings: &CheckSettings,
    collected: &Collected,
    row: &Row,
) -> Result<CheckReport, Error> {
    let prompts = &collected.plan.sweep.prompts;
    let prompt = prompts.iter().find(|prompt| prompt.id == row.prompt_id);
    let (Some(prompt), Some(record)) = (prompt, collected.record(row)) else {
        let what = format!("cell {} has an output, but no prompt or record", row.cell);
        return Err(Error::Inconsistent(what));
    };
    Ok(run::run(sandbox, settings, prompt, record, &collected.outputs[&row.cell])?)
}

async fn save(store: &OpenStore, name: &SweepName, report: &CheckReport) -> Result<(), Error> {
    let mut json = serde_json::to_vec_pretty(report)?;
    json.push(b'\n');
    store::write(store.objects.as_ref(), &names::check_key(name, &report.cell), json.into())
        .await?;
    Ok(())
}

fn print_summary(
    args: &CheckArgs,
    collected: &Collected,
    reports: &BTreeMap<CellId, CheckReport>,
    checked: usize,
    sandbox: &Sandbox,
) -> Result<(), Error> {
    let name = &args.name;
    let of = |row: &Row| reports.get(&row.cell);
    if args.json {
        let cells: Vec<_> = collected.rows.iter().filter_map(of).collect();
        return shared::print_json(&serde_json::json!({
            "sweep": name, "checked": checked, "cells": cells,
        }));
    }
    let outputs = shared::count(checked, "output", "outputs");
    let how = if sandbox.is_isolated() { "in a sandbox" } else { "WITHOUT a sandbox" };
    let before = reports.len() - checked;
    let before = if before > 0 { format!(", {before} checked before") } else { String::new() };
    println!("{name}: {outputs} checked {how} with Python {}{before}", sandbox.python.version);
    let mut models: Vec<&str> = Vec::new();
    for row in collected.rows.iter().filter(|row| of(row).is_some()) {
        if !models.contains(&row.model.as_str()) {
            models.push(&row.model);
        }
    }
    for model in models {
        let mine = collected.rows.iter().filter(|row| row.model == model).filter_map(of);
        let mut counts = count(mine.flat_map(|report| &report.checks));
        counts.sort_by(|a, b| a.check.cmp(&b.check));
        let words: Vec<_> = counts
            .iter()
            .map(|count| {
                let words: Vec<_> = count
                    .by_verdict()
                    .into_iter()
                    .filter(|(_, n)| *n > 0)
                    .map(|(verdict, n)| format!("{n} {}", verdict.as_str()))
                    .collect();
                format!("{}: {}", count.check, words.join(", "))
            })
            .collect();
        println!("  {model}  {}", words.join("; "));
    }
    let mut reasons: Vec<&str> = reports
        .values()
        .flat_map(|report| &report.checks)
        .filter(|check| check.verdict == Verdict::NotRun)
        .map(|check| check.detail.as_str())
        .collect();
    reasons.sort_unstable();
    reasons.dedup();
    for reason in reasons {
        println!("not run: {reason}");
    }
    println!("see what it means for the models with: coordinator collect {name}");
    Ok(())
}
