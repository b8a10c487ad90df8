//! Branches and tags of hub models, resolved to commits, so that a plan means the same tomorrow.

use std::collections::BTreeSet;
use std::time::Duration;

use bakeoff_model::ModelSource;
use bakeoff_proto::redact;
use futures::future::join_all;
use hf_hub::{HFClient, HFError};

use crate::error::BadInput;
use crate::plan::{Plan, Revisions, is_commit, revision_key};
use crate::sweep::Sweep;

/// A hub that has not answered by then counts as out of reach.
const PATIENCE: Duration = Duration::from_secs(15);

/// Commits of a sweep's hub models, and what could not be resolved, as sentences.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolution {
    pub revisions: Revisions,
    pub notes: Vec<String>,
}

/// Resolves what the sweep names by branch or tag. A sweep that was frozen before keeps its commits,
/// even when the branch has moved on: it is the same sweep.
///
/// # Errors
/// [`BadInput`] when the hub says that there is no such model or revision.
pub async fn resolve(sweep: &Sweep, frozen: Option<&Plan>) -> Result<Resolution, anyhow::Error> {
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
    let client = match HFClient::builder().retry_max_attempts(1).build() {
        Ok(client) => client,
        Err(error) => {
            let endpoint = redact::url(&std::env::var("HF_ENDPOINT").unwrap_or_default());
            return Err(BadInput::error(format!("HF_ENDPOINT \"{endpoint}\": {error}")));
        }
    };
    let answers = join_all(wanted.iter().map(|(id, revision)| commit(&client, id, revision))).await;
    let mut out_of_reach = BTreeSet::new();
    let mut reason = String::new();
    for (model, answer) in wanted.into_iter().zip(answers) {
        match answer {
            Ok(commit) => {
                resolution.revisions.insert(revision_key(&model.0, &model.1), commit);
            }
            Err(Unresolved::NoSuch(message)) => return Err(BadInput::error(message)),
            Err(Unresolved::OutOfReach(message)) => {
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

enum Unresolved {
    NoSuch(String),
    OutOfReach(String),
}

async fn commit(client: &HFClient, id: &str, revision: &str) -> Result<String, Unresolved> {
    let (owner, name) = id.split_once('/').unwrap_or(("", id));
    let model = client.model(owner, name);
    let request = model.info().revision(revision).send();
    let endpoint = redact::url(client.endpoint());
    match tokio::time::timeout(PATIENCE, request).await {
        Err(_) => Err(Unresolved::OutOfReach(format!("{endpoint} did not answer"))),
        Ok(Ok(info)) => match info.sha {
            Some(sha) if is_commit(&sha) => Ok(sha),
            Some(_) | None => {
                Err(Unresolved::OutOfReach(format!("{endpoint} told no commit for {id}")))
            }
        },
        Ok(Err(HFError::RepoNotFound { .. } | HFError::EntryNotFound { .. })) => {
            Err(Unresolved::NoSuch(format!(
                "there is no model `{id}` at {endpoint}: check its `id`; for a private one set HF_TOKEN"
            )))
        }
        Ok(Err(HFError::RevisionNotFound { .. })) => Err(Unresolved::NoSuch(format!(
            "model `{id}` has no revision `{revision}` at {endpoint}: name a branch, a tag or a commit that exists"
        ))),
        Ok(Err(HFError::AuthRequired { .. } | HFError::Forbidden { .. })) => {
            Err(Unresolved::NoSuch(format!(
                "{endpoint} does not show model `{id}`: it does not exist, or it is private or gated; check its `id`, or set HF_TOKEN to a token that may read it"
            )))
        }
        Ok(Err(error)) => Err(Unresolved::OutOfReach(format!("{endpoint}: {error}"))),
    }
}

fn offline() -> bool {
    let value = std::env::var("HF_HUB_OFFLINE").unwrap_or_default().to_lowercase();
    matches!(value.as_str(), "1" | "true" | "yes" | "on")
}

fn unresolved(models: &BTreeSet<(String, String)>, reason: &str) -> String {
    let names: Vec<_> = models.iter().map(|(id, revision)| revision_key(id, revision)).collect();
    format!(
        "not resolved to commits ({reason}): {}. Workers take each at its branch, which may move; name a commit as `revision` to pin it",
        names.join(", ")
    )
}
