//! Finds the commit of this build: `BAKEOFF_COMMIT` where it is set (images, release archives),
//! else what git says of the checkout. A source tree without git has none.
//!
//! Only optimised builds ask git, because every commit and every edit changes the answer, and what
//! depends on it is compiled anew. The figures of a debug build are nobody's results.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the workspace is built from; an edit of it may make the build a modified one.
const SOURCES: [&str; 5] = ["Cargo.lock", "Cargo.toml", "coordinator", "proto", "worker"];

fn main() {
    println!("cargo::rerun-if-env-changed=BAKEOFF_COMMIT");
    println!("cargo::rerun-if-changed=build.rs");
    let version = env!("CARGO_PKG_VERSION");
    let mut given = env::var("BAKEOFF_COMMIT").ok().filter(|commit| !commit.is_empty());
    if let Some(commit) = &mut given
        && commit.len() == 40
    {
        commit.truncate(12);
    }
    let optimised = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let build = match given.or_else(|| optimised.then(ask_git).flatten()) {
        Some(commit) => {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
            assert!(
                commit.chars().all(plain),
                "BAKEOFF_COMMIT is {commit:?}: expected letters, digits, `-`, `.` and `_`"
            );
            println!("cargo::rustc-env=BAKEOFF_BUILD_COMMIT={commit}");
            format!("{version} ({commit})")
        }
        None if optimised => version.to_owned(),
        None => format!("{version} (debug build)"),
    };
    println!("cargo::rustc-env=BAKEOFF_BUILD={build}");
}

/// Twelve digits of the commit, and `-dirty` when a tracked file differs from it.
fn ask_git() -> Option<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().ok()?;
    // Sources unpacked inside somebody else's checkout are not of its commit.
    let checkout =
        PathBuf::from(git(&root, &["rev-parse", "--show-toplevel"])?).canonicalize().ok()?;
    if checkout != root {
        return None;
    }
    let commit = git(&root, &["rev-parse", "--short=12", "HEAD"])?;
    // The log of HEAD gains a line with every commit, checkout and reset.
    for name in ["HEAD", "logs/HEAD"] {
        let path = root.join(git(&root, &["rev-parse", "--git-path", name])?);
        // A file that is missing would run this script at every build.
        if path.exists() {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
    }
    let changed = git(&root, &["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changed.is_empty() { commit } else { format!("{commit}-dirty") })
}

fn git(root: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .args(["--no-optional-locks", "-C"])
        .arg(root)
        .args(arguments)
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
