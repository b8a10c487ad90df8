//! Isolation by bubblewrap: namespaces of its own for processes, network, mounts and System V
//! objects; a root folder that holds the system's programs read-only and two small folders in
//! memory; no environment, no capabilities, no way to gain any.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Python, SandboxError, passing_uid};
use crate::sweep::CheckSettings;

/// Where the code lies inside.
pub const FOLDER: &str = "/work";
const RUNNER: &str = "/run/bakeoff/runner.py";

/// Bubblewrap, found in PATH.
#[derive(Debug)]
pub struct Bubblewrap {
    bwrap: PathBuf,
    /// Root sets the namespaces up with its rights and the runner gives these up; anybody else uses
    /// a user namespace.
    root: bool,
}

impl Bubblewrap {
    pub fn find() -> Result<Self, SandboxError> {
        let path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin"));
        let bwrap = std::env::split_paths(&path)
            .map(|folder| folder.join("bwrap"))
            .find(|file| file.is_file())
            .ok_or(SandboxError::NoBubblewrap)?;
        // SAFETY: geteuid takes nothing, changes nothing and cannot fail.
        let root = unsafe { libc::geteuid() } == 0;
        Ok(Self { bwrap, root })
    }

    /// The user that the code becomes; `None` where it already is nobody special.
    pub fn uid(&self) -> Option<u32> {
        self.root.then(passing_uid)
    }

    /// Runs the runner with `files` in its folder; `filter` is open, and stays so across the start.
    pub fn command(
        &self,
        settings: &CheckSettings,
        python: &Python,
        runner: &Path,
        files: &[PathBuf],
        filter: RawFd,
    ) -> Command {
        let mut command = Command::new(&self.bwrap);
        command.args(["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]);
        command.args(["--unshare-cgroup-try", "--hostname", "sandbox"]);
        command.args(["--die-with-parent", "--new-session", "--clearenv", "--cap-drop", "ALL"]);
        if self.root {
            // Held until the runner has become somebody else; a change of user drops them.
            command.args(["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]);
        } else {
            command.arg("--unshare-user");
        }
        let size = (settings.file_mb * 1_000_000).to_string();
        command.args(["--proc", "/proc", "--dev", "/dev"]);
        for folder in ["/tmp", "/dev/shm", FOLDER] {
            command.args(["--perms", "1777", "--size", &size, "--tmpfs", folder]);
        }
        system_folders(&mut command);
        for prefix in python.prefixes.iter().filter(|prefix| !prefix.starts_with("/usr")) {
            // Not the prefix as a whole: a virtual environment may lie in someone's home.
            for part in ["bin", "lib", "lib64", "pyvenv.cfg"] {
                bind(&mut command, &prefix.join(part));
            }
        }
        for file in files {
            let name = file.file_name().expect("files were placed by name");
            command.arg("--ro-bind").arg(file).arg(Path::new(FOLDER).join(name));
        }
        open_parents(&mut command, Path::new(RUNNER));
        command.arg("--ro-bind").arg(runner).arg(RUNNER);
        command.args(["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", FOLDER]);
        command.args(["--seccomp", &filter.to_string(), "--"]);
        command.arg(&python.path).args(["-I", RUNNER]);
        command
    }
}

/// Programs and libraries, and what finding libraries needs; nothing else of /etc, no home, no
/// /var.
fn system_folders(command: &mut Command) {
    command.args(["--ro-bind", "/usr", "/usr"]);
    for name in ["/bin", "/sbin", "/lib", "/lib32", "/lib64"] {
        match std::fs::read_link(name) {
            Ok(target) => {
                command.arg("--symlink").arg(target).arg(name);
            }
            Err(_) => bind(command, Path::new(name)),
        }
    }
    for name in ["/etc/ld.so.cache", "/etc/alternatives"] {
        bind(command, Path::new(name));
    }
}

/// Shows a path of this machine at the same place, if it is there.
fn bind(command: &mut Command, path: &Path) {
    if path.exists() {
        open_parents(command, path);
        command.arg("--ro-bind").arg(path).arg(path);
    }
}

/// Bubblewrap makes missing parents for its own user only, and the code may run as another.
fn open_parents(command: &mut Command, path: &Path) {
    let mut parents: Vec<&Path> = path.ancestors().skip(1).collect();
    parents.reverse();
    for parent in parents.into_iter().filter(|parent| parent.parent().is_some()) {
        command.args(["--perms", "0755", "--dir"]).arg(parent);
    }
}
