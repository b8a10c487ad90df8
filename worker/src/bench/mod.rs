//! `worker bench`: the engine alone, every speed beside the bound that was measured in the same run.
//!
//! - [`args`]: the command line
//! - [`machine`]: what the machine can do
//! - [`measure`]: one engine on one model, shape by shape
//! - [`table`]: how it is shown

mod args;
mod machine;
mod measure;
mod table;

pub use args::BenchArgs;
pub use measure::Row;

use anyhow::Context as _;
use machine::Machine;

/// Runs the benchmark and prints it: the table, or with `--json` the array of rows (then the table
/// goes to stderr).
///
/// # Errors
/// Arguments that make no sense, a model that cannot be loaded, a generation that fails.
pub fn run(args: &BenchArgs) -> anyhow::Result<()> {
    let models = args.models()?;
    args.check()?;
    let machine = Machine::measure(args)?;
    eprintln!("{machine}");
    let mut rows = Vec::new();
    for model in &models {
        for engine in &args.engine {
            let found = measure::engine(args, &machine, model, *engine)
                .with_context(|| format!("{} on engine {}", model.id, engine.as_str()))?;
            for row in &found {
                eprintln!("{}", table::line(row));
            }
            rows.extend(found);
        }
    }
    let table = table::render(&rows);
    if args.json {
        eprint!("{table}");
        println!("{}", serde_json::to_string_pretty(&rows)?);
    } else {
        print!("{table}");
    }
    Ok(())
}
