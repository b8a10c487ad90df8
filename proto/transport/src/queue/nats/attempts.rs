//! Who holds a job: the latest attempt, by compare-and-set.

use async_nats::jetstream::kv::{CreateErrorKind, Operation, UpdateErrorKind};
use bakeoff_proto::{Attempt, Job, names};

use super::handles::Handles;
use crate::queue::{QueueError, Revision};

impl Handles {
    /// The latest attempt at a job.
    pub async fn load_attempt(&self, job: &Job) -> Result<Option<(Attempt, Revision)>, QueueError> {
        let broker = &self.broker;
        let key = names::attempt_key(job);
        let operation = format!("reading the attempt at job {}", job.id);
        let read = self.attempts().await?.entry(key);
        let entry = broker
            .unless_denied(&operation, names::ATTEMPTS_BUCKET, read)
            .await?
            .map_err(|error| broker.failed(&operation, error))?;
        let Some(entry) = entry.filter(|entry| entry.operation == Operation::Put) else {
            return Ok(None);
        };
        let attempt = serde_json::from_slice(&entry.value)
            .map_err(|error| broker.failed(&operation, error))?;
        Ok(Some((attempt, Revision(entry.revision))))
    }

    /// Writes an attempt if the entry still is at `expected` (`None`: absent).
    pub async fn store_attempt(
        &self,
        job: &Job,
        attempt: &Attempt,
        expected: Option<Revision>,
    ) -> Result<Revision, QueueError> {
        let broker = &self.broker;
        let key = names::attempt_key(job);
        let operation = format!("claiming job {}", job.id);
        let bytes: bytes::Bytes =
            serde_json::to_vec(attempt).map_err(|error| broker.failed(&operation, error))?.into();
        let bucket = self.attempts().await?;
        let stored = match expected {
            None => {
                let create = bucket.create(key, bytes);
                broker.unless_denied(&operation, names::ATTEMPTS_BUCKET, create).await?.map_err(
                    |error| match error.kind() {
                        CreateErrorKind::AlreadyExists => QueueError::Conflict,
                        _ => broker.failed(&operation, error),
                    },
                )
            }
            Some(Revision(revision)) => {
                let update = bucket.update(key, bytes, revision);
                broker.unless_denied(&operation, names::ATTEMPTS_BUCKET, update).await?.map_err(
                    |error| match error.kind() {
                        UpdateErrorKind::WrongLastRevision => QueueError::Conflict,
                        _ => broker.failed(&operation, error),
                    },
                )
            }
        };
        stored.map(Revision)
    }
}
