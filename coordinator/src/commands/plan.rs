//! `coordinator plan`: a dry run.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bakeoff_model::gpus::{GpuSpec, GpuTable, GpuTableError};
use bakeoff_proto::SweepName;
use clap::Args;

use super::shared;
use crate::collect::read::{self, ReadError};
use crate::connect::StoreOnly;
use crate::error::Error;
use crate::forecast::{self, Device, Forecast};
use crate::plan::Plan;
use crate::publish;
use bakeoff_proto::exit::Exit;

/// Say what a sweep would run and need, without side effects
///
/// Jobs, what is done already (given --store), bytes to download, each model's memory ledger
/// against the GPU, GPU-hours from measured or predicted speed, and money. Exit code 1 if a model
/// does not fit.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coordinator plan deploy/sweeps/qwen-codegen.toml --gpu h100
  coordinator plan sweep.toml --gpu l4 --price-per-gpu-hour 0.80 --store s3://results")]
pub struct PlanArgs {
    /// Sweep file (TOML)
    sweep: PathBuf,
    /// Take this name instead of the sweep's own
    #[arg(long = "as", value_name = "NAME")]
    rename: Option<SweepName>,
    /// GPU to check against: l4, a10g, l40s, a100-40gb, a100, h100, h100-nvl or h200
    #[arg(long, env = "BAKEOFF_GPU", value_parser = gpu)]
    gpu: Option<&'static GpuSpec>,
    /// Price of a GPU-hour, in any currency
    #[arg(long, env = "BAKEOFF_PRICE_PER_GPU_HOUR", value_parser = price)]
    price_per_gpu_hour: Option<f64>,
    #[command(flatten)]
    connect: StoreOnly,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

fn gpu(name: &str) -> Result<&'static GpuSpec, GpuTableError> {
    GpuTable::shipped().find(name)
}

fn price(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(price) if price.is_finite() && price >= 0.0 => Ok(price),
        Ok(_) | Err(_) => Err("must be a number, 0 or more".to_owned()),
    }
}

pub async fn execute(args: PlanArgs) -> Result<Exit, Error> {
    let sweep = shared::load_sweep(Some(&args.sweep), args.rename.as_ref())?;
    let store = args.connect.store_if_named().await?;
    let objects = store.as_ref().map(|store| store.objects.as_ref());
    let (plan, notes) = shared::make_plan(sweep, objects).await?;
    shared::warn(&notes);
    let mut records = BTreeMap::new();
    if let Some(store) = &store {
        if let Some(stored) = publish::stored_plan(store.objects.as_ref(), &plan.sweep.name).await?
        {
            publish::DifferentPlan::check(&stored, &plan).map_err(publish::PublishError::from)?;
        }
        records = match read::collect(store.objects.clone(), &plan.sweep.name).await {
            Ok(collected) => collected.records,
            Err(ReadError::NoSuchSweep { .. }) => BTreeMap::new(),
            Err(error) => return Err(error.into()),
        };
    }
    let device = Device { gpu: args.gpu, price_per_gpu_hour: args.price_per_gpu_hour };
    let forecast = forecast::forecast(&plan, &records, device);
    if args.json {
        shared::print_json(&json(&plan, &forecast))?;
    } else {
        print!("{}", forecast::render(&plan, &forecast, device));
    }
    let fits = |job: &forecast::JobForecast| {
        job.ledger.as_ref().is_none_or(|ledger| ledger.fits().is_ok())
    };
    let misfits: Vec<_> = plan
        .jobs
        .iter()
        .zip(&forecast.jobs)
        .filter(|(_, job)| !fits(job))
        .map(|(planned, _)| planned.model_name.as_str())
        .collect();
    if misfits.is_empty() {
        return Ok(Exit::Success);
    }
    eprintln!("does not fit: {}", misfits.join(", "));
    Ok(Exit::Failure)
}

fn json(plan: &Plan, forecast: &Forecast) -> serde_json::Value {
    let jobs: Vec<_> = plan
        .jobs
        .iter()
        .zip(&forecast.jobs)
        .map(|(planned, job)| {
            let ledger = job.ledger.as_ref().map(|ledger| {
                serde_json::json!({
                    "weight_bytes": ledger.weight_bytes, "kv_bytes": ledger.kv_bytes,
                    "workspace_bytes": ledger.workspace_bytes(),
                    "total_bytes": ledger.total_bytes(), "cap_bytes": ledger.cap_bytes,
                    "fits": ledger.fits().is_ok(),
                })
            });
            let source = match job.tpot_ms {
                Some(forecast::Tpot::Measured(_)) => "measured",
                Some(forecast::Tpot::Predicted(_)) => "predicted",
                None => "unknown",
            };
            serde_json::json!({
                "job": planned.job.id, "model": planned.model_name,
                "source": planned.job.model.source, "engine": planned.job.engine,
                "gpu_class": planned.job.gpu_class, "cells": job.cells, "done": job.done,
                "download_bytes": job.download_bytes, "ledger": ledger,
                "tpot_ms": job.tpot_ms.map(forecast::Tpot::ms), "tpot_source": source,
                "seconds_at_most": job.seconds_at_most, "notes": job.notes,
            })
        })
        .collect();
    serde_json::json!({
        "sweep": plan.sweep.name, "cells": plan.cell_count(), "jobs": jobs,
        "download_bytes": forecast.download_bytes,
        "gpu_hours_at_most": forecast.gpu_hours_at_most,
        "cost_at_most": forecast.cost_at_most,
    })
}
