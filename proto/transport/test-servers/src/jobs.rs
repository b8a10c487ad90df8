//! Jobs as a coordinator would publish them, for queues and workers under test.

use bakeoff_model::{EngineSettings, Format, GenerationSettings, ModelSource, ModelSpec, Thinking};
use bakeoff_proto::{Cell, Job, names};

/// Run `run` of a prompt, seeded by its number. Gets its id in [`job`].
pub fn cell(run: u32, prompt: &str, generation: GenerationSettings) -> Cell {
    Cell {
        id: Cell::unidentified(),
        prompt_id: "p".into(),
        prompt: prompt.into(),
        system: None,
        code_hint: None,
        run,
        seed: run.into(),
        generation,
        file_stem: format!("model__p__r{run}"),
    }
}

/// One model with these cells, for any worker.
///
/// # Panics
/// When `sweep` cannot name a sweep.
pub fn job(sweep: &str, source: ModelSource, engine: EngineSettings, cells: Vec<Cell>) -> Job {
    let model = ModelSpec { source, format: Format::Auto, thinking: Thinking::Auto };
    let cells = cells.into_iter().map(|cell| cell.identified(&model, &engine)).collect();
    let sweep = sweep.parse().expect("a sweep's name");
    Job::first(sweep, names::ANY_CLASS.into(), model, engine, cells)
}
