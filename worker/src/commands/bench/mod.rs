//! `worker bench`: the engine alone, every speed beside the bound that was measured in the same
//! run.
//!
//! - `args`: the command line, and the plan it makes; `subject`: a model to measure
//! - `machine`: what the machine can do
//! - `measure`: one engine on one model, shape by shape
//! - `table`: how it is shown

mod args;
mod machine;
mod measure;
mod subject;
mod table;

pub use args::BenchArgs;

use std::io::Write;

use bakeoff_engine::EngineError;
use bakeoff_proto::exit::Exit;

use self::args::BenchPlan;
use self::machine::Machine;
use crate::error::CommandError;

/// Runs the benchmark and prints it: the table, or with `--json` the array of rows (then the table
/// goes to stderr). Blocks; needs no runtime.
pub(super) fn execute(args: BenchArgs) -> Result<Exit, CommandError> {
    let plan = BenchPlan::new(&args)?;
    let machine = Machine::measure(&plan)?;
    eprintln!("{machine}");
    let mut rows = Vec::new();
    for subject in &plan.subjects {
        for engine in &plan.engines {
            let failed = |error: EngineError| CommandError::Bench {
                model: subject.id.clone(),
                engine: engine.as_str(),
                source: error.into(),
            };
            let found = measure::engine(&plan, &machine, subject, *engine).map_err(failed)?;
            for row in &found {
                eprintln!("{}", table::line(row));
            }
            rows.extend(found);
        }
    }
    let table = table::render(&rows);
    let mut out = std::io::stdout();
    if args.json {
        eprint!("{table}");
        let json = serde_json::to_string_pretty(&rows).expect("numbers and texts become JSON");
        writeln!(out, "{json}")?;
    } else {
        write!(out, "{table}")?;
    }
    Ok(Exit::Success)
}
