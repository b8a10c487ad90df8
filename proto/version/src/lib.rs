//! Version and commit of this build. A crate of its own, so that a new commit compiles only the two
//! programs anew, and not everything below them.

/// The version in `Cargo.toml`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Twelve digits of the commit, followed by `-dirty` when a tracked file differed from it, or what
/// `BAKEOFF_COMMIT` said at build time. None in a debug build, and for sources without git.
pub const COMMIT: Option<&str> = option_env!("BAKEOFF_BUILD_COMMIT");

/// What `--version`, records and reports show: `0.1.0 (abcdef123456)`.
pub const BUILD: &str = env!("BAKEOFF_BUILD");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_build_names_its_version_and_its_commit() {
        let rest = BUILD.strip_prefix(VERSION).expect("the version comes first");
        match COMMIT {
            Some(commit) => assert_eq!(rest, format!(" ({commit})")),
            None => assert!(["", " (debug build)"].contains(&rest), "{BUILD}"),
        }
    }
}
