//! Branches and tags of hub models, resolved to commits, so that a plan means the same tomorrow.
//!
//! One question to the hub for each model: which commit is this revision? The environment variables
//! are those of all Hugging Face tools; a proxy is taken from `HTTPS_PROXY`, `HTTP_PROXY` and
//! `NO_PROXY`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use bakeoff_model::ModelSource;
use bakeoff_proto::redact;
use futures::future::join_all;
use reqwest::header::{HeaderMap, HeaderValue, InvalidHeaderValue};
use reqwest::{Client, StatusCode, Url};
use serde::Deserialize;

use crate::plan::{Plan, Revisions, is_commit, revision_key};
use crate::sweep::Sweep;

/// A hub that has not answered by then counts as out of reach.
const PATIENCE: Duration = Duration::from_secs(15);
const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// Commits of a sweep's hub models, and what could not be resolved, as sentences.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolution {
    /// The commits found.
    pub revisions: Revisions,
    /// What a user should know, as sentences.
    pub notes: Vec<String>,
}

/// A model or a setting that the user has to change.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    #[error(
        "HF_ENDPOINT \"{endpoint}\" cannot be used: set it to a URL such as {DEFAULT_ENDPOINT}"
    )]
    BadEndpoint { endpoint: String },
    #[error("the hub's token (HF_TOKEN or its file) holds characters that no token has")]
    BadToken(#[source] InvalidHeaderValue),
    #[error("no HTTPS client can be made for the hub")]
    NoClient(#[source] reqwest::Error),
    #[error("no model `{id}` at {endpoint}: check its `id`; for a private one set HF_TOKEN")]
    NoSuchModel { id: String, endpoint: String },
    #[error(
        "model `{id}` has no revision `{revision}` at {endpoint}: name a branch, a tag or a \
        commit that exists"
    )]
    NoSuchRevision { id: String, revision: String, endpoint: String },
    #[error(
        "{endpoint} does not show model `{id}`: it does not exist, or it is private or gated; \
        check its `id`, or set HF_TOKEN to a token that may read it"
    )]
    NotShown { id: String, endpoint: String },
}

/// Resolves what the sweep names by branch or tag. A sweep that was frozen before keeps its
/// commits, even when the branch has moved on: it is the same sweep. A hub out of reach is a note,
/// no error.
///
/// # Errors
/// When the hub says that there is no such model or revision, or cannot be asked for a setting.
pub async fn resolve(sweep: &Sweep, frozen: Option<&Plan>) -> Result<Resolution, HubError> {
    let mut wanted: BTreeSet<(String, String)> = BTreeSet::new();
    for model in &sweep.models {
        if let ModelSource::Hub { id, revision } = &model.source
            && !is_commit(revision)
        {
            wanted.insert((id.clone(), revision.clone()));
        }
    }
    let mut resolution = Resolution::default();
    if let Some(plan) = frozen {
        for (id, revision) in &wanted {
            let key = revision_key(id, revision);
            if let Some(commit) = plan.revisions.get(&key) {
                resolution.revisions.insert(key, commit.clone());
            }
        }
        return Ok(resolution);
    }
    if wanted.is_empty() {
        return Ok(resolution);
    }
    if offline() {
        resolution.notes.push(unresolved(&wanted, "HF_HUB_OFFLINE is set"));
        return Ok(resolution);
    }
    let hub = Hub::from_env()?;
    let answers = join_all(wanted.iter().map(|(id, revision)| hub.commit(id, revision))).await;
    let mut out_of_reach = BTreeSet::new();
    let mut reason = String::new();
    for (model, answer) in wanted.into_iter().zip(answers) {
        match answer? {
            Answer::Commit(commit) => {
                resolution.revisions.insert(revision_key(&model.0, &model.1), commit);
            }
            Answer::OutOfReach(message) => {
                reason = message;
                out_of_reach.insert(model);
            }
        }
    }
    if !out_of_reach.is_empty() {
        resolution.notes.push(unresolved(&out_of_reach, &reason));
    }
    Ok(resolution)
}

/// Where to ask, and how.
struct Hub {
    client: Client,
    endpoint: Url,
    /// Without a password.
    shown: String,
}

enum Answer {
    Commit(String),
    OutOfReach(String),
}

impl Hub {
    fn from_env() -> Result<Self, HubError> {
        let text = variable("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned());
        let shown = redact::url(text.trim_end_matches('/'));
        let endpoint = Url::parse(&text)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| HubError::BadEndpoint { endpoint: shown.clone() })?;
        let mut headers = HeaderMap::new();
        if let Some(token) = token() {
            let mut value =
                HeaderValue::from_str(&format!("Bearer {token}")).map_err(HubError::BadToken)?;
            value.set_sensitive(true);
            headers.insert(reqwest::header::AUTHORIZATION, value);
        }
        let client = Client::builder()
            .default_headers(headers)
            .user_agent(concat!("bakeoff/", env!("CARGO_PKG_VERSION")))
            .timeout(PATIENCE)
            .build()
            .map_err(HubError::NoClient)?;
        Ok(Self { client, endpoint, shown })
    }

    /// `GET /api/models/<id>/revision/<revision>`, whose `sha` is the commit.
    async fn commit(&self, id: &str, revision: &str) -> Result<Answer, HubError> {
        #[derive(Deserialize)]
        struct Info {
            sha: Option<String>,
        }
        let mut url = self.endpoint.clone();
        // A branch may hold `/`, which the path has as `%2F`.
        url.path_segments_mut()
            .map_err(|()| HubError::BadEndpoint { endpoint: self.shown.clone() })?
            .pop_if_empty()
            .extend(["api", "models"])
            .extend(id.split('/'))
            .extend(["revision", revision]);
        let response = match self.client.get(url).send().await {
            Ok(response) => response,
            Err(error) => return Ok(self.out_of_reach(&error)),
        };
        let (id, endpoint) = (id.to_owned(), self.shown.clone());
        match response.status() {
            status if status.is_success() => {}
            StatusCode::NOT_FOUND if is_about_the_revision(response.headers()) => {
                let revision = revision.to_owned();
                return Err(HubError::NoSuchRevision { id, revision, endpoint });
            }
            StatusCode::NOT_FOUND => return Err(HubError::NoSuchModel { id, endpoint }),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(HubError::NotShown { id, endpoint });
            }
            status => return Ok(Answer::OutOfReach(format!("{endpoint} answered {status}"))),
        }
        let body = match response.bytes().await {
            Ok(body) => body,
            Err(error) => return Ok(self.out_of_reach(&error)),
        };
        Ok(match serde_json::from_slice::<Info>(&body) {
            Ok(Info { sha: Some(sha) }) if is_commit(&sha) => Answer::Commit(sha),
            Ok(_) => Answer::OutOfReach(format!("{endpoint} named no commit for {id}")),
            Err(error) => Answer::OutOfReach(format!("{endpoint} sent no model: {error}")),
        })
    }

    fn out_of_reach(&self, error: &reqwest::Error) -> Answer {
        if error.is_timeout() {
            return Answer::OutOfReach(format!("{} did not answer", self.shown));
        }
        // The innermost cause says what happened; those around it repeat the URL.
        let mut cause: &dyn std::error::Error = error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        Answer::OutOfReach(format!("{}: {cause}", self.shown))
    }
}

/// The hub's own word for what is missing.
fn is_about_the_revision(headers: &HeaderMap) -> bool {
    headers.get("x-error-code").is_some_and(|code| code == "RevisionNotFound")
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().map(|value| value.trim().to_owned()).filter(|v| !v.is_empty())
}

/// The access token: `HF_TOKEN`, else the file that `hf auth login` writes.
fn token() -> Option<String> {
    variable("HF_TOKEN").or_else(|| {
        let file = variable("HF_TOKEN_PATH").map(PathBuf::from).or_else(|| {
            let home = variable("HF_HOME").map(PathBuf::from).or_else(|| {
                let cache = variable("XDG_CACHE_HOME")
                    .map(PathBuf::from)
                    .or_else(|| Some(std::env::home_dir()?.join(".cache")))?;
                Some(cache.join("huggingface"))
            })?;
            Some(home.join("token"))
        })?;
        let token = std::fs::read_to_string(file).ok()?;
        Some(token.trim().to_owned()).filter(|token| !token.is_empty())
    })
}

fn offline() -> bool {
    let value = variable("HF_HUB_OFFLINE").unwrap_or_default().to_lowercase();
    matches!(value.as_str(), "1" | "true" | "yes" | "on")
}

fn unresolved(models: &BTreeSet<(String, String)>, reason: &str) -> String {
    let names: Vec<_> = models.iter().map(|(id, revision)| revision_key(id, revision)).collect();
    format!(
        "not resolved to commits ({reason}): {}. Workers take each at its branch, which may move; \
        name a commit as `revision` to pin it",
        names.join(", ")
    )
}
