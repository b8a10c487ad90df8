//! The self-contained mode: queue and worker inside this process.

use std::future::Future;
use std::sync::Arc;

use bakeoff_proto::names;
use bakeoff_transport::queue::JobQueue;
use bakeoff_transport::queue::memory::MemoryQueue;
use bakeoff_worker::engine_models::{DeviceChoice, EngineModels};
use bakeoff_worker::serve::{WorkerConfig, serve};
use bakeoff_worker::signals::Stop;
use bakeoff_worker::telemetry::Gpu;
use object_store::ObjectStore;
use tokio::sync::watch;

use crate::error::Error;

/// Serves an in-process queue with one worker while `work` runs, then lets the worker leave.
///
/// # Errors
/// Those of `work`, or the worker's if it ends first.
pub async fn with_worker<T, F>(
    store: Arc<dyn ObjectStore>,
    device: DeviceChoice,
    work: impl FnOnce(Arc<dyn JobQueue>) -> F,
) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let queue: Arc<dyn JobQueue> = Arc::new(MemoryQueue::new());
    let (stop, stopped) = watch::channel(Stop::No);
    let gpu = Arc::new(Gpu::of(device));
    let classes = vec![names::ANY_CLASS.to_owned(), gpu.class()];
    let models = Arc::new(EngineModels::new(device));
    let name = format!("local-{}", std::process::id());
    let config = WorkerConfig::new(name, classes, models, gpu);
    let mut worker = tokio::spawn(serve(config, Arc::clone(&queue), store, stopped));
    let outcome = tokio::select! {
        outcome = work(queue) => outcome,
        ended = &mut worker => {
            return match ended {
                Ok(Ok(_)) => {
                    Err(Error::Inconsistent("the worker left before the sweep had ended".into()))
                }
                Ok(Err(error)) => Err(Error::Worker(error.into())),
                Err(panic) => Err(panic.into()),
            };
        }
    };
    // The worker hands back what it holds; nothing is lost, because only records count.
    stop.send_replace(Stop::Now);
    match worker.await {
        Ok(Ok(_)) | Err(_) => outcome,
        Ok(Err(error)) => outcome.and(Err(Error::Worker(error.into()))),
    }
}
