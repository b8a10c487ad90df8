//! What checks by execution found: does the code compile, import, and pass a test?

use bakeoff_proto::CellId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `checks/<cell>.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckReport {
    pub schema_version: u32,
    pub cell: CellId,
    /// The markdown whose code was run; checks of another file do not count.
    pub document_sha256: String,
    /// False when someone chose to run without a sandbox.
    pub sandboxed: bool,
    pub checks: Vec<Check>,
}

/// One check of one output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    pub name: String,
    pub verdict: Verdict,
    /// Why, in a sentence or the last lines of what the program wrote.
    pub detail: String,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Pass,
    Fail,
    /// It says nothing about the code: a third-party module is missing, there is no code to run.
    NotRun,
}

impl Verdict {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::NotRun => "not run",
        }
    }
}

impl CheckReport {
    /// Whether the output passes: `None` when no check ran.
    pub fn passes(&self) -> Option<bool> {
        let mut ran =
            self.checks.iter().filter(|check| check.verdict != Verdict::NotRun).peekable();
        ran.peek()?;
        Some(ran.all(|check| check.verdict == Verdict::Pass))
    }
}
