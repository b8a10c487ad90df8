//! A model from the hub, brought into the cache that Hugging Face's tools share.
//!
//! - [`settings`]: endpoint, token, cache folder and offline switch, from the environment
//! - [`name`]: what a model's id and revision may look like
//! - [`listing`]: a revision becomes a commit, its files and their sizes
//! - `cache`: where files lie on disk; `disk`: what it still takes
//! - `fetch`: one file, resumed, checked and moved into place
//! - [`probe`]: whether the hub answers at all
//! - [`error`]: what can go wrong
//!
//! Bytes come through the hf-hub crate (authentication, redirects, ranges, Xet). Built around it,
//! because it lacks them: resumption of a partial file, the checksum, the stall limit, the disk
//! check, the offline switch, and a listing that carries the checksums.

mod cache;
mod disk;
pub mod error;
mod fetch;
pub mod listing;
pub mod name;
pub mod probe;
pub mod settings;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};

pub use error::HubError;
pub use settings::HubSettings;

use super::files::{DownloadProgress, OnDownload};
use super::folder::{
    CHAT_TEMPLATE, CONFIG, GENERATION_CONFIG, INDEX, SINGLE, TOKENIZER, TOKENIZER_CONFIG, shards,
};
use cache::ModelCache;
use fetch::Transfer;
use listing::{Listing, RemoteFile, list};

/// Small files, fetched first; only the configuration must exist.
const SMALL: [&str; 5] = [CONFIG, GENERATION_CONFIG, TOKENIZER, TOKENIZER_CONFIG, CHAT_TEMPLATE];
/// Files on their way at once.
const PARALLEL: usize = 4;
const REPORT_EVERY: Duration = Duration::from_millis(200);

/// A model's files on disk.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    pub commit: String,
    pub folder: PathBuf,
    /// `None` if nothing had to be downloaded.
    pub download_s: Option<f64>,
}

/// Bytes free for models in the cache, which must be writable.
///
/// # Errors
/// [`HubError::Unwritable`].
pub fn cache_room(settings: &HubSettings) -> Result<u64, HubError> {
    let folder = &settings.cache_dir;
    disk::check_writable(folder).map_err(|error| HubError::unwritable(folder, error, 0))?;
    Ok(disk::free_bytes(folder).unwrap_or(0))
}

/// Brings the files of `id` at `revision` into the cache, weights too if asked. A pinned commit
/// whose files are all there needs no network.
///
/// # Errors
/// See [`HubError`]; [`HubError::Abandoned`] when `on_progress` breaks.
pub fn fetch(
    settings: &HubSettings,
    id: &str,
    revision: &str,
    weights: bool,
    on_progress: OnDownload<'_>,
) -> Result<Snapshot, HubError> {
    name::split_id(id)?;
    name::check_revision(id, revision)?;
    let cache = ModelCache::new(&settings.cache_dir, id);
    if settings.offline || name::is_commit(revision) {
        match cached(&cache, revision, weights, settings.offline) {
            Ok(snapshot) => return Ok(snapshot),
            Err(what) if settings.offline => {
                return Err(HubError::NotCached {
                    id: id.to_owned(),
                    revision: revision.to_owned(),
                    what,
                    cache: settings.cache_dir.clone(),
                });
            }
            Err(_) => {}
        }
    }
    let (bytes, total_bytes) = (AtomicU64::new(0), AtomicU64::new(0));
    let abandoned = tokio::sync::Notify::new();
    // A thread of its own, so that the caller may itself stand inside a runtime.
    std::thread::scope(|scope| {
        let (sender, results) = mpsc::sync_channel(1);
        let (bytes, total_bytes, abandoned) = (&bytes, &total_bytes, &abandoned);
        scope.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let result = match runtime {
                Ok(runtime) => runtime.block_on(async {
                    let download =
                        download(settings, cache, id, revision, weights, bytes, total_bytes);
                    tokio::select! {
                        result = download => result,
                        () = abandoned.notified() => Err(HubError::Abandoned(id.to_owned())),
                    }
                }),
                Err(error) => Err(HubError::unwritable(&settings.cache_dir, error, 0)),
            };
            let _ = sender.send(result);
        });
        loop {
            match results.recv_timeout(REPORT_EVERY) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Timeout) => {
                    let progress = DownloadProgress {
                        bytes: bytes.load(Ordering::Relaxed),
                        total_bytes: total_bytes.load(Ordering::Relaxed),
                    };
                    if on_progress(progress).is_break() {
                        abandoned.notify_one();
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(HubError::Abandoned(id.to_owned()));
                }
            }
        }
    })
}

/// A snapshot that the cache holds whole, or what it lacks. Offline, files that a model can do
/// without are taken to be absent; else they must be known to be.
fn cached(
    cache: &ModelCache,
    revision: &str,
    weights: bool,
    offline: bool,
) -> Result<Snapshot, String> {
    let commit = cache.commit(revision).ok_or("the commit")?;
    let folder = cache.snapshot(&commit);
    let lacks = |file: &str| !folder.join(file).exists();
    if lacks(CONFIG) {
        return Err(CONFIG.to_owned());
    }
    if let Some(file) = SMALL.iter().find(|file| !offline && !cache.is_settled(&commit, file)) {
        return Err((*file).to_owned());
    }
    if weights && lacks(SINGLE) {
        let index = std::fs::read(folder.join(INDEX)).map_err(|_| SINGLE.to_owned())?;
        let shards = shards(&index).map_err(|_| INDEX.to_owned())?;
        if let Some(shard) = shards.into_iter().find(|shard| lacks(shard)) {
            return Err(shard);
        }
    }
    Ok(Snapshot { commit, folder, download_s: None })
}

async fn download(
    settings: &HubSettings,
    cache: ModelCache,
    id: &str,
    revision: &str,
    weights: bool,
    bytes: &AtomicU64,
    total_bytes: &AtomicU64,
) -> Result<Snapshot, HubError> {
    let listing = list(settings, id, revision).await?;
    let started = Instant::now();
    let transfer = Transfer {
        settings,
        client: settings.client()?,
        cache,
        id,
        commit: &listing.commit,
        bytes,
        total_bytes,
    };
    if listing.file(CONFIG).is_none() {
        return Err(no_such_file(
            id,
            &listing,
            CONFIG,
            "choose a repository in transformers' layout",
        ));
    }
    let small = SMALL.iter().chain(weights.then_some(&INDEX)).filter_map(|path| listing.file(path));
    let fetched = transfer.all(small.collect()).await?;
    let weight_files =
        if weights { weight_files(id, &listing, &transfer.cache)? } else { Vec::new() };
    let fetched = transfer.all(weight_files).await? || fetched;
    let cache = &transfer.cache;
    let settle = || {
        let absent = SMALL.iter().filter(|path| listing.file(path).is_none());
        absent.copied().try_for_each(|path| cache.mark_absent(&listing.commit, path))?;
        cache.remember(revision, &listing.commit)
    };
    settle().map_err(|error| HubError::unwritable(&settings.cache_dir, error, 0))?;
    Ok(Snapshot {
        folder: cache.snapshot(&listing.commit),
        download_s: fetched.then(|| started.elapsed().as_secs_f64()),
        commit: listing.commit.clone(),
    })
}

impl Transfer<'_> {
    /// Brings several files; true if anything had to be downloaded.
    async fn all(&self, files: Vec<&RemoteFile>) -> Result<bool, HubError> {
        let total: u64 = files.iter().map(|file| file.size).sum();
        self.total_bytes.fetch_add(total, Ordering::Relaxed);
        let missing = files.iter().any(|file| self.present(file) < file.size);
        self.check_space(&files)?;
        futures::stream::iter(files)
            .map(|file| self.file(file))
            .buffer_unordered(PARALLEL)
            .try_collect::<()>()
            .await?;
        Ok(missing)
    }
}

/// The safetensors files of a commit, its index already in the cache.
fn weight_files<'a>(
    id: &str,
    listing: &'a Listing,
    cache: &ModelCache,
) -> Result<Vec<&'a RemoteFile>, HubError> {
    if let Some(single) = listing.file(SINGLE) {
        return Ok(vec![single]);
    }
    if listing.file(INDEX).is_none() {
        let names: Vec<&str> =
            listing.files.iter().map(|file| file.path.as_str()).take(20).collect();
        return Err(HubError::NoSafetensors {
            id: id.to_owned(),
            commit: listing.commit.clone(),
            found: names.join(", "),
        });
    }
    let bad = |source| HubError::BadIndex { id: id.to_owned(), file: INDEX.to_owned(), source };
    let index = std::fs::read(cache.snapshot(&listing.commit).join(INDEX))
        .map_err(|error| bad(error.into()))?;
    let find = |shard: String| {
        let missing =
            || no_such_file(id, listing, &shard, "the index names it; ask for another revision");
        listing.file(&shard).ok_or_else(missing)
    };
    shards(&index).map_err(|error| bad(error.into()))?.into_iter().map(find).collect()
}

fn no_such_file(id: &str, listing: &Listing, file: &str, next_step: &'static str) -> HubError {
    HubError::NoSuchFile {
        id: id.to_owned(),
        commit: listing.commit.clone(),
        file: file.to_owned(),
        next_step,
    }
}
