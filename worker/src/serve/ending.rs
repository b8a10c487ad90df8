//! How a job leaves this worker: acknowledged, ended for good, handed back, or left to another.

use std::time::Duration;

use bakeoff_proto::{Disposition, FailureKind, JobPhase};
use bakeoff_transport::queue::{Delivery, QueueError};
use tracing::Instrument;

use super::error::{JobError, ServeError};
use super::progress::Halt;
use super::running::{QUEUE_TRIES, Running, stage};
use crate::observe::JobOutcome;

const LONGEST_RETRY_DELAY: Duration = Duration::from_secs(300);

impl Running<'_> {
    /// Ends the job at the queue, and says how to the watchers and the metrics.
    pub(super) async fn end(
        mut self,
        delivery: &dyn Delivery,
        error: Option<JobError>,
    ) -> Result<(), ServeError> {
        let outcome = match &error {
            None => {
                self.settle(delivery, End::Ack).await;
                self.enter(JobPhase::Done).await;
                JobOutcome::Done
            }
            Some(JobError::Superseded) => {
                tracing::warn!("another worker holds the job now");
                JobOutcome::Superseded
            }
            Some(JobError::Withdrawn) => self.withdraw(delivery).await,
            Some(JobError::Halted(Halt::HandBack)) => {
                self.give_attempt_back().await;
                let message = "the worker is stopping";
                self.hand_back(delivery, FailureKind::Interrupted, message, Duration::ZERO).await;
                JobOutcome::HandedBack
            }
            Some(JobError::Halted(Halt::Cancelled)) => {
                self.end_for_good(delivery, FailureKind::Cancelled, "the sweep was cancelled").await
            }
            Some(JobError::Halted(Halt::Stalled)) => {
                let limit = self.worker.config.stall_limit;
                let message = format!("nothing moved for {} s", limit.as_secs());
                self.retry(delivery, FailureKind::Stalled, &message).await
            }
            Some(error) => match error.kind().disposition() {
                Disposition::Final => {
                    self.end_for_good(delivery, error.kind(), &error.message()).await
                }
                Disposition::Retry => self.retry(delivery, error.kind(), &error.message()).await,
            },
        };
        self.worker.config.meters.job_ended(outcome);
        match error {
            Some(JobError::Hung) => Err(ServeError::Hung(self.worker.config.stall_limit)),
            _ => Ok(()),
        }
    }

    /// Failure files first, then the message is removed: never lost, never retried.
    async fn end_for_good(
        &self,
        delivery: &dyn Delivery,
        kind: FailureKind,
        message: &str,
    ) -> JobOutcome {
        tracing::error!(kind = kind.as_str(), message, "job ends");
        let open: Vec<_> = self.open.iter().map(|cell| cell.id.clone()).collect();
        if let Err(error) = self.store_failures(kind, message, &open).await {
            if matches!(error, JobError::Withdrawn) {
                return self.withdraw(delivery).await;
            }
            // Not ended: the next attempt finds the same and writes it down.
            tracing::error!(%error, "the failures could not be stored");
            self.settle(delivery, End::HandBack(self.worker.config.retry_delay)).await;
            return JobOutcome::Retried;
        }
        let reason = format!("{}: {message}", kind.as_str());
        self.settle(delivery, End::Term(&reason)).await;
        let (phase, outcome) = match kind {
            FailureKind::Cancelled => (JobPhase::Cancelled, JobOutcome::Cancelled),
            _ => (JobPhase::Failed { kind, message: message.to_owned() }, JobOutcome::Failed),
        };
        self.enter(phase).await;
        outcome
    }

    /// Nothing is left behind: no failure, no event. The message is the job's own, whatever was
    /// published under the name since.
    async fn withdraw(&self, delivery: &dyn Delivery) -> JobOutcome {
        let error = JobError::Withdrawn;
        let store = self.store();
        tracing::error!(%error, %store, "the job is removed from the queue");
        self.settle(delivery, End::Term("its sweep is gone")).await;
        JobOutcome::Withdrawn
    }

    async fn retry(&self, delivery: &dyn Delivery, kind: FailureKind, message: &str) -> JobOutcome {
        let fruitless = self.attempt.as_ref().map_or(1, |(attempt, _)| attempt.fruitless);
        let doubled = self.worker.config.retry_delay * 2u32.pow(fruitless.saturating_sub(1).min(8));
        self.hand_back(delivery, kind, message, doubled.min(LONGEST_RETRY_DELAY)).await;
        JobOutcome::Retried
    }

    async fn settle(&self, delivery: &dyn Delivery, end: End<'_>) {
        settle(delivery, end).instrument(stage!(self, "ack", end = end.as_str())).await;
    }

    async fn hand_back(
        &self,
        delivery: &dyn Delivery,
        kind: FailureKind,
        message: &str,
        delay: Duration,
    ) {
        tracing::warn!(kind = kind.as_str(), message, ?delay, "job handed back");
        self.settle(delivery, End::HandBack(delay)).await;
        let (message, delay_s) = (message.to_owned(), delay.as_secs_f64());
        self.enter(JobPhase::Retrying { kind, message, delay_s }).await;
    }
}

/// How a delivery ends.
#[derive(Clone, Copy)]
pub(super) enum End<'a> {
    Ack,
    HandBack(Duration),
    Term(&'a str),
}

impl End<'_> {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ack => "ack",
            Self::HandBack(_) => "hand_back",
            Self::Term(_) => "term",
        }
    }
}

/// Ends a delivery at the queue, through a short outage. After that the lease lapses, and the next
/// holder finds the records.
pub(super) async fn settle(delivery: &dyn Delivery, end: End<'_>) {
    let mut pause = Duration::from_millis(200);
    for attempt in 1..=QUEUE_TRIES {
        let answered = match end {
            End::Ack => delivery.ack().await,
            End::HandBack(delay) => delivery.nak(delay).await,
            End::Term(reason) => delivery.term(reason).await,
        };
        match answered {
            Ok(()) => return,
            Err(QueueError::LeaseLost) => {
                tracing::warn!("the lease was gone when the job ended");
                return;
            }
            Err(error) => tracing::warn!(%error, attempt, "the queue did not confirm"),
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}
