//! What goes on beside a job: its lease is renewed, and stops and cancellations are noticed.

use std::sync::Arc;
use std::time::Duration;

use bakeoff_transport::queue::Delivery;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::progress::{Halt, Progress};
use crate::signals::{self, Stop};

/// A task that lives no longer than its job.
pub(super) struct AbortOnDrop(JoinHandle<()>);

impl AbortOnDrop {
    /// Starts the task.
    pub fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(task))
    }

    /// Gone when this returns, and with it its hold on the job's span: the span is exported before
    /// the process ends.
    pub async fn end(mut self) {
        self.0.abort();
        // It was cancelled or had ended; both are what is wanted.
        let _ = (&mut self.0).await;
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Renews the lease while the phase moves. Ends, and halts the job, when it does not.
pub(super) async fn heartbeat(
    delivery: Arc<dyn Delivery>,
    progress: Arc<Progress>,
    every: Duration,
    stall_limit: Duration,
) {
    loop {
        tokio::time::sleep(every).await;
        let still = progress.still_for();
        if still >= stall_limit {
            tracing::error!(?still, "the job does not move; its lease is left to lapse");
            progress.halt(Halt::Stalled);
            return;
        }
        match delivery.progress().await {
            Ok(()) => progress.lease_renewed(),
            Err(error) => tracing::warn!(%error, "the lease could not be renewed"),
        }
    }
}

/// Halts the job on a cancellation, at the end of the grace period, or at once.
pub(super) async fn stopping(
    progress: Arc<Progress>,
    mut cancelled: watch::Receiver<bool>,
    mut stop: watch::Receiver<Stop>,
    grace: Duration,
) {
    let drained = async {
        signals::asked(&mut stop).await;
        progress.drain();
        tokio::select! {
            () = tokio::time::sleep(grace) => {}
            Ok(_) = stop.wait_for(|stop| *stop == Stop::Now) => {}
        }
    };
    let cancel = async {
        if cancelled.wait_for(|now| *now).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = drained => progress.halt(Halt::HandBack),
        () = cancel => progress.halt(Halt::Cancelled),
    }
}
