//! A forecast as text for people.

use std::fmt::Write;

use bakeoff_model::ModelSource;

use super::{Device, Forecast, JobForecast, PREDICTED_EFFICIENCY, Tpot};
use crate::plan::{Plan, PlannedJob};
use crate::watch::board::{duration, gigabytes};

/// The dry run's output. Ends with a line break.
pub fn render(plan: &Plan, forecast: &Forecast, device: Device) -> String {
    let sweep = &plan.sweep;
    let done: usize = forecast.jobs.iter().map(|job| job.done).sum();
    let mut out = format!(
        "{}: {} models, {} prompts, {} runs: {} cells in {} jobs, {done} done\n",
        sweep.name,
        sweep.models.len(),
        sweep.prompts.len(),
        sweep.runs,
        plan.cell_count(),
        plan.jobs.len(),
    );
    for (index, (planned, job)) in plan.jobs.iter().zip(&forecast.jobs).enumerate() {
        render_job(&mut out, index + 1, planned, job, device);
    }
    out.push('\n');
    let _ = writeln!(out, "download   {} at most", gigabytes(forecast.download_bytes));
    match forecast.gpu_hours_at_most {
        Some(hours) => {
            let _ = writeln!(
                out,
                "GPU-hours  {hours:.2} at most, if every open cell uses all its tokens"
            );
        }
        None if device.gpu.is_none() => {
            out.push_str(
                "GPU-hours  unknown: name the card with --gpu, or measure some cells first\n",
            );
        }
        None => out.push_str("GPU-hours  unknown: the size of some model is not known here\n"),
    }
    if let Some(cost) = forecast.cost_at_most {
        let price = device.price_per_gpu_hour.unwrap_or_default();
        let _ = writeln!(out, "cost       {cost:.2} at most, at {price} per GPU-hour");
    }
    out
}

fn render_job(
    out: &mut String,
    number: usize,
    planned: &PlannedJob,
    job: &JobForecast,
    device: Device,
) {
    let settings = &planned.job.engine;
    let revision = match &planned.job.model.source {
        ModelSource::Hub { revision, .. } => format!("@{}", short(revision)),
        ModelSource::Builtin { .. } | ModelSource::Path { .. } => String::new(),
    };
    let _ = writeln!(
        out,
        "\n{number}. {}{revision}  engine {}, {}, GPU class {}; {} of {} cells done",
        planned.model_name,
        settings.engine.as_str(),
        settings.dtype.as_str(),
        planned.job.gpu_class,
        job.done,
        job.cells,
    );
    if let Some(ledger) = &job.ledger {
        for line in ledger.to_string().lines() {
            let _ = writeln!(out, "   {line}");
        }
    }
    match (job.tpot_ms, device.gpu) {
        (Some(Tpot::Measured(ms)), _) => {
            let _ = writeln!(out, "   speed        {:.1} tok/s measured{}", 1000.0 / ms, time(job));
        }
        (Some(Tpot::Predicted(ms)), Some(gpu)) => {
            let _ = writeln!(
                out,
                "   speed        {:.1} tok/s predicted, at {:.0} % of the {:.0} GB/s of {}{}",
                1000.0 / ms,
                PREDICTED_EFFICIENCY * 100.0,
                gpu.bandwidth_gb_s,
                gpu.title,
                time(job),
            );
        }
        (Some(Tpot::Predicted(_)) | None, _) => {}
    }
    for note in &job.notes {
        let _ = writeln!(out, "   note: {note}");
    }
}

fn time(job: &JobForecast) -> String {
    match job.seconds_at_most {
        Some(seconds) if seconds > 0.0 => format!("; {} at most", duration(seconds)),
        Some(_) | None => String::new(),
    }
}

fn short(revision: &str) -> &str {
    if crate::plan::is_commit(revision) { &revision[..8] } else { revision }
}
