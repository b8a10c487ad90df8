//! A program of ours as a process: started, listened to, signalled, and never left behind.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use tempfile::TempDir;

use super::process::Process;
use super::{holds_within, wait_until};

/// A running program. Killed when dropped.
pub struct Program {
    process: Process,
    folder: TempDir,
    name: String,
}

impl Program {
    /// Starts it; what it writes is kept apart for stdout and stderr.
    pub fn start(command: &mut Command) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let file = |name| File::create(folder.path().join(name)).expect("the folder is writable");
        let name = format!("{command:?}");
        let process =
            Process::spawn(command, file("stdout"), file("stderr"), folder.path().join("stderr"));
        Self { process, folder, name }
    }

    pub fn stdout(&self) -> String {
        fs::read_to_string(self.folder.path().join("stdout")).expect("what it wrote is UTF-8")
    }

    pub fn stderr(&self) -> String {
        fs::read_to_string(self.folder.path().join("stderr")).expect("what it wrote is UTF-8")
    }

    /// Waits until stderr holds `text`.
    ///
    /// # Panics
    /// When it does not within `limit`, showing what it wrote.
    pub fn wait_for_stderr(&self, text: &str, limit: Duration) {
        self.wait_in("stderr", text, limit);
    }

    /// Waits until stdout holds `text`.
    ///
    /// # Panics
    /// When it does not within `limit`, showing what it wrote.
    pub fn wait_for_stdout(&self, text: &str, limit: Duration) {
        self.wait_in("stdout", text, limit);
    }

    fn wait_in(&self, stream: &str, text: &str, limit: Duration) {
        let path = self.folder.path().join(stream);
        let found = || fs::read_to_string(&path).is_ok_and(|written| written.contains(text));
        let in_time = holds_within(limit, found);
        assert!(in_time, "{}", self.told(&format!("did not write \"{text}\" to {stream}"), limit));
    }

    /// What this program failed to do, and all that it wrote.
    fn told(&self, what: &str, limit: Duration) -> String {
        let Self { name, .. } = self;
        format!("{name} {what} within {limit:?}:\n{}\n{}", self.stdout(), self.stderr())
    }

    pub fn is_running(&mut self) -> bool {
        self.process.ended().is_none()
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// When it does not within `limit`, showing what it wrote.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let mut status = None;
        holds_within(limit, || {
            status = self.process.ended();
            status.is_some()
        });
        status.unwrap_or_else(|| panic!("{}", self.told("did not end", limit)))
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// SIGTERM, as Kubernetes asks a pod to leave.
    pub fn terminate(&self) {
        self.process.signal(libc::SIGTERM);
    }

    /// SIGINT, as Ctrl-C sends it.
    pub fn interrupt(&self) {
        self.process.signal(libc::SIGINT);
    }

    /// SIGSTOP, and waits until every thread stands still.
    pub fn freeze(&self) {
        self.process.signal(libc::SIGSTOP);
        let stat = format!("/proc/{}/stat", self.process.id());
        wait_until("the process stands still", Duration::from_secs(10), || {
            let stat = fs::read_to_string(&stat).expect("a child that is not waited for is listed");
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
        });
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.process.signal(libc::SIGCONT);
    }
}

/// The binary `name` of another crate, which lies beside ours: `own` is `env!("CARGO_BIN_EXE_…")`.
///
/// # Panics
/// When it is not there, with the command that builds it.
pub fn program_beside(own: &str, name: &str, package: &str) -> PathBuf {
    let program = Path::new(own).with_file_name(name);
    assert!(
        program.exists(),
        "{} is missing: build it with `cargo build -p {package}`; `cargo test --workspace` does so by itself",
        program.display()
    );
    program
}
