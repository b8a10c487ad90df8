//! Cancellations: set, asked for, lifted.

use std::future::IntoFuture;

use bakeoff_proto::{SweepId, names};

use super::handles::Handles;
use crate::queue::QueueError;

impl Handles {
    /// Drops the queued jobs of a sweep and tells the workers to stop those they hold.
    pub async fn cancel(&self, sweep: &SweepId) -> Result<(), QueueError> {
        let broker = &self.broker;
        let operation = format!("cancelling {sweep}");
        let put = self.control().await?.put(names::control_key(sweep), "cancel".into());
        broker
            .unless_denied(&operation, names::CONTROL_BUCKET, put)
            .await?
            .map_err(|error| broker.failed(&operation, error))?;
        let purge = self.jobs().await?.purge().filter(names::sweep_jobs_filter(sweep));
        broker
            .unless_denied(&operation, "STREAM.PURGE", purge.into_future())
            .await?
            .map_err(|error| broker.failed(&operation, error))?;
        Ok(())
    }

    /// Whether a cancellation of the sweep stands.
    pub async fn is_cancelled(&self, sweep: &SweepId) -> Result<bool, QueueError> {
        let broker = &self.broker;
        let operation = format!("asking whether {sweep} is cancelled");
        let get = self.control().await?.get(names::control_key(sweep));
        let found = broker
            .unless_denied(&operation, names::CONTROL_BUCKET, get)
            .await?
            .map_err(|error| broker.failed(&operation, error))?;
        Ok(found.is_some())
    }

    /// Lifts a cancellation.
    pub async fn clear_cancel(&self, sweep: &SweepId) -> Result<(), QueueError> {
        let broker = &self.broker;
        let operation = format!("lifting the cancellation of {sweep}");
        let delete = self.control().await?.delete(names::control_key(sweep));
        broker
            .unless_denied(&operation, names::CONTROL_BUCKET, delete)
            .await?
            .map_err(|error| broker.failed(&operation, error))
    }
}
