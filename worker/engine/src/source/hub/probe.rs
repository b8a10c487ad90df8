//! Whether the hub answers this machine, and whether it knows its token. Needs no model.

use std::time::Duration;

use serde::Deserialize;

use super::settings::HubSettings;

/// What a hub that answers said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Models are listed to anybody who asks.
    Anonymous,
    /// The token is this account's.
    Account(String),
    /// A mirror that lists models and knows no accounts: nobody can say what the token is worth.
    NoAccounts,
}

/// Why models could not be had from it.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error(
        "{endpoint} does not answer; check the network, the proxy and HF_ENDPOINT; where models \
         come from folders or a filled cache, set HF_HUB_OFFLINE=1"
    )]
    Silent { endpoint: String, source: reqwest::Error },
    #[error(
        "{endpoint} refuses the token of this machine: set HF_TOKEN to a valid one, or unset it \
         and remove {token_file} for public models"
    )]
    TokenRefused { endpoint: String, token_file: String },
    #[error(
        "{endpoint} answers with HTTP status {status}: HF_ENDPOINT must be the base URL of a hub, \
         such as https://huggingface.co"
    )]
    NotAHub { endpoint: String, status: u16 },
}

/// Asks for the account of the token, or without one for a list of models.
///
/// # Errors
/// No answer within `limit`, a token that is refused, something that is no hub.
pub async fn probe(settings: &HubSettings, limit: Duration) -> Result<Answer, ProbeError> {
    let endpoint = || settings.shown_endpoint();
    let silent = |source: reqwest::Error| ProbeError::Silent { endpoint: endpoint(), source };
    let client = reqwest::Client::builder().timeout(limit).build().map_err(silent)?;
    if let Some(token) = &settings.token {
        let url = format!("{}/api/whoami-v2", settings.endpoint);
        let response = client.get(url).bearer_auth(&token.0).send().await.map_err(silent)?;
        match response.status().as_u16() {
            200..=299 => {
                #[derive(Deserialize)]
                struct Account {
                    name: String,
                }
                let body = response.bytes().await.map_err(silent)?;
                if let Ok(account) = serde_json::from_slice::<Account>(&body) {
                    return Ok(Answer::Account(account.name));
                }
            }
            401 | 403 => {
                let token_file = settings.token_file.display().to_string();
                return Err(ProbeError::TokenRefused { endpoint: endpoint(), token_file });
            }
            _ => {}
        }
    }
    let url = format!("{}/api/models?limit=1", settings.endpoint);
    let response = client.get(url).send().await.map_err(silent)?;
    match (response.status().as_u16(), &settings.token) {
        (200..=299, None) => Ok(Answer::Anonymous),
        (200..=299, Some(_)) => Ok(Answer::NoAccounts),
        (status, _) => Err(ProbeError::NotAHub { endpoint: endpoint(), status }),
    }
}
