//! Waiting for a condition, never for a time.

use std::time::{Duration, Instant};

/// How long a server may take to start.
pub(super) const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Between two looks at a condition.
const POLL: Duration = Duration::from_millis(10);

/// Polls until `condition` holds; whether it did within `limit`.
pub(super) fn holds_within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while !condition() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(POLL);
    }
    true
}

/// Polls until `condition` holds.
///
/// # Panics
/// When it does not within `limit`, naming `what` was waited for.
pub fn wait_until(what: &str, limit: Duration, condition: impl FnMut() -> bool) {
    assert!(holds_within(limit, condition), "not within {limit:?}: {what}");
}

/// Polls until `condition` holds; one that never answers is given up as well.
///
/// # Panics
/// When it does not within `limit`, naming `what` was waited for.
pub async fn until(what: &str, limit: Duration, mut condition: impl AsyncFnMut() -> bool) {
    let waited = async {
        while !condition().await {
            tokio::time::sleep(POLL).await;
        }
    };
    let in_time = tokio::time::timeout(limit, waited).await;
    assert!(in_time.is_ok(), "not within {limit:?}: {what}");
}
