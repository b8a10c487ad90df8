//! Whose job it is: an attempt is claimed before the work, looked at between cells, and given back.

use bakeoff_proto::{Attempt, AttemptId, Claim, JobPhase};
use bakeoff_transport::queue::QueueError;
use uuid::Uuid;

use super::error::JobError;
use super::running::{QUEUE_TRIES, Running};

impl Running<'_> {
    /// Claims the next attempt, so that whoever held the job before is fenced off. `done` cells of
    /// the job need no more work.
    pub(super) async fn claim(&mut self, done: u32) -> Result<(), JobError> {
        let id = AttemptId(Uuid::now_v7().simple().to_string());
        for _ in 0..QUEUE_TRIES {
            let previous = self.worker.queue.load_attempt(self.job).await?;
            if let Some((attempt, revision)) = &previous
                && attempt.id == id
            {
                // Our write arrived, its answer did not.
                self.attempt = Some((attempt.clone(), *revision));
                return Ok(());
            }
            let name = self.worker.config.name.clone();
            let claim = Claim::after(previous.as_ref().map(|(a, _)| a), id.clone(), name, done);
            let (attempt, give_up) = match claim {
                Claim::Work(attempt) => (attempt, false),
                Claim::GiveUp(attempt) => (attempt, true),
            };
            let expected = previous.map(|(_, revision)| revision);
            match self.worker.queue.store_attempt(self.job, &attempt, expected).await {
                Ok(revision) => {
                    let Attempt { number, fruitless, .. } = attempt;
                    self.attempt = Some((attempt, revision));
                    if give_up {
                        return Err(JobError::Exhausted { fruitless });
                    }
                    self.enter(JobPhase::Claimed {
                        attempt_number: number,
                        open_cells: self.open.len() as u32,
                        total_cells: self.job.cells.len() as u32,
                    })
                    .await;
                    return Ok(());
                }
                Err(QueueError::Conflict) => {}
                Err(error) => tracing::warn!(%error, "the claim is tried again"),
            }
        }
        Err(JobError::Superseded)
    }

    /// Before a cell: is the job still ours? An unanswered question is no reason to stop.
    pub(super) async fn check_attempt(&self) -> Result<(), JobError> {
        let ours = self.attempt.as_ref().map(|(attempt, _)| &attempt.id);
        match self.worker.queue.load_attempt(self.job).await {
            Ok(Some((latest, _))) if Some(&latest.id) != ours => Err(JobError::Superseded),
            Ok(_) => Ok(()),
            Err(error) => {
                tracing::warn!(%error, "the queue did not say whether the job is still ours");
                Ok(())
            }
        }
    }

    /// A worker that leaves in good order has not failed: its attempt does not count as fruitless.
    pub(super) async fn give_attempt_back(&mut self) {
        let Some((attempt, revision)) = self.attempt.take() else { return };
        let fruitless = attempt.fruitless.saturating_sub(1);
        let attempt = Attempt { fruitless, ..attempt };
        if let Err(error) =
            self.worker.queue.store_attempt(self.job, &attempt, Some(revision)).await
        {
            tracing::warn!(%error, "the interrupted attempt stays counted");
        }
    }
}
