//! `coordinator compare`: two sweeps cell by cell.

use bakeoff_proto::SweepName;
use clap::Args;

use super::shared;
use crate::collect::read;
use crate::compare;
use crate::connect::StoreOnly;
use crate::error::Error;
use bakeoff_proto::exit::Exit;

/// Compare two sweeps cell by cell; prints markdown for a pull request
///
/// Cells are paired by model, engine, prompt and run. Exit code 1 if B is significantly worse than
/// A beyond the threshold, 2 if the cells are not alike.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  coordinator compare before after --across build --store s3://results")]
pub struct CompareArgs {
    /// The sweep to compare with
    a: SweepName,
    /// The sweep that is judged
    b: SweepName,
    /// Fields in which the sweeps may differ: model, engine, build, device, …
    #[arg(long, value_name = "FIELD", value_delimiter = ',')]
    across: Vec<String>,
    /// A regression is worse by more than this
    #[arg(long, value_name = "PERCENT", default_value_t = 3.0, value_parser = threshold)]
    threshold: f64,
    #[command(flatten)]
    connect: StoreOnly,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

fn threshold(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..1000.0).contains(&value) => Ok(value),
        Ok(_) | Err(_) => Err("must be a percentage from 0 to below 1000".to_owned()),
    }
}

pub async fn execute(args: CompareArgs) -> Result<Exit, Error> {
    let store = args.connect.store().await?;
    let a = read::collect(store.objects.clone(), &args.a).await?;
    let b = read::collect(store.objects.clone(), &args.b).await?;
    let comparison = compare::compare(&a, &b, &args.across, args.threshold)?;
    if args.json {
        shared::print_json(&serde_json::json!({
            "comparison": comparison, "regressed": comparison.regressed(),
        }))?;
    } else {
        print!("{}", compare::render(&comparison));
    }
    Ok(if comparison.regressed() { Exit::Failure } else { Exit::Success })
}
