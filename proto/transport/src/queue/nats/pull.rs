//! Jobs out of the queue, class by class.

use std::time::Duration;

use async_nats::jetstream::consumer::PullConsumer;
use bakeoff_proto::names;
use futures::StreamExt;
use tokio::time::Instant;

use super::delivery::NatsDelivery;
use super::handles::Handles;
use crate::queue::{Delivery, QueueError};

/// One pull request waits so long at the broker. Classes are asked in turn, never at once: of two
/// requests open at the same time both may be answered, and a job would lie with a worker that is
/// busy with another.
const PULL_SLICE: Duration = Duration::from_secs(1);
/// The broker answers an expired pull request itself; this is for the case that it is gone.
const PULL_GRACE: Duration = Duration::from_secs(2);

impl Handles {
    /// The next job of one of these classes, waiting at most `wait`.
    pub async fn pull(
        &self,
        classes: &[String],
        wait: Duration,
    ) -> Result<Option<NatsDelivery>, QueueError> {
        let deadline = Instant::now() + wait;
        loop {
            let mut known = 0;
            for class in classes {
                let Some(consumer) = self.consumer(class).await? else { continue };
                known += 1;
                let left = deadline.saturating_duration_since(Instant::now());
                // A request of no length would be refused.
                let expires = left.min(PULL_SLICE).max(Duration::from_millis(50));
                if let Some(delivery) = self.pull_class(&consumer, class, expires).await? {
                    // After a restart the broker counts the lease from the publish time, so a job
                    // that waited long would be delivered again at once: this renews it.
                    if let Err(error) = delivery.progress().await {
                        tracing::warn!(%error, "a job just received could not be renewed");
                    }
                    return Ok(Some(delivery));
                }
            }
            if known == 0 {
                return Err(QueueError::Missing {
                    what: format!(
                        "a consumer for {} in the stream {}",
                        classes.join(" or "),
                        names::JOBS_STREAM
                    ),
                });
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
        }
    }

    /// One pull request of one class.
    async fn pull_class(
        &self,
        consumer: &PullConsumer,
        class: &str,
        expires: Duration,
    ) -> Result<Option<NatsDelivery>, QueueError> {
        let broker = &self.broker;
        let operation = format!("pulling jobs of class {class}");
        let request = async {
            // No heartbeat: in async-nats 0.51 a batch with one loses wake-ups, returns nothing
            // and burns a delivery.
            let mut batch = consumer.batch().max_messages(1).expires(expires).messages().await?;
            batch.next().await.transpose()
        };
        let bounded = tokio::time::timeout(expires + PULL_GRACE, request);
        match broker.unless_denied(&operation, "CONSUMER.MSG.NEXT", bounded).await? {
            Ok(Ok(message)) => Ok(message.map(|m| NatsDelivery::new(broker.clone(), m))),
            Ok(Err(error)) => {
                // The consumer may have been deleted or moved: look it up again next time.
                self.forget_consumer(class);
                Err(broker.failed(&operation, error))
            }
            Err(_) => {
                self.forget_consumer(class);
                Err(broker.failed(&operation, "no answer to the pull request"))
            }
        }
    }
}
