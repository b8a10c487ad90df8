//! `[checks]`: what `coordinator check` executes, and within which limits.

use std::collections::BTreeMap;
use std::ops::Bound::Included;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::problem::SweepProblem;
use crate::toml_file::bounds::{Within, bounds};
use crate::toml_file::{At, KeyPath};

/// What `coordinator check` runs on each output; frozen with the sweep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CheckSettings {
    /// Compile the code.
    pub compile: bool,
    /// Import it as a module.
    pub import: bool,
    /// The user's own command, run beside `solution.py`.
    pub command: Option<Vec<String>>,
    /// Files put beside `solution.py`, by name: a test file, say. Read when the sweep is read.
    pub files: BTreeMap<String, String>,
    /// The interpreter inside the sandbox.
    pub python: String,
    /// CPU time of one check.
    pub cpu_s: u64,
    /// Time of one check by the clock.
    pub wall_s: u64,
    /// Memory of all its processes.
    pub memory_mb: u64,
    /// Processes and threads at once.
    pub processes: u64,
    /// Of one file, and of each of the folders in memory that the code can write to.
    pub file_mb: u64,
    /// Files that the code may make.
    pub max_files: u64,
    /// Of stdout and stderr together.
    pub output_kb: u64,
}

impl Default for CheckSettings {
    fn default() -> Self {
        let section = ChecksSection::default();
        Self {
            compile: section.compile,
            import: section.import,
            command: None,
            files: BTreeMap::new(),
            python: section.python,
            cpu_s: section.cpu_s,
            wall_s: section.wall_s,
            memory_mb: section.memory_mb,
            processes: section.processes,
            file_mb: section.file_mb,
            max_files: section.max_files,
            output_kb: section.output_kb,
        }
    }
}

bounds! {
    Seconds: u64 = (Included(1), Included(3600));
    MemoryMb: u64 = (Included(64), Included(1_048_576));
    Processes: u64 = (Included(4), Included(4096));
    FileMb: u64 = (Included(1), Included(65_536));
    MaxFiles: u64 = (Included(1), Included(1_000_000));
    OutputKb: u64 = (Included(1), Included(1_048_576));
}

/// Runs stored outputs in a sandbox: `coordinator check`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ChecksSection {
    /// Compile the code.
    pub compile: bool,
    /// Import the code as a module.
    pub import: bool,
    /// A command of your own, run beside `solution.py`; its words are separated by spaces.
    pub command: Option<String>,
    /// A file beside the sweep that is put beside `solution.py`, for `command` to run.
    pub test_file: Option<String>,
    /// Absolute path of the interpreter inside the sandbox.
    pub python: String,
    /// Most CPU time of one check, in seconds.
    #[serde(with = "Within::<Seconds>")]
    pub cpu_s: u64,
    /// Most time of one check by the clock, in seconds.
    #[serde(with = "Within::<Seconds>")]
    pub wall_s: u64,
    /// Most memory of one check, in MiB.
    #[serde(with = "Within::<MemoryMb>")]
    pub memory_mb: u64,
    /// Most processes and threads of one check.
    #[serde(with = "Within::<Processes>")]
    pub processes: u64,
    /// Most MiB of one file, and of each folder that the code can write to.
    #[serde(with = "Within::<FileMb>")]
    pub file_mb: u64,
    /// Most files that the code may make.
    #[serde(with = "Within::<MaxFiles>")]
    pub max_files: u64,
    /// Most KiB of stdout and stderr together.
    #[serde(with = "Within::<OutputKb>")]
    pub output_kb: u64,
}

impl Default for ChecksSection {
    fn default() -> Self {
        Self {
            compile: true,
            import: true,
            command: None,
            test_file: None,
            python: "/usr/bin/python3".to_owned(),
            cpu_s: 10,
            wall_s: 20,
            memory_mb: 2048,
            processes: 32,
            file_mb: 16,
            max_files: 1024,
            output_kb: 1024,
        }
    }
}

/// Reads the test file, if there is one, and splits the command.
pub fn read(section: ChecksSection, folder: &Path) -> Result<CheckSettings, At<SweepProblem>> {
    let at = KeyPath::top("checks");
    if !section.python.starts_with('/') {
        return Err(at.key("python").refuse(SweepProblem::NotAbsolute(section.python)));
    }
    let command = section
        .command
        .map(|command| command.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    if command.as_ref().is_some_and(Vec::is_empty) {
        let add = "name the program to run, or leave it out";
        return Err(at.key("command").refuse(SweepProblem::Empty { add }));
    }
    let mut files = BTreeMap::new();
    if let Some(name) = section.test_file {
        let path = folder.join(&name);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(source) => {
                let problem = SweepProblem::UnreadableFile { path, source };
                return Err(at.key("test_file").refuse(problem));
            }
        };
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        files.insert(name, text);
    }
    Ok(CheckSettings {
        compile: section.compile,
        import: section.import,
        command,
        files,
        python: section.python,
        cpu_s: section.cpu_s,
        wall_s: section.wall_s,
        memory_mb: section.memory_mb,
        processes: section.processes,
        file_mb: section.file_mb,
        max_files: section.max_files,
        output_kb: section.output_kb,
    })
}
