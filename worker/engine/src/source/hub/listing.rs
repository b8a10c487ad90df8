//! A revision becomes a commit, its files, their sizes and checksums: one request.

use std::time::Duration;

use serde::Deserialize;

use super::name::{check_revision, is_commit, is_plain_path, split_id};
use super::{
    error::{BoxError, HubError},
    settings::HubSettings,
};

/// A model at one commit.
#[derive(Debug, Clone)]
pub struct Listing {
    pub commit: String,
    pub files: Vec<RemoteFile>,
}

/// One file of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteFile {
    pub path: String,
    pub size: u64,
    /// Name of its contents in the cache: the checksum of a large file, git's hash of a small one.
    pub etag: String,
    /// Known for large files.
    pub sha256: Option<String>,
}

impl Listing {
    /// The file at `path`, if the commit has it.
    pub fn file(&self, path: &str) -> Option<&RemoteFile> {
        self.files.iter().find(|file| file.path == path)
    }
}

#[derive(Deserialize)]
struct Info {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
    size: u64,
}

/// Asks the hub what `revision` of `id` holds.
///
/// # Errors
/// No such model or revision, no right to see it, no answer.
pub async fn list(settings: &HubSettings, id: &str, revision: &str) -> Result<Listing, HubError> {
    split_id(id)?;
    check_revision(id, revision)?;
    let encoded =
        revision.replace('%', "%25").replace('/', "%2F").replace('#', "%23").replace('?', "%3F");
    let url = format!("{}/api/models/{id}/revision/{encoded}?blobs=true", settings.endpoint);
    let unreachable = |source: BoxError| HubError::Unreachable {
        id: id.to_owned(),
        endpoint: settings.shown_endpoint(),
        source,
    };
    let client = reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(15).min(settings.stall))
        .timeout(settings.stall)
        .build()
        .map_err(|error| unreachable(error.into()))?;
    let mut tries = 0;
    let body = loop {
        let mut request = client.get(&url);
        if let Some(token) = &settings.token {
            request = request.bearer_auth(&token.0);
        }
        let source: BoxError = match request.send().await {
            Ok(response) if response.status().is_success() => match response.bytes().await {
                Ok(body) => break body,
                Err(error) => error.into(),
            },
            Ok(response) => {
                let status = response.status().as_u16();
                if matches!(status, 400..=499) && !matches!(status, 408 | 429) {
                    let code = response.headers().get("x-error-code").and_then(|v| v.to_str().ok());
                    return Err(refusal(settings, id, revision, status, code.unwrap_or_default()));
                }
                format!("HTTP status {status}").into()
            }
            Err(error) => error.into(),
        };
        tries += 1;
        if tries >= settings.fruitless_tries {
            return Err(unreachable(source));
        }
        tokio::time::sleep(settings.delay(tries)).await;
    };
    let bad_answer = |source: BoxError| HubError::BadAnswer {
        id: id.to_owned(),
        endpoint: settings.shown_endpoint(),
        source,
    };
    let info: Info = serde_json::from_slice(&body).map_err(|error| bad_answer(error.into()))?;
    if !is_commit(&info.sha) {
        return Err(bad_answer(format!("`{}` is not a commit", info.sha).into()));
    }
    let files = info.siblings.into_iter().filter_map(remote_file).collect();
    Ok(Listing { commit: info.sha, files })
}

/// Files whose name or hash could lead out of the cache are as good as absent.
fn remote_file(sibling: Sibling) -> Option<RemoteFile> {
    let (size, etag, sha256) = match sibling.lfs {
        Some(lfs) => (lfs.size, lfs.sha256.clone(), Some(lfs.sha256)),
        None => (sibling.size?, sibling.blob_id?, None),
    };
    let hash = matches!(etag.len(), 40 | 64) && etag.bytes().all(|b| b.is_ascii_hexdigit());
    (hash && is_plain_path(&sibling.rfilename)).then_some(RemoteFile {
        path: sibling.rfilename,
        size,
        etag,
        sha256,
    })
}

/// What a refusal means. The hub answers 401 for a model that does not exist when no token came
/// along.
pub(super) fn refusal(
    settings: &HubSettings,
    id: &str,
    revision: &str,
    status: u16,
    code: &str,
) -> HubError {
    let (id, endpoint) = (id.to_owned(), settings.shown_endpoint());
    let token_hint =
        if settings.token.is_some() { "; the token that is set is not enough" } else { "" };
    match (status, code) {
        (_, "RevisionNotFound") => {
            HubError::NoSuchRevision { id, revision: revision.to_owned(), endpoint }
        }
        (403, _) | (_, "GatedRepo") => HubError::Gated { id, endpoint, token_hint },
        _ => HubError::NoSuchModel { id, endpoint, token_hint },
    }
}
