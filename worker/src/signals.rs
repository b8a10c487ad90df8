//! SIGTERM and SIGINT, and what they ask for.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How a worker was asked to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Stop {
    /// It was not.
    #[default]
    No,
    /// Finish the current cell within the grace period, hand the rest back.
    Drain,
    /// Hand back at the next token.
    Now,
}

/// The first SIGTERM or SIGINT drains, the second stops at once. Needs a runtime.
///
/// # Errors
/// The system lets no handler be set.
pub fn stop_on_signals() -> io::Result<watch::Receiver<Stop>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (sender, receiver) = watch::channel(Stop::No);
    tokio::spawn(async move {
        for stop in [Stop::Drain, Stop::Now] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::warn!(?stop, "stopping on a signal");
            sender.send_replace(stop);
        }
        sender.closed().await;
    });
    Ok(receiver)
}

/// Completes when a stop is asked for; never, once nobody can ask any more.
pub async fn asked(stop: &mut watch::Receiver<Stop>) {
    if stop.wait_for(|stop| *stop != Stop::No).await.is_err() {
        std::future::pending::<()>().await;
    }
}
