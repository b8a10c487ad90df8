//! How fast outputs are analysed and a report is made, against the bounds that hold in release:
//!
//! `cargo run --release -p bakeoff-coordinator --no-default-features --example report_speed`
//!
//! Ends with 1 when a bound is broken.

#[path = "../tests/common/mod.rs"]
mod common;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bakeoff_coordinator::collect::read;
use bakeoff_coordinator::quality::{Analyser, Compiled, Rubric};
use bakeoff_coordinator::report;
use bakeoff_proto::FinishReason;
use bakeoff_transport::store;
use common::Made;
use object_store::ObjectStore;

const SWEEP: &str = "name = \"speed\"\n[generation]\nruns = 50\n[[prompts]]\nid = \"p\"\ntext = \
\"x\"\nrubric = \"python-service\"\n[[models]]\nid = \"builtin:tiny-qwen2\"\n[[models]]\nid = \
\"builtin:tiny-qwen3\"\n";

/// An answer of about 4,096 tokens: 16 KB.
fn answer() -> String {
    let unit = "@app.post(\"/predict\")\nasync def predict(file: UploadFile = File(...)) -> \
    Result:\n    \"\"\"Classify.\"\"\"\n    if file.content_type not in ALLOWED:\n        raise \
    HTTPException(status_code=415, detail=f\"no {file.content_type}\")\n    with \
    torch.inference_mode():\n        logits = model(**inputs.to(device)).logits  # scores\n    return Result(label=labels[int(logits.argmax())], score=0.5)\n\n\n";
    format!("Here it is:\n\n```python\n{}```\n\nRun `uvicorn main:app`.\n", unit.repeat(44))
}

/// Prints a figure beside its bound; false when it is broken.
fn within(what: &str, took: Duration, bound: Duration) -> bool {
    println!("{what}: {took:.2?}, at most {bound:?}");
    took < bound
}

#[tokio::main]
async fn main() -> ExitCode {
    let output = answer();
    let rubric = Rubric::shipped("python-service").expect("it ships");
    let compiled = Compiled::new(rubric).expect("it compiles");
    let mut analyser = Analyser::new(Some(&compiled));
    let start = Instant::now();
    for _ in 0..1000 {
        let analysis = analyser.analyse(&output, "python", FinishReason::Stop);
        assert_eq!(analysis.parses, Some(true));
    }
    let what = format!("analysis of 1,000 outputs of {} bytes", output.len());
    let mut good = within(&what, start.elapsed(), Duration::from_secs(5));

    let objects: Arc<dyn ObjectStore> = store::memory();
    let made = Made { tokens: 4096, ..Made::new(output) };
    let plan = common::store_sweep(objects.as_ref(), SWEEP, |_, _| Some(made.clone())).await;
    let start = Instant::now();
    let collected = read::collect(objects, &plan.sweep.name).await.expect("it is complete");
    let documents = report::documents(&collected);
    let what = format!("collecting {} cells and writing the report", collected.rows.len());
    good &= within(&what, start.elapsed(), Duration::from_secs(2));
    println!("report.html: {} bytes, at most 3000000", documents.html.len());
    good &= documents.html.len() < 3_000_000;
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
