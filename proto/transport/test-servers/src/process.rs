//! A child process that tests may kill, freeze and thaw, and that never outlives its owner.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

pub(super) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// A server, which writes all to one log.
    pub fn start(command: &mut Command, log: PathBuf) -> Self {
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap_or_else(|error| panic!("cannot write {}: {error}", log.display()));
        let errors = file.try_clone().expect("a file handle can be cloned");
        Self::spawn(command, file, errors, log)
    }

    /// `log` is what is shown of it when a test fails.
    pub fn spawn(command: &mut Command, stdout: File, stderr: File, log: PathBuf) -> Self {
        let child = command
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        Self { child, log }
    }

    /// The end of what the server wrote, for the message of a failed test.
    pub fn log_tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child of ours can be asked for")
    }

    pub fn assert_running(&mut self) {
        if let Some(status) = self.ended() {
            panic!("the server ended with {status}:\n{}", self.log_tail());
        }
    }

    pub fn kill(&mut self) {
        // Both fail only for a process that has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends SIGSTOP, SIGCONT, SIGINT or SIGTERM.
    pub fn signal(&self, signal: libc::c_int) {
        let pid = libc::pid_t::try_from(self.child.id()).expect("a process id fits its type");
        // SAFETY: `kill` takes any numbers; the child is ours and not yet waited for.
        let result = unsafe { libc::kill(pid, signal) };
        assert_eq!(result, 0, "signal {signal} could not be sent to {pid}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
