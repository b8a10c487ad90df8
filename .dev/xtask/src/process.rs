//! Starting programs from the root of the repository.

use std::env;
use std::error::Error;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// A program to run; a path is relative to the repository.
pub struct Program(Command);

pub fn program(name: impl AsRef<OsStr>) -> Program {
    let mut command = Command::new(name);
    command.current_dir(repository());
    Program(command)
}

/// The cargo that runs this task.
pub fn cargo<const N: usize>(arguments: [&str; N]) -> Program {
    program(env::var_os("CARGO").unwrap_or_else(|| "cargo".into())).args(arguments)
}

impl Program {
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.0.arg(argument);
        self
    }

    pub fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.0.args(arguments);
        self
    }

    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.0.env(name, value);
        self
    }

    pub fn envs(mut self, variables: &[(String, String)]) -> Self {
        self.0.envs(variables.iter().map(|(name, value)| (name, value)));
        self
    }

    /// Runs it to its end. Anything but success is an error that names the command.
    pub fn run(mut self) -> Result {
        let status = self.0.status().map_err(|error| self.failed(error))?;
        if status.success() { Ok(()) } else { Err(self.failed(status)) }
    }

    /// Its standard output and, after that, its standard error.
    pub fn output(mut self) -> Result<(String, String)> {
        let output = self.0.stdin(Stdio::null()).output().map_err(|error| self.failed(error))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        if output.status.success() {
            return Ok((stdout, stderr));
        }
        eprint!("{stdout}{stderr}");
        Err(self.failed(output.status))
    }

    fn failed(&self, why: impl std::fmt::Display) -> Box<dyn Error> {
        let words: Vec<_> = [self.0.get_program()]
            .into_iter()
            .chain(self.0.get_args())
            .map(|word| word.to_string_lossy())
            .collect();
        format!("`{}`: {why}", words.join(" ")).into()
    }
}

/// The root of the repository.
pub fn repository() -> PathBuf {
    // Cargo sets it for what it runs; the one from compilation serves a binary that is started by
    // hand.
    let manifest = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    manifest.ancestors().nth(2).expect("this crate is two folders below the root").to_owned()
}

/// Where cargo builds, by `CARGO_TARGET_DIR`.
pub fn build_folder() -> PathBuf {
    let named = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    repository().join(named)
}

/// Where tools and servers that tests fetch are kept, by `BAKEOFF_TEST_CACHE`.
pub fn cache() -> Result<PathBuf> {
    match env::var_os("BAKEOFF_TEST_CACHE") {
        Some(folder) if !folder.is_empty() => Ok(folder.into()),
        _ => Ok(home()?.join(".cache/bakeoff")),
    }
}

pub fn home() -> Result<PathBuf> {
    env::home_dir().ok_or_else(|| "the home folder is unknown: set HOME".into())
}

/// Whether a program is in one of the folders of `PATH`.
pub fn is_installed(name: &str) -> bool {
    env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|folder| is_program(&folder.join(name))))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// Installs a program's Debian package where the program is missing.
pub fn install(name: &str, package: &str) -> Result {
    if is_installed(name) {
        return Ok(());
    }
    // Package lists that cannot be fetched may still be recent enough.
    let _ = program("apt-get").args(["update", "-qq"]).run();
    program("apt-get")
        .args(["install", "--yes", "-qq", "--no-install-recommends", package])
        .env("DEBIAN_FRONTEND", "noninteractive")
        .run()
        .map_err(|error| {
            format!(
                "there is no {name}, and apt-get could not install it ({error}): install {package}"
            )
        })?;
    Ok(())
}
