//! One file: resumed, checked and moved into place.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::StreamExt;
use hf_hub::{HFClient, HFError};
use sha2::{Digest, Sha256};

use super::cache::{ModelCache, create_parent};
use super::disk::free_bytes;
use super::error::{BoxError, HubError};
use super::listing::{RemoteFile, refusal};
use super::name::split_id;
use super::settings::HubSettings;

/// Everything that the files of one model share.
pub(super) struct Transfer<'a> {
    pub settings: &'a HubSettings,
    pub client: HFClient,
    pub cache: ModelCache,
    pub id: &'a str,
    pub commit: &'a str,
    /// Bytes on disk.
    pub bytes: &'a AtomicU64,
    pub total_bytes: &'a AtomicU64,
}

/// How one try ended.
enum Try {
    Complete,
    /// The connection ended early: what came is kept.
    Broken(BoxError),
    Final(HubError),
}

impl Transfer<'_> {
    /// Bytes of a file that are on disk, complete or not.
    pub fn present(&self, file: &RemoteFile) -> u64 {
        let blob = self.cache.blob(&file.etag);
        let len = |path: &Path| fs::metadata(path).map(|facts| facts.len()).ok();
        len(&blob).or_else(|| len(&blob.with_extension("incomplete"))).unwrap_or(0).min(file.size)
    }

    /// Refuses to begin what the disk cannot hold.
    pub fn check_space(&self, files: &[&RemoteFile]) -> Result<(), HubError> {
        let needed_bytes: u64 = files.iter().map(|file| file.size - self.present(file)).sum();
        match free_bytes(&self.settings.cache_dir) {
            Some(free_bytes) if needed_bytes > free_bytes => Err(HubError::DiskFull {
                id: self.id.to_owned(),
                folder: self.settings.cache_dir.clone(),
                free_bytes,
                needed_bytes,
            }),
            _ => Ok(()),
        }
    }

    /// Brings one file into the cache, whole and checked.
    ///
    /// # Errors
    /// Too many tries without a byte, damage twice, a disk that cannot be written, a refusal.
    pub async fn file(&self, file: &RemoteFile) -> Result<(), HubError> {
        let blob = self.cache.blob(&file.etag);
        let partial = blob.with_extension("incomplete");
        let unwritable = |error| HubError::unwritable(&blob, error, file.size - self.present(file));
        create_parent(&blob).map_err(unwritable)?;
        let _lock = self.cache.lock(&file.etag).await.map_err(unwritable)?;
        let complete = |path: &Path| fs::metadata(path).is_ok_and(|facts| facts.len() == file.size);
        self.bytes.fetch_add(self.present(file), Ordering::Relaxed);
        let (mut fruitless, mut damaged) = (0, 0);
        while !complete(&blob) {
            let before = self.present(file);
            match self.attempt(file, &partial).await {
                Try::Complete => match damage(file, &partial).map_err(unwritable)? {
                    None => fs::rename(&partial, &blob).map_err(unwritable)?,
                    Some(what) => {
                        let lost = self.present(file);
                        fs::remove_file(&partial).map_err(unwritable)?;
                        self.bytes.fetch_sub(lost, Ordering::Relaxed);
                        damaged += 1;
                        if damaged == 2 {
                            let (id, file) = (self.id.to_owned(), file.path.clone());
                            return Err(HubError::Damaged { id, file, what });
                        }
                    }
                },
                Try::Broken(source) => {
                    let received = self.present(file);
                    fruitless = if received > before { 0 } else { fruitless + 1 };
                    if fruitless >= self.settings.fruitless_tries {
                        return Err(HubError::BrokenOff {
                            id: self.id.to_owned(),
                            file: file.path.clone(),
                            tries: fruitless,
                            received,
                            size: file.size,
                            source,
                        });
                    }
                    tracing::debug!(
                        file = file.path,
                        received,
                        error = &*source as &(dyn std::error::Error + 'static),
                        "the download resumes after a break"
                    );
                    tokio::time::sleep(self.settings.delay(fruitless.max(1))).await;
                }
                Try::Final(error) => return Err(error),
            }
        }
        self.cache.link(self.commit, &file.path, &file.etag).map_err(unwritable)
    }

    /// Appends to the partial file until it is whole or the connection ends.
    async fn attempt(&self, file: &RemoteFile, partial: &Path) -> Try {
        let unwritable = |e: io::Error| {
            Try::Final(HubError::unwritable(partial, e, file.size - self.present(file)))
        };
        let mut out = match OpenOptions::new().create(true).append(true).open(partial) {
            Ok(out) => out,
            Err(error) => return unwritable(error),
        };
        let mut received = out.metadata().map_or(0, |facts| facts.len());
        if received > file.size {
            // It cannot be a beginning of this file.
            if let Err(error) = out.set_len(0) {
                return unwritable(error);
            }
            received = 0;
        }
        if received == file.size {
            return Try::Complete;
        }
        let (owner, name) = match split_id(self.id) {
            Ok(parts) => parts,
            Err(error) => return Try::Final(error),
        };
        let repository = self.client.model(owner, name);
        let request = repository
            .download_file_stream()
            .filename(&file.path)
            .revision(self.commit)
            .maybe_range((received > 0).then_some(received..file.size))
            .send();
        let stall = self.settings.stall;
        let stalled =
            || Try::Broken(format!("received no byte for {} s", stall.as_secs_f64()).into());
        let mut stream = match tokio::time::timeout(stall, request).await {
            Err(_) => return stalled(),
            Ok(Err(error)) => return self.classify(file, error),
            Ok(Ok((_, stream))) => stream,
        };
        loop {
            let chunk = match tokio::time::timeout(stall, stream.next()).await {
                Err(_) => return stalled(),
                Ok(Some(Ok(chunk))) => chunk,
                Ok(Some(Err(error))) => return Try::Broken(error.into()),
                Ok(None) if received == file.size => return Try::Complete,
                Ok(None) => return Try::Broken("the connection was closed".into()),
            };
            received += chunk.len() as u64;
            if received > file.size {
                // The server sent the whole file where the rest was asked for.
                let kept = out.metadata().map_or(0, |facts| facts.len());
                if let Err(error) = out.set_len(0) {
                    return unwritable(error);
                }
                self.bytes.fetch_sub(kept, Ordering::Relaxed);
                return Try::Broken("received more bytes than the file has".into());
            }
            if let Err(error) = out.write_all(&chunk) {
                return unwritable(error);
            }
            self.bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        }
    }

    /// Which refusals are for good.
    fn classify(&self, file: &RemoteFile, error: HFError) -> Try {
        let refuse =
            |status| Try::Final(refusal(self.settings, self.id, self.commit, status, "GatedRepo"));
        match error {
            HFError::AuthRequired { .. } => refuse(401),
            HFError::Forbidden { .. } => refuse(403),
            HFError::EntryNotFound { .. } | HFError::RepoNotFound { .. } => {
                Try::Final(HubError::NoSuchFile {
                    id: self.id.to_owned(),
                    commit: self.commit.to_owned(),
                    file: file.path.clone(),
                    next_step: "ask for another revision",
                })
            }
            other => Try::Broken(other.into()),
        }
    }
}

/// What is wrong with a file that came whole, if its checksum is known.
fn damage(file: &RemoteFile, path: &Path) -> io::Result<Option<String>> {
    let Some(expected) = &file.sha256 else { return Ok(None) };
    let mut hasher = Sha256::new();
    let mut input = File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match input.read(&mut buffer)? {
            0 => break,
            n => hasher.update(&buffer[..n]),
        }
    }
    let found: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((found != *expected).then(|| format!("its SHA-256 is {found}, not {expected}")))
}
