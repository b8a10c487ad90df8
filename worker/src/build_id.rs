//! Which build this is.

/// Version and, where the build knows it, the commit.
pub const BUILD: &str = match option_env!("BAKEOFF_COMMIT") {
    Some(commit) => commit,
    None => env!("CARGO_PKG_VERSION"),
};
