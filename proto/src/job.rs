//! A cell is one (model, prompt, run); a job is one model with its cells.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{SCHEMA_VERSION, digest};
use bakeoff_model::{EngineSettings, GenerationSettings, ModelSpec};

/// A sweep's name, which is also its folder in the object store.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct SweepName(String);

/// Why a string cannot name a sweep.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SweepNameError {
    #[error("the sweep's name is empty: set `name` to 1 to 128 letters, digits, `.`, `_` or `-`")]
    Empty,
    #[error("the sweep's name is {0} characters long, at most 128 fit: shorten `name`")]
    TooLong(usize),
    #[error(
        "the sweep's name `{name}` holds `{character}`: use letters, digits, `.`, `_` or `-` only"
    )]
    Character { name: String, character: char },
    #[error(
        "the sweep's name `{0}` must start with a letter or a digit: it becomes a folder in the \
         store"
    )]
    Start(String),
}

impl SweepName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for SweepName {
    type Error = SweepNameError;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        if name.is_empty() {
            return Err(SweepNameError::Empty);
        }
        if name.chars().count() > 128 {
            return Err(SweepNameError::TooLong(name.chars().count()));
        }
        let allowed = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if let Some(character) = name.chars().find(|c| !allowed(c)) {
            return Err(SweepNameError::Character { name, character });
        }
        if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            return Err(SweepNameError::Start(name));
        }
        Ok(Self(name))
    }
}

impl std::str::FromStr for SweepName {
    type Err = SweepNameError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::try_from(name.to_owned())
    }
}

impl<'de> Deserialize<'de> for SweepName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::try_from(name).map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for SweepName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One life of a sweep's name: made when its plan is frozen, gone when the sweep is deleted. What
/// bears another incarnation belongs to a sweep that is no more, or to one of another store.
#[derive(
    Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct Incarnation(pub String);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A sweep as the queue knows it: its name, and which of the sweeps of that name it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SweepId {
    /// The sweep's name.
    pub name: SweepName,
    /// `None` for a sweep that an earlier version submitted.
    pub incarnation: Option<Incarnation>,
}

impl fmt::Display for SweepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[derive(Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The 16 hexadecimal digits.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Reads an id back from where one was written; `None` unless it is 16 hexadecimal
            /// digits.
            pub fn parse(text: &str) -> Option<Self> {
                let hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
                (text.len() == 16 && text.bytes().all(hex)).then(|| Self(text.to_owned()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

hex_id!(
    /// A cell's identity: a hash of everything the plan fixes about it. The only record key.
    CellId
);
hex_id!(
    /// A job's identity: a hash of its model and its cells.
    JobId
);

/// One generation to be made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Cell {
    /// See [`Cell::identity`].
    pub id: CellId,
    /// The prompt's id in the sweep.
    pub prompt_id: String,
    /// The prompt as the sweep has it.
    pub prompt: String,
    /// System message of the chat template, if the sweep sets one.
    pub system: Option<String>,
    /// Text put before the prompt when the format resolves to `code`.
    pub code_hint: Option<String>,
    /// Counted from 1.
    pub run: u32,
    /// Derived from the sweep's seed, the prompt and the run.
    pub seed: u64,
    /// How to generate.
    pub generation: GenerationSettings,
    /// Name of the markdown file without its time stamp: `<Model>` or `<Model>__<prompt>__r<run>`.
    pub file_stem: String,
}

/// What a cell's id is a hash of. The file's name is not part of it.
#[derive(Serialize)]
struct CellIdentity<'a> {
    model: &'a ModelSpec,
    engine: &'a EngineSettings,
    prompt: &'a str,
    system: &'a Option<String>,
    code_hint: &'a Option<String>,
    generation: &'a GenerationSettings,
    seed: u64,
    run: u32,
}

impl Cell {
    /// The identity of a cell from what the plan fixes. The `id` passed in `self` is not looked at.
    pub fn identity(&self, model: &ModelSpec, engine: &EngineSettings) -> CellId {
        CellId(digest::identity(&CellIdentity {
            model,
            engine,
            prompt: &self.prompt,
            system: &self.system,
            code_hint: &self.code_hint,
            generation: &self.generation,
            seed: self.seed,
            run: self.run,
        }))
    }

    /// The id of a cell that still goes through [`Cell::identified`].
    pub fn unidentified() -> CellId {
        CellId("0".repeat(16))
    }

    /// The cell with its identity.
    pub fn identified(mut self, model: &ModelSpec, engine: &EngineSettings) -> Self {
        self.id = self.identity(model, engine);
        self
    }
}

/// The seed of run `run` of a prompt: stable across models, so that their samples are paired.
pub fn run_seed(sweep_seed: u64, prompt_id: &str, run: u32) -> u64 {
    let hex = digest::sha256_hex(format!("{sweep_seed}/{prompt_id}/{run}").as_bytes());
    u64::from_str_radix(&hex[..16], 16).expect("a SHA-256 starts with 16 hexadecimal digits")
}

/// One model with its cells: the unit of work on the queue. The weights are loaded once for all
/// cells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Job {
    /// See [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// See [`Job::identity`].
    pub id: JobId,
    /// Counted from 1; `retry` publishes the next one.
    pub generation: u32,
    /// The sweep that it belongs to.
    pub sweep: SweepName,
    /// Which sweep of that name; `None` in a plan, which holds it once for all jobs, and in jobs
    /// that an earlier version published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<Incarnation>,
    /// Which workers may take it: `any`, `cpu`, or a GPU by [`crate::names::class_token`].
    pub gpu_class: String,
    pub model: ModelSpec,
    /// The engine's settings.
    pub engine: EngineSettings,
    /// What to generate.
    pub cells: Vec<Cell>,
}

impl Job {
    /// A job as it is first published, with its identity. The cells have theirs.
    pub fn first(
        sweep: SweepName,
        gpu_class: String,
        model: ModelSpec,
        engine: EngineSettings,
        cells: Vec<Cell>,
    ) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            id: Self::identity(&model, &engine, &cells),
            generation: 1,
            sweep,
            incarnation: None,
            gpu_class,
            model,
            engine,
            cells,
        }
    }

    /// The sweep that it belongs to.
    pub fn sweep_id(&self) -> SweepId {
        SweepId { name: self.sweep.clone(), incarnation: self.incarnation.clone() }
    }

    /// The identity of a job: its model, its engine and its cells.
    pub fn identity(model: &ModelSpec, engine: &EngineSettings, cells: &[Cell]) -> JobId {
        let ids: Vec<_> = cells.iter().map(|cell| &cell.id).collect();
        JobId(digest::identity(&(model, engine, ids)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_would_leave_the_folder_is_refused() {
        for bad in ["", "../x", "a/b", ".hidden", "-x", "a b", "é"] {
            assert!(bad.parse::<SweepName>().is_err(), "{bad:?} was accepted");
        }
        assert!("x".repeat(129).parse::<SweepName>().is_err());
        assert!("qwen_codegen_outputs-flash".parse::<SweepName>().is_ok());
    }

    #[test]
    fn seeds_differ_by_run_and_prompt_but_not_by_call() {
        assert_eq!(run_seed(1, "a", 1), run_seed(1, "a", 1));
        assert_ne!(run_seed(1, "a", 1), run_seed(1, "a", 2));
        assert_ne!(run_seed(1, "a", 1), run_seed(1, "b", 1));
        assert_ne!(run_seed(1, "a", 1), run_seed(2, "a", 1));
    }
}
