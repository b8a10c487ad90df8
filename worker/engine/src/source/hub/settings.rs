//! Endpoint, token, cache and patience: read from the environment variables that all of Hugging
//! Face's tools use, so that a machine set up for them needs nothing more.

use std::path::PathBuf;
use std::time::Duration;

use bakeoff_proto::redact;
use hf_hub::HFClient;

use super::error::HubError;

/// Base URL of the hub; a mirror or a proxy's address.
pub const HF_ENDPOINT: &str = "HF_ENDPOINT";
/// Access token for private and gated models.
pub const HF_TOKEN: &str = "HF_TOKEN";
/// File that holds the token; default `$HF_HOME/token`.
pub const HF_TOKEN_PATH: &str = "HF_TOKEN_PATH";
/// Folder of everything Hugging Face keeps; default `~/.cache/huggingface`.
pub const HF_HOME: &str = "HF_HOME";
/// Folder of downloaded models; default `$HF_HOME/hub`.
pub const HF_HUB_CACHE: &str = "HF_HUB_CACHE";
/// `1`: never ask the hub, use what the cache holds.
pub const HF_HUB_OFFLINE: &str = "HF_HUB_OFFLINE";

/// How to reach the hub and where to keep what comes from it.
#[derive(Clone)]
pub struct HubSettings {
    /// Without a trailing slash.
    pub endpoint: String,
    pub token: Option<Token>,
    /// Where a token is looked for that the environment does not hold.
    pub token_file: PathBuf,
    pub cache_dir: PathBuf,
    pub offline: bool,
    /// A transfer that brings no byte for so long is dropped and resumed.
    pub stall: Duration,
    /// Consecutive tries that bring no byte before a file is given up.
    pub fruitless_tries: u32,
    /// Wait after the first failed try; doubled each time, ten seconds at most.
    pub first_delay: Duration,
}

/// An access token, which never shows in a log.
#[derive(Clone)]
pub struct Token(pub String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(hidden)")
    }
}

impl std::fmt::Debug for HubSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HubSettings")
            .field("endpoint", &self.shown_endpoint())
            .field("token", &self.token)
            .field("cache_dir", &self.cache_dir)
            .field("offline", &self.offline)
            .finish_non_exhaustive()
    }
}

impl HubSettings {
    /// The settings that the environment asks for.
    pub fn from_env() -> Self {
        let var = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self::from_lookup(var)
    }

    fn from_lookup(var: impl Fn(&str) -> Option<String>) -> Self {
        let home = var(HF_HOME).map(PathBuf::from).unwrap_or_else(|| {
            let cache = var("XDG_CACHE_HOME").map(PathBuf::from).unwrap_or_else(|| {
                PathBuf::from(var("HOME").unwrap_or_else(|| "/tmp".to_owned())).join(".cache")
            });
            cache.join("huggingface")
        });
        let token_file = var(HF_TOKEN_PATH).map_or_else(|| home.join("token"), PathBuf::from);
        let token = var(HF_TOKEN).or_else(|| std::fs::read_to_string(&token_file).ok());
        let token = token.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        let endpoint = var(HF_ENDPOINT).unwrap_or_else(|| "https://huggingface.co".to_owned());
        Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token: token.map(Token),
            token_file,
            cache_dir: var(HF_HUB_CACHE).map_or_else(|| home.join("hub"), PathBuf::from),
            offline: var(HF_HUB_OFFLINE).is_some_and(|value| is_true(&value)),
            stall: Duration::from_secs(60),
            fruitless_tries: 6,
            first_delay: Duration::from_millis(500),
        }
    }

    /// The endpoint for messages: a mirror's address may hold a user and a password.
    pub fn shown_endpoint(&self) -> String {
        redact::url(&self.endpoint)
    }

    pub(super) fn client(&self) -> Result<HFClient, HubError> {
        let mut builder = HFClient::builder()
            .endpoint(&self.endpoint)
            .cache_dir(&self.cache_dir)
            .retry_max_attempts(0);
        if let Some(token) = &self.token {
            builder = builder.token(&token.0);
        }
        builder.build().map_err(|source| HubError::BadEndpoint {
            endpoint: self.shown_endpoint(),
            source: Box::new(source),
        })
    }

    /// The wait before try `n`, counted from 1 for the first repetition.
    pub(super) fn delay(&self, n: u32) -> Duration {
        self.first_delay
            .saturating_mul(1 << n.saturating_sub(1).min(10))
            .min(Duration::from_secs(10))
    }
}

/// The spellings that `huggingface_hub` takes for yes.
fn is_true(value: &str) -> bool {
    matches!(value.to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> HubSettings {
        let pairs: Vec<(String, String)> =
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        HubSettings::from_lookup(move |name| {
            pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
        })
    }

    #[test]
    fn the_cache_folder_follows_the_most_specific_variable() {
        assert_eq!(
            settings(&[("HOME", "/h")]).cache_dir,
            PathBuf::from("/h/.cache/huggingface/hub")
        );
        assert_eq!(settings(&[("HF_HOME", "/hf")]).cache_dir, PathBuf::from("/hf/hub"));
        let both = settings(&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/models")]);
        assert_eq!(both.cache_dir, PathBuf::from("/models"));
    }

    #[test]
    fn the_token_comes_from_the_variable_or_else_from_its_file() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let home = folder.path().to_str().expect("a UTF-8 path");
        assert!(settings(&[("HF_HOME", home)]).token.is_none());
        std::fs::write(folder.path().join("token"), "hf_file\n").expect("write");
        assert_eq!(settings(&[("HF_HOME", home)]).token.expect("token").0, "hf_file");
        let both = settings(&[("HF_HOME", home), ("HF_TOKEN", "hf_var")]);
        assert_eq!(both.token.as_ref().expect("token").0, "hf_var");
        assert!(!format!("{both:?}").contains("hf_var"));
    }

    #[test]
    fn offline_takes_the_spellings_of_hugging_face() {
        for yes in ["1", "true", "YES", "on"] {
            assert!(settings(&[("HF_HUB_OFFLINE", yes)]).offline, "{yes}");
        }
        for no in ["0", "false", "no"] {
            assert!(!settings(&[("HF_HUB_OFFLINE", no)]).offline, "{no}");
        }
        assert!(!settings(&[]).offline);
    }

    #[test]
    fn an_endpoint_that_is_no_url_is_named() {
        let error = settings(&[("HF_ENDPOINT", "hub.example")]).client().expect_err("no scheme");
        assert!(error.to_string().contains("`hub.example`"), "{error}");
        assert!(error.to_string().contains("HF_ENDPOINT"), "{error}");
    }

    #[test]
    fn a_mirrors_password_is_not_shown() {
        let settings = settings(&[("HF_ENDPOINT", "https://user:hunter2@mirror.example/hf")]);
        assert_eq!(settings.shown_endpoint(), "https://mirror.example/hf");
        assert!(!format!("{settings:?}").contains("hunter2"), "{settings:?}");
    }

    #[test]
    fn delays_grow_to_ten_seconds() {
        let settings = settings(&[]);
        assert_eq!(settings.delay(1), Duration::from_millis(500));
        assert_eq!(settings.delay(2), Duration::from_secs(1));
        assert_eq!(settings.delay(40), Duration::from_secs(10));
    }
}
