//! Queue and store from flags and environment.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bakeoff_transport::args::{NatsArgs, StoreArgs};
use bakeoff_transport::queue::nats::NatsQueue;
use bakeoff_transport::queue::{JobQueue, QueueSettings};
use bakeoff_transport::store;
use clap::Args;
use object_store::ObjectStore;

use crate::error::Error;

/// Where results go without `--store`, when everything runs on this machine.
const LOCAL_RESULTS: &str = "./bakeoff-results";

/// The store, for commands that need nothing else.
#[derive(Debug, Args)]
pub struct StoreOnly {
    #[command(flatten)]
    store: StoreArgs,
}

impl StoreOnly {
    /// Opens the store that is named, or else the local results, to read from it.
    pub async fn store(&self) -> Result<OpenStore, Error> {
        OpenStore::open_existing(&or_local(&self.store, false)).await
    }

    /// The same; `None` where it is a folder that does not exist.
    pub async fn store_if_there(&self) -> Result<Option<OpenStore>, Error> {
        let args = or_local(&self.store, false);
        match missing_folder(&args) {
            Some(_) => Ok(None),
            None => Ok(Some(OpenStore::open(&args).await?)),
        }
    }
}

/// Broker and store.
#[derive(Debug, Args)]
pub struct Connections {
    #[command(flatten)]
    nats: NatsArgs,
    #[command(flatten)]
    store: StoreArgs,
}

impl Connections {
    /// Opens the store that is named, or without a broker the local results. A folder is created.
    pub async fn store(&self) -> Result<OpenStore, Error> {
        OpenStore::open(&or_local(&self.store, self.has_queue())).await
    }

    /// The same for a command that reads what is there: no folder is created.
    pub async fn existing_store(&self) -> Result<OpenStore, Error> {
        OpenStore::open_existing(&or_local(&self.store, self.has_queue())).await
    }

    /// Whether a broker is named.
    pub fn has_queue(&self) -> bool {
        self.nats.nats.is_some()
    }

    /// Connects to the broker.
    pub async fn queue(&self) -> Result<Arc<dyn JobQueue>, Error> {
        if !self.has_queue() {
            return Err(Error::Input(
                "missing the broker's URL: give --nats URL or set NATS_URL (`coordinator run` \
                works without one)"
                    .to_owned(),
            ));
        }
        Ok(Arc::new(NatsQueue::connect(&self.nats).await?))
    }
}

/// The store's arguments, with the local results where no store and no broker is named.
fn or_local(args: &StoreArgs, has_queue: bool) -> StoreArgs {
    let mut args = args.clone();
    if args.store.is_none() && !has_queue {
        args.store = Some(LOCAL_RESULTS.to_owned());
    }
    args
}

/// The folder that the store is said to be, if it does not exist.
fn missing_folder(args: &StoreArgs) -> Option<PathBuf> {
    folder(args.store.as_deref()?.trim()).filter(|folder| !folder.exists())
}

/// The folder of a store that is one.
fn folder(url: &str) -> Option<PathBuf> {
    match url.strip_prefix("file://") {
        Some(path) => Some(PathBuf::from(path)),
        None if url.is_empty() || url.contains(":/") || url.starts_with("memory:") => None,
        None => Some(PathBuf::from(url)),
    }
}

/// An open store, and where something in it lies for people.
#[derive(Debug, Clone)]
pub struct OpenStore {
    /// The store itself.
    pub objects: Arc<dyn ObjectStore>,
    /// `s3://bucket/prefix`, or the absolute path of a folder.
    root: String,
}

impl OpenStore {
    async fn open(args: &StoreArgs) -> Result<Self, Error> {
        let objects = store::open(args).await?;
        let url = args.store.as_deref().unwrap_or_default().trim();
        Ok(Self { objects, root: root(url) })
    }

    async fn open_existing(args: &StoreArgs) -> Result<Self, Error> {
        match missing_folder(args) {
            Some(folder) => Err(Error::Input(format!(
                "no results in {}: the folder does not exist; name another with --store, or run \
                a sweep first with `coordinator run`",
                folder.display()
            ))),
            None => Self::open(args).await,
        }
    }

    /// Where a key lies, as a person can open it.
    pub fn location(&self, key: &str) -> String {
        format!("{}/{key}", self.root.trim_end_matches('/'))
    }
}

fn root(url: &str) -> String {
    let Some(path) = folder(url) else { return url.to_owned() };
    std::fs::canonicalize(&path).unwrap_or(path).display().to_string()
}

/// How the coordinator lays out the queue.
#[derive(Debug, Args)]
#[command(next_help_heading = "Queue")]
pub struct QueueArgs {
    /// Copies of the jobs stream in a NATS cluster
    #[arg(long, value_name = "N", env = "BAKEOFF_STREAM_REPLICAS", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=5))]
    stream_replicas: u8,
    /// Seconds after which a job whose worker is silent goes to another
    #[arg(long, value_name = "SECONDS", env = "BAKEOFF_ACK_WAIT", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    ack_wait: u64,
    /// Upper bound of the jobs stream in bytes; the server's own by default
    #[arg(long, value_name = "BYTES", env = "BAKEOFF_STREAM_MAX_BYTES", value_parser = clap::value_parser!(i64).range(1..))]
    stream_max_bytes: Option<i64>,
}

impl QueueArgs {
    /// The settings of stream and consumers.
    pub fn settings(&self) -> QueueSettings {
        QueueSettings {
            ack_wait: Duration::from_secs(self.ack_wait),
            replicas: usize::from(self.stream_replicas),
            max_bytes: self.stream_max_bytes,
            ..QueueSettings::default()
        }
    }
}
