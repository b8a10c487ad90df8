//! Runs one action on generated code, bounded in everything that it could read, reach or use up.
//!
//! - `bubblewrap`: the walls: namespaces, a root folder of its own, no rights
//! - `seccomp`: system calls that no check needs
//! - `supervise`: time, memory and output, watched from outside; `usage`: what processes hold
//! - `python`: the interpreter
//! - `runner.py`: inside; takes on the limits, gives up rights, runs, reports how it ended

mod bubblewrap;
mod python;
mod seccomp;
mod supervise;
mod usage;

use std::collections::BTreeMap;
use std::io::{Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rand::Rng;
use serde::{Deserialize, Serialize};

use crate::sweep::CheckSettings;
pub use python::Python;
pub use supervise::{Bound, Exit};

/// Said in so many words by whoever runs generated code with their own rights.
pub const ACCEPT_FLAG: &str = "--unsandboxed-i-accept-the-risk";

const RUNNER: &str = include_str!("runner.py");

/// Why nothing was run; never a verdict on the code.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error(
        "the sandbox needs bubblewrap, and there is no `bwrap` in PATH: install it (`apt install \
        bubblewrap`, `dnf install bubblewrap`), or give generated code all of your own rights \
        with {ACCEPT_FLAG}"
    )]
    NoBubblewrap,
    #[error(
        "the sandbox cannot be set up here ({reason}): it needs root or unprivileged user \
        namespaces, which containers often deny; check on another machine (the store is all that \
        is needed), or give generated code all of your own rights with {ACCEPT_FLAG}"
    )]
    Denied { reason: String },
    #[error(
        "`{path}` cannot be used as the Python interpreter ({reason}): set `python` in [checks]"
    )]
    NoPython { path: String, reason: String },
    #[error("`{name}` cannot be put beside solution.py: give a plain file name")]
    FileName { name: String },
    #[error("the sandbox failed before the code ran: {reason}")]
    Setup { reason: String },
    #[error("cannot prepare the sandbox: {0}")]
    Io(#[from] std::io::Error),
}

/// What is done with the code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Action {
    /// Finds out whether the isolation holds.
    Probe,
    Compile,
    Import,
    /// In the manner of HumanEval; `test` defines `check(candidate)`.
    Task {
        entry_point: String,
        test: String,
    },
    Command {
        argv: Vec<String>,
    },
}

/// How an action ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// What the runner reported; `None` if the code ended before it could, or ran as a command.
    pub report: Option<RunnerReport>,
    /// How the process ended.
    pub exit: Exit,
    /// What the code wrote, without the runner's own lines.
    pub stdout: String,
    /// As [`Self::stdout`].
    pub stderr: String,
}

/// What the runner says of an action.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RunnerReport {
    /// The action succeeded.
    #[serde(default)]
    pub passed: bool,
    /// Why it did not, in a line.
    pub detail: String,
    /// An import failed for want of this module.
    pub missing_module: Option<String>,
    /// The command could not be started.
    pub missing_command: Option<String>,
}

/// Ready to run code.
#[derive(Debug)]
pub struct Sandbox {
    /// The interpreter inside.
    pub python: Python,
    /// `None`: not isolated, because the user asked for it.
    isolation: Option<bubblewrap::Bubblewrap>,
    settings: CheckSettings,
}

impl Sandbox {
    /// Finds the interpreter and the sandbox, and proves that the isolation holds.
    pub fn open(settings: &CheckSettings, unsandboxed: bool) -> Result<Self, SandboxError> {
        let python = Python::find(Path::new(&settings.python))?;
        let isolation = if unsandboxed { None } else { Some(bubblewrap::Bubblewrap::find()?) };
        let sandbox = Self { python, isolation, settings: settings.clone() };
        if sandbox.is_isolated() {
            sandbox.probe()?;
        }
        Ok(sandbox)
    }

    /// False only where the user asked to run without a sandbox.
    pub fn is_isolated(&self) -> bool {
        self.isolation.is_some()
    }

    fn probe(&self) -> Result<(), SandboxError> {
        let ended = match self.run(&Action::Probe, &BTreeMap::new()) {
            Err(SandboxError::Setup { reason }) => return Err(SandboxError::Denied { reason }),
            other => other?,
        };
        match ended.report {
            Some(report) if report.passed => Ok(()),
            Some(report) => Err(SandboxError::Denied { reason: report.detail }),
            None => Err(SandboxError::Denied { reason: ended.exit.words(&self.settings) }),
        }
    }

    /// Runs one action with `files` in its folder. Everything that it leaves behind is gone when
    /// this returns.
    pub fn run(
        &self,
        action: &Action,
        files: &BTreeMap<String, String>,
    ) -> Result<Ended, SandboxError> {
        let folder = tempfile::Builder::new().prefix("bakeoff-check-").tempdir()?;
        let mut placed = Vec::new();
        for (name, text) in files {
            if !is_plain(name) {
                return Err(SandboxError::FileName { name: name.clone() });
            }
            placed.push(place(&folder.path().join(name), text)?);
        }
        let runner = place(&folder.path().join(".runner.py"), RUNNER)?;
        let uid = self.isolation.as_ref().and_then(bubblewrap::Bubblewrap::uid);
        let token = format!("{:032x}", rand::rng().random::<u128>());
        let inside = if self.is_isolated() { Path::new(bubblewrap::FOLDER) } else { folder.path() };
        let job = Job {
            token: &token,
            uid,
            limits: limits(&self.settings, self.is_isolated()),
            folder: inside,
            environment: environment(&self.python, inside, self.is_isolated()),
            action,
        };
        let mut stdin = tempfile::tempfile()?;
        let line = serde_json::to_string(&job).expect("a job serialises to JSON");
        writeln!(stdin, "{line}")?;
        stdin.rewind()?;

        let filter = self.isolation.as_ref().map(|_| seccomp::file()).transpose()?;
        let mut command = match (&self.isolation, &filter) {
            (Some(bubblewrap), Some(filter)) => bubblewrap.command(
                &self.settings,
                &self.python,
                &runner,
                &placed,
                filter.as_raw_fd(),
            ),
            _ => {
                let mut command = Command::new(&self.python.path);
                command.arg("-I").arg(&runner);
                command
            }
        };
        command.env_clear().stdin(Stdio::from(stdin)).stdout(Stdio::piped()).stderr(Stdio::piped());
        let supervised = supervise::run(command, filter, &self.settings)?;
        ended(&token, supervised)
    }
}

/// The line that the runner reads.
#[derive(Serialize)]
struct Job<'a> {
    token: &'a str,
    uid: Option<u32>,
    limits: BTreeMap<&'static str, (u64, u64)>,
    folder: &'a Path,
    environment: BTreeMap<&'static str, String>,
    action: &'a Action,
}

fn limits(settings: &CheckSettings, isolated: bool) -> BTreeMap<&'static str, (u64, u64)> {
    let file = settings.file_mb * 1_000_000;
    let memory = settings.memory_mb * 1_000_000;
    // CPU time is watched from outside, over all processes; this holds where the watch is late.
    let mut limits = BTreeMap::from([
        ("RLIMIT_AS", (memory, memory)),
        ("RLIMIT_CPU", (settings.cpu_s + 1, settings.cpu_s + 2)),
        ("RLIMIT_FSIZE", (file, file)),
        ("RLIMIT_NOFILE", (256, 256)),
        ("RLIMIT_CORE", (0, 0)),
    ]);
    // Without walls it would count every process of the user.
    if isolated {
        limits.insert("RLIMIT_NPROC", (settings.processes, settings.processes));
    }
    limits
}

fn environment(python: &Python, folder: &Path, isolated: bool) -> BTreeMap<&'static str, String> {
    let home = if isolated { "/tmp".to_owned() } else { folder.display().to_string() };
    let bin = python.path.parent().unwrap_or(Path::new("/usr/bin")).display();
    BTreeMap::from([
        ("PATH", format!("{bin}:/usr/local/bin:/usr/bin:/bin")),
        ("HOME", home.clone()),
        ("TMPDIR", home),
        ("USER", "sandbox".to_owned()),
        ("LANG", "C.UTF-8".to_owned()),
        ("PYTHONDONTWRITEBYTECODE", "1".to_owned()),
        ("PYTHONHASHSEED", "0".to_owned()),
    ])
}

fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0'])
}

/// Readable for whoever the code runs as, whatever the umask.
fn place(path: &Path, text: &str) -> std::io::Result<PathBuf> {
    std::fs::write(path, text)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o444))?;
    Ok(path.to_owned())
}

/// A user id that no other sandbox of this machine has at the moment, so that the bound on
/// processes counts this sandbox alone. From the range that systemd keeps for such passing users.
fn passing_uid() -> u32 {
    const FIRST: u32 = 61_184;
    const COUNT: u32 = 4_096;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    FIRST + std::process::id().wrapping_mul(61).wrapping_add(n) % COUNT
}

/// Sorts what the process wrote into the runner's report and the rest.
fn ended(token: &str, supervised: supervise::Supervised) -> Result<Ended, SandboxError> {
    let (mut started, mut report, mut rest) = (false, None, Vec::new());
    let stdout = String::from_utf8_lossy(&supervised.stdout);
    for line in stdout.lines() {
        match line.strip_prefix(token) {
            // The first such line says no more than that.
            Some(_) if !started => started = true,
            Some(fields) => report = serde_json::from_str(fields).ok(),
            None => rest.push(line),
        }
    }
    let stderr = String::from_utf8_lossy(&supervised.stderr).into_owned();
    if !started {
        let reason = match last_line(&stderr) {
            "" => format!("{:?}", supervised.exit),
            line => line.to_owned(),
        };
        return Err(SandboxError::Setup { reason });
    }
    Ok(Ended { report, exit: supervised.exit, stdout: rest.join("\n"), stderr })
}

fn last_line(text: &str) -> &str {
    text.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default()
}
