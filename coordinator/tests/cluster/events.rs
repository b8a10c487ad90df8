//! What workers tell while they work, waited for.

use std::path::Path;

use bakeoff_proto::{JobEvent, JobPhase, SweepName};
use bakeoff_transport::queue::JobQueue;
use bakeoff_transport::queue::nats::NatsQueue;
use bakeoff_test_servers::until;
use futures::StreamExt;
use futures::stream::BoxStream;

use super::programs::LIMIT;

/// The events of a sweep, as soon as a coordinator has laid out the queue.
pub async fn events(queue: &NatsQueue, sweep: &str) -> BoxStream<'static, JobEvent> {
    let sweep: SweepName = sweep.parse().expect("a name");
    let mut opened = None;
    until("the coordinator lays out the queue", LIMIT, async || {
        opened = queue.events(&sweep).await.ok();
        opened.is_some()
    })
    .await;
    opened.expect("waited for")
}

/// The next event whose phase is wanted.
pub async fn wait_for(
    events: &mut BoxStream<'static, JobEvent>,
    what: &str,
    wanted: impl Fn(&JobPhase) -> bool,
) -> JobEvent {
    let search = async {
        loop {
            let event = events.next().await.expect("the stream of events goes on");
            if wanted(&event.phase) {
                return event;
            }
        }
    };
    tokio::time::timeout(LIMIT, search).await.unwrap_or_else(|_| panic!("no event tells {what}"))
}

/// The first half of a cell is being generated; the warm-up asks for fewer tokens than `most`.
pub fn decoding(most: u32) -> impl Fn(&JobPhase) -> bool {
    move |phase| {
        matches!(phase, JobPhase::Decoding { tokens, max_tokens, .. }
            if *max_tokens == most && tokens * 2 < most)
    }
}

/// Files below a folder that end so.
pub fn files(folder: &Path, ending: &str) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries
        .filter(|entry| {
            let name = entry.as_ref().expect("the folder can be read").file_name();
            name.to_string_lossy().ends_with(ending)
        })
        .count()
}
