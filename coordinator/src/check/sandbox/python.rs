//! The interpreter that runs the checks.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use super::{SandboxError, last_line};

/// The interpreter, as it describes itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Python {
    /// Absolute path.
    #[serde(skip)]
    pub path: PathBuf,
    /// As `3.12.3`.
    pub version: String,
    /// Where its libraries are.
    pub prefixes: Vec<PathBuf>,
    /// Modules that are never a third party's.
    pub standard: Vec<String>,
}

const ASK: &str = "import json, os, sys
print(json.dumps({
    'version': '.'.join(map(str, sys.version_info[:3])),
    'prefixes': sorted({sys.prefix, sys.base_prefix, os.path.dirname(os.path.dirname(os.path.realpath(sys.executable)))}),
    'standard': sorted(sys.stdlib_module_names),
}))";

impl Python {
    /// Asks the interpreter, outside of the sandbox: it is the user's own.
    pub fn find(path: &Path) -> Result<Self, SandboxError> {
        let wrong =
            |reason: String| SandboxError::NoPython { path: path.display().to_string(), reason };
        let output = Command::new(path)
            .args(["-I", "-c", ASK])
            .env_clear()
            .stdin(Stdio::null())
            .output()
            .map_err(|error| wrong(error.to_string()))?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() && stderr.contains("stdlib_module_names") {
            return Err(wrong("it is older than 3.10".to_owned()));
        }
        let mut python: Self = serde_json::from_slice(&output.stdout)
            .map_err(|_| wrong(format!("it answers: {}", last_line(&stderr))))?;
        python.path = path.to_owned();
        Ok(python)
    }
}
