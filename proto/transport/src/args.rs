//! Where broker and store are, as command-line arguments of both binaries.

use std::fmt;
use std::path::PathBuf;

use bakeoff_proto::redact;
use clap::Args;
use percent_encoding::percent_decode_str;

/// The NATS broker. `nats` is absent in the self-contained mode.
#[derive(Clone, Default, Args)]
#[command(next_help_heading = "Broker")]
pub struct NatsArgs {
    /// NATS server, such as nats://host:4222 or tls://user:password@host:4222; several are separated by commas
    #[arg(long, env = "NATS_URL", hide_env_values = true, value_name = "URL")]
    pub nats: Option<String>,

    /// Credentials file (JWT and seed), as made by nsc
    #[arg(long, env = "NATS_CREDS", value_name = "FILE")]
    pub nats_creds: Option<PathBuf>,

    /// File that holds an nkey seed
    #[arg(long, env = "NATS_NKEY", value_name = "FILE")]
    pub nats_nkey: Option<PathBuf>,

    /// User name; the password comes from NATS_PASSWORD only, so that no process list shows it
    #[arg(long, env = "NATS_USER", value_name = "NAME")]
    pub nats_user: Option<String>,

    #[arg(long, env = "NATS_PASSWORD", hide = true, hide_env_values = true)]
    pub nats_password: Option<String>,

    /// Certificate authority of the server, in PEM
    #[arg(long, env = "NATS_CA", value_name = "FILE")]
    pub nats_ca: Option<PathBuf>,

    /// Client certificate for mutual TLS, in PEM
    #[arg(long, env = "NATS_CERT", value_name = "FILE", requires = "nats_key")]
    pub nats_cert: Option<PathBuf>,

    /// Key of the client certificate, in PEM
    #[arg(long, env = "NATS_KEY", value_name = "FILE", requires = "nats_cert")]
    pub nats_key: Option<PathBuf>,

    /// What the subjects of the broker's answers begin with [default: _INBOX]; a user who may listen
    /// to its own answers only needs its own
    #[arg(long, env = "NATS_INBOX_PREFIX", value_name = "PREFIX")]
    pub nats_inbox: Option<String>,

    /// Seconds to try for the first connection
    #[arg(long, env = "BAKEOFF_NATS_CONNECT_S", value_name = "SECONDS", default_value_t = 5)]
    pub nats_connect_s: u64,
}

impl NatsArgs {
    /// The servers, without the user and password that a URL may hold: those go to the client apart
    /// ([`NatsArgs::user`]), because it would log them.
    pub fn servers(&self) -> Vec<String> {
        let servers = self.nats.as_deref().unwrap_or_default().split(',').map(str::trim);
        servers.filter(|server| !server.is_empty()).map(redact::url).collect()
    }

    /// User and password: as set, or else from the first URL that holds them.
    pub fn user(&self) -> Option<(String, String)> {
        if let Some(user) = &self.nats_user {
            return Some((user.clone(), self.nats_password.clone().unwrap_or_default()));
        }
        let servers = self.nats.as_deref().unwrap_or_default().split(',').map(str::trim);
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        servers.into_iter().find_map(|server| {
            let rest = server.split_once("://").map_or(server, |(_, rest)| rest);
            let (user, password) = rest.rsplit_once('@')?.0.split_once(':')?;
            Some((decoded(user), decoded(password)))
        })
    }

    /// The servers in one line, for messages and logs.
    pub fn redacted_url(&self) -> String {
        self.servers().join(",")
    }
}

impl fmt::Debug for NatsArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsArgs")
            .field("nats", &self.redacted_url())
            .field("nats_creds", &self.nats_creds)
            .field("nats_nkey", &self.nats_nkey)
            .field("nats_user", &self.nats_user)
            .field("nats_ca", &self.nats_ca)
            .field("nats_cert", &self.nats_cert)
            .field("nats_inbox", &self.nats_inbox)
            .finish_non_exhaustive()
    }
}

/// The object store. Credentials for S3 come from the standard AWS_* variables.
#[derive(Clone, Default, Args)]
#[command(next_help_heading = "Object store")]
pub struct StoreArgs {
    /// s3://bucket[/prefix], file:///dir, or a plain path
    #[arg(long, env = "BAKEOFF_STORE", hide_env_values = true, value_name = "URL")]
    pub store: Option<String>,

    /// Endpoint of an S3-compatible store, such as http://host:8333 (path-style)
    #[arg(long, env = "AWS_ENDPOINT_URL", hide_env_values = true, value_name = "URL")]
    pub s3_endpoint: Option<String>,

    /// Region of the bucket
    #[arg(long, env = "AWS_REGION", value_name = "REGION")]
    pub s3_region: Option<String>,

    /// Credentials set by code instead of the environment.
    #[arg(skip)]
    pub static_credentials: Option<StaticCredentials>,
}

impl fmt::Debug for StoreArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreArgs")
            .field("store", &self.store.as_deref().map(redact::url))
            .field("s3_endpoint", &self.s3_endpoint.as_deref().map(redact::url))
            .field("s3_region", &self.s3_region)
            .field("static_credentials", &self.static_credentials)
            .finish()
    }
}

/// An access key, shown without its secret.
#[derive(Clone)]
pub struct StaticCredentials {
    pub access_key_id: String,
    pub secret_access_key: String,
}

impl fmt::Debug for StaticCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticCredentials")
            .field("access_key_id", &self.access_key_id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_shows_in_debug_output() {
        let nats = NatsArgs {
            nats: Some("nats://user:hunter2@a:4222, tls://b".into()),
            nats_password: Some("hunter2".into()),
            ..NatsArgs::default()
        };
        assert_eq!(nats.redacted_url(), "nats://a:4222,tls://b");
        assert!(!format!("{nats:?}").contains("hunter2"));
        assert_eq!(nats.servers(), ["nats://a:4222", "tls://b"]);
        assert_eq!(nats.user(), Some(("user".into(), "hunter2".into())));
        let encoded = NatsArgs { nats: Some("nats://u:p%40ss@a".into()), ..NatsArgs::default() };
        assert_eq!(encoded.user(), Some(("u".into(), "p@ss".into())));
        let named = NatsArgs { nats_user: Some("other".into()), ..nats.clone() };
        assert_eq!(named.user(), Some(("other".into(), "hunter2".into())));
        let credentials =
            StaticCredentials { access_key_id: "key".into(), secret_access_key: "hunter2".into() };
        let store = StoreArgs {
            s3_endpoint: Some("http://user:hunter2@store:8333".into()),
            static_credentials: Some(credentials),
            ..StoreArgs::default()
        };
        assert!(format!("{store:?}").contains("http://store:8333"), "{store:?}");
        assert!(!format!("{store:?}").contains("hunter2"));
    }
}
