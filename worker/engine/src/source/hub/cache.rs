//! Where files lie on disk: the cache layout of `huggingface_hub`, so that all tools share
//! downloads.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::name::is_commit;

/// One model's folder in the cache.
#[derive(Debug, Clone)]
pub(super) struct ModelCache {
    root: PathBuf,
    locks: PathBuf,
}

impl ModelCache {
    pub fn new(cache_dir: &Path, id: &str) -> Self {
        let name = format!("models--{}", id.replace('/', "--"));
        Self { root: cache_dir.join(&name), locks: cache_dir.join(".locks").join(name) }
    }

    /// The commit that a revision stood for when the hub was last asked; a commit stands for
    /// itself.
    pub fn commit(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        let commit = fs::read_to_string(self.root.join("refs").join(revision)).ok()?;
        Some(commit.trim().to_owned()).filter(|commit| is_commit(commit))
    }

    pub fn remember(&self, revision: &str, commit: &str) -> io::Result<()> {
        if revision == commit {
            return Ok(());
        }
        write_in(&self.root.join("refs").join(revision), commit.as_bytes())
    }

    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }

    pub fn blob(&self, etag: &str) -> PathBuf {
        self.root.join("blobs").join(etag)
    }

    /// Marks a file that the commit does not have, so that nobody asks again.
    pub fn mark_absent(&self, commit: &str, file: &str) -> io::Result<()> {
        write_in(&self.absent(commit, file), b"")
    }

    pub fn is_settled(&self, commit: &str, file: &str) -> bool {
        self.snapshot(commit).join(file).exists() || self.absent(commit, file).exists()
    }

    fn absent(&self, commit: &str, file: &str) -> PathBuf {
        self.root.join(".no_exist").join(commit).join(file)
    }

    /// Makes a blob appear under its name in the commit's folder.
    pub fn link(&self, commit: &str, file: &str, etag: &str) -> io::Result<()> {
        let pointer = self.snapshot(commit).join(file);
        create_parent(&pointer)?;
        let up = "../".repeat(2 + file.matches('/').count());
        match fs::remove_file(&pointer) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        match std::os::unix::fs::symlink(format!("{up}blobs/{etag}"), &pointer) {
            // Another process was as fast and linked the same blob.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            result => result,
        }
    }

    /// Waits until no other process downloads the same blob. The lock ends with the file or its
    /// process.
    pub async fn lock(&self, etag: &str) -> io::Result<File> {
        let path = self.locks.join(format!("{etag}.lock"));
        create_parent(&path)?;
        let file = File::create(&path)?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(fs::TryLockError::WouldBlock) => {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                Err(fs::TryLockError::Error(error)) => return Err(error),
            }
        }
    }
}

fn write_in(path: &Path, bytes: &[u8]) -> io::Result<()> {
    create_parent(path)?;
    fs::write(path, bytes)
}

pub(super) fn create_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}
