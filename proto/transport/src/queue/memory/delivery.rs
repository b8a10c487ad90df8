//! A job leased from this process.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::state::{Available, Shared};
use crate::queue::{Delivery, QueueError};

pub(super) struct MemoryDelivery {
    pub shared: Arc<Shared>,
    pub sequence: u64,
    pub payload: Arc<[u8]>,
    pub headers: Arc<[(String, String)]>,
    pub delivered: u64,
}

impl MemoryDelivery {
    fn set(&self, available: Available) {
        if let Some(entry) = self.shared.lock().jobs.get_mut(&self.sequence) {
            entry.available = available;
        }
        self.shared.changed.notify_waiters();
    }

    fn end(&self) {
        self.shared.lock().jobs.remove(&self.sequence);
    }
}

/// As with the broker, whoever once held a job may still renew or end it: acks do not fence.
#[async_trait]
impl Delivery for MemoryDelivery {
    fn payload(&self) -> &[u8] {
        &self.payload
    }

    fn delivered(&self) -> u64 {
        self.delivered
    }

    fn headers(&self) -> &[(String, String)] {
        &self.headers
    }

    async fn progress(&self) -> Result<(), QueueError> {
        let mut state = self.shared.lock();
        let until = Instant::now() + state.ack_wait;
        if let Some(entry) = state.jobs.get_mut(&self.sequence)
            && matches!(entry.available, Available::At { leased: true, .. })
        {
            entry.available = Available::At { when: until, leased: true };
        }
        Ok(())
    }

    async fn ack(&self) -> Result<(), QueueError> {
        self.end();
        Ok(())
    }

    async fn nak(&self, delay: Duration) -> Result<(), QueueError> {
        let when = Instant::now() + delay;
        self.set(if delay.is_zero() {
            Available::Now
        } else {
            Available::At { when, leased: false }
        });
        Ok(())
    }

    async fn term(&self, _reason: &str) -> Result<(), QueueError> {
        self.end();
        Ok(())
    }
}
