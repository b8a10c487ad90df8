//! Checks by execution: does the code compile, import, and pass a test?
//!
//! - [`extract`]: the program in an output
//! - [`sandbox`]: runs it, bounded and walled in
//! - [`run`](mod@run): the checks of one output, and what their ends mean
//! - [`score`]: from verdicts to rates

pub mod extract;
pub mod run;
pub mod sandbox;
pub mod score;

use bakeoff_proto::CellId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `checks/<cell>.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckReport {
    /// Version of this document, see [`bakeoff_proto::SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The cell whose output was checked.
    pub cell: CellId,
    /// The markdown whose code was run; checks of another file do not count.
    pub document_sha256: String,
    /// False when someone chose to run without a sandbox.
    pub sandboxed: bool,
    /// Version of the interpreter.
    #[serde(default)]
    pub python: String,
    /// What was run, in order.
    pub checks: Vec<Check>,
}

/// One check of one output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    /// `compile`, `import`, `task`, `command`, …
    pub name: String,
    /// How it ended.
    pub verdict: Verdict,
    /// Why, in a sentence or the last lines of what the program wrote.
    pub detail: String,
}

/// How a check ended.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Pass,
    Fail,
    /// It says nothing about the code: a third-party module is missing, say.
    NotRun,
}

impl Verdict {
    /// The word in files and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::NotRun => "not run",
        }
    }
}

impl CheckReport {
    /// Reads stored checks, if they are of the output with this digest.
    pub fn of_document(json: &str, document_sha256: &str) -> Result<Self, String> {
        let report: Self = serde_json::from_str(json).map_err(|error| error.to_string())?;
        if report.document_sha256 == document_sha256 {
            Ok(report)
        } else {
            Err("they were made of another output".to_owned())
        }
    }
}

/// Whether an output passes its checks: not if one fails, yes if all ran and passed; unknown where
/// one could not run, for what is only known to compile may do anything.
pub fn passes(checks: &[Check]) -> Option<bool> {
    let any = |verdict| checks.iter().any(|check| check.verdict == verdict);
    if any(Verdict::Fail) {
        Some(false)
    } else if checks.is_empty() || any(Verdict::NotRun) {
        None
    } else {
        Some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_fails_and_one_unknown_leaves_it_open() {
        let of = |verdicts: &[Verdict]| {
            let check = |verdict: &Verdict| Check {
                name: "c".into(),
                verdict: *verdict,
                detail: "".into(),
            };
            passes(&verdicts.iter().map(check).collect::<Vec<_>>())
        };
        use Verdict::{Fail, NotRun, Pass};
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[Pass, Pass]), Some(true));
        assert_eq!(of(&[Pass, NotRun]), None);
        assert_eq!(of(&[NotRun, Fail]), Some(false));
    }
}
