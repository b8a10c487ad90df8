//! Dependencies that a manifest names and no source of its crate does, or that the workspace lists and
//! no crate takes: they cost build time, or a reader's.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::process::{Result, repository};

pub fn check() -> Result {
    let mut crates = Vec::new();
    find_crates(&repository(), &mut crates)?;
    let mut unused = Vec::new();
    let mut taken = BTreeSet::new();
    for folder in &crates {
        let mut sources = String::new();
        read_sources(folder, &mut sources)?;
        let manifest = folder.join("Cargo.toml");
        for name in dependencies(&fs::read_to_string(&manifest)?) {
            taken.insert(name.to_owned());
            if !names(&sources, &name.replace('-', "_")) {
                unused.push(format!("{}: {name}", manifest.display()));
            }
        }
    }
    let root = repository().join("Cargo.toml");
    for name in dependencies(&fs::read_to_string(&root)?) {
        if !taken.contains(name) {
            unused.push(format!("{}: {name}", root.display()));
        }
    }
    if unused.is_empty() {
        return Ok(());
    }
    let list = unused.join("\n  ");
    Err(format!("dependencies that nothing uses: remove them\n  {list}").into())
}

/// Folders with a manifest, but for the workspace's own.
fn find_crates(folder: &Path, crates: &mut Vec<PathBuf>) -> Result {
    for sub in folders(folder)? {
        if sub.join("Cargo.toml").exists() {
            crates.push(sub.clone());
        }
        find_crates(&sub, crates)?;
    }
    Ok(())
}

/// The Rust code below a folder, without that of crates inside it.
fn read_sources(folder: &Path, sources: &mut String) -> Result {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push_str(&fs::read_to_string(path)?);
        }
    }
    for sub in folders(folder)? {
        if !sub.join("Cargo.toml").exists() {
            read_sources(&sub, sources)?;
        }
    }
    Ok(())
}

fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type()?.is_dir() && name != "target" && name != ".git" {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// The keys of a manifest's dependency tables, those for a target included.
fn dependencies(manifest: &str) -> Vec<&str> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.trim_end().ends_with("dependencies]");
        } else if inside && line.starts_with(|first: char| first.is_ascii_alphabetic()) {
            let end = line.find(['.', ' ', '=']).unwrap_or(line.len());
            found.push(&line[..end]);
        }
    }
    found
}

/// Whether code holds a word.
fn names(sources: &str, word: &str) -> bool {
    let in_word = |c: char| c.is_alphanumeric() || c == '_';
    sources.match_indices(word).any(|(at, _)| {
        !sources[..at].ends_with(in_word) && !sources[at + word.len()..].starts_with(in_word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_from_every_table() {
        let manifest = "\
[package]
name = \"x\"
[dependencies]
# A comment.
tokio-util.workspace = true
rand = { workspace = true, optional = true }
[target.'cfg(unix)'.dev-dependencies]
libc = \"1\"
[lints]
workspace = true
";
        assert_eq!(dependencies(manifest), ["tokio-util", "rand", "libc"]);
    }

    #[test]
    fn a_name_inside_another_is_no_use() {
        assert!(names("use rand::Rng;", "rand"));
        assert!(!names("use rand_chacha::ChaCha8Rng; let operand = 1;", "rand"));
    }
}
