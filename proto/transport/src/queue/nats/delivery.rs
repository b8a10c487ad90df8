//! A job leased from JetStream. Every answer to the broker is a confirmed request.

use std::time::Duration;

use async_nats::client::RequestErrorKind;
use async_nats::jetstream::Message;
use async_trait::async_trait;
use bytes::Bytes;

use super::broker::{Broker, chain};
use crate::queue::{Delivery, QueueError};

pub(super) struct NatsDelivery {
    broker: Broker,
    message: Message,
    delivered: u64,
    headers: Vec<(String, String)>,
}

impl NatsDelivery {
    pub fn new(broker: Broker, message: Message) -> Self {
        let delivered = message.info().map_or(1, |info| info.delivered.max(1) as u64);
        let headers = message
            .headers
            .iter()
            .flat_map(|map| map.iter())
            .flat_map(|(name, values)| {
                values.iter().map(|value| (name.to_string(), value.to_string()))
            })
            .collect();
        Self { broker, message, delivered, headers }
    }

    /// Sends an acknowledgement and waits until the broker confirms it. `double_ack` would not do:
    /// it takes "no responders", sent when the consumer is gone, for a confirmation.
    async fn answer(&self, operation: &str, body: Bytes) -> Result<(), QueueError> {
        let Some(reply) = self.message.reply.clone() else {
            return Err(QueueError::LeaseLost);
        };
        let mark = "$JS.ACK.";
        let request = self.broker.client.request(reply, body);
        match self.broker.unless_denied(operation, mark, request).await? {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == RequestErrorKind::NoResponders => {
                Err(QueueError::LeaseLost)
            }
            Err(error) => Err(self.broker.failed(operation, &chain(&error))),
        }
    }
}

#[async_trait]
impl Delivery for NatsDelivery {
    fn payload(&self) -> &[u8] {
        &self.message.payload
    }

    fn delivered(&self) -> u64 {
        self.delivered
    }

    fn headers(&self) -> &[(String, String)] {
        &self.headers
    }

    async fn progress(&self) -> Result<(), QueueError> {
        self.answer("renewing a lease", Bytes::from_static(b"+WPI")).await
    }

    async fn ack(&self) -> Result<(), QueueError> {
        self.answer("acknowledging a job", Bytes::from_static(b"+ACK")).await
    }

    async fn nak(&self, delay: Duration) -> Result<(), QueueError> {
        let body = if delay.is_zero() {
            Bytes::from_static(b"-NAK")
        } else {
            Bytes::from(format!("-NAK {{\"delay\": {}}}", delay.as_nanos()))
        };
        self.answer("handing a job back", body).await
    }

    async fn term(&self, reason: &str) -> Result<(), QueueError> {
        // The reason is a line of an advisory, not the report: that is in the failure files.
        let line: String =
            reason.chars().map(|c| if c.is_control() { ' ' } else { c }).take(512).collect();
        self.answer("ending a job", Bytes::from(format!("+TERM {line}"))).await
    }
}
