//! What is checked of a release before one is made: its workflows, and the licences of what it
//! holds.

use std::path::PathBuf;

use crate::deployment;
use crate::pip::{self, CHECK_JSONSCHEMA, ZIZMOR};
use crate::process::{Result, program};

/// `out`: the folder that gets the lists.
pub fn licences(out: Option<PathBuf>) -> Result {
    let out = out.map(std::path::absolute).transpose()?;
    program(".dev/scripts/release/licences.sh").args(out).run()
}

/// GitHub's schema and our own rules, then zizmor's audits; nothing asks the network.
pub fn workflows() -> Result {
    let schemas = pip::fetch(CHECK_JSONSCHEMA)?.join("check_jsonschema/builtin_schemas/vendor");
    deployment::python("workflows.py").arg(schemas.join("github-workflows.json")).run()?;
    program(pip::fetch(ZIZMOR)?.join("bin/zizmor"))
        .args(["--offline", "--quiet", "--no-progress", ".github/workflows"])
        .run()
}
