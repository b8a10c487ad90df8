//! A sweep's jobs published and watched, by a worker inside this process where no broker is named.

use std::sync::Arc;

use bakeoff_transport::queue::{JobQueue, QueueSettings};
use clap::Args;

use crate::connect::OpenStore;
use crate::error::Error;
use crate::plan::Plan;
use crate::publish::{self, Scope};
use crate::watch::{self, WatchOptions, Watched};

use super::shared;

/// What the worker inside this process uses.
#[derive(Debug, Clone, Copy, Args)]
pub struct HereArgs {
    /// Without --nats: auto, cpu or cuda:N; auto is the first GPU, if this build can use one and
    /// one is there
    #[cfg(feature = "embedded")]
    #[arg(long, env = "BAKEOFF_DEVICE", default_value = "auto")]
    device: bakeoff_worker::engine_models::DeviceChoice,
}

/// Which jobs to publish, and how the queue is laid out.
#[derive(Debug)]
pub struct Work {
    pub settings: QueueSettings,
    pub scope: Scope,
}

impl Work {
    /// Publishes to a broker, whose workers do the work, and watches.
    pub async fn at_broker(
        self,
        queue: Arc<dyn JobQueue>,
        store: &OpenStore,
        plan: &Plan,
    ) -> Result<Watched, Error> {
        self.publish_and_watch(queue, store, plan, false).await
    }

    /// Does the work in this process.
    #[cfg(feature = "embedded")]
    pub async fn here(
        self,
        args: HereArgs,
        store: &OpenStore,
        plan: &Plan,
    ) -> Result<Watched, Error> {
        crate::embedded::with_worker(store.objects.clone(), args.device, |queue| {
            self.publish_and_watch(queue, store, plan, true)
        })
        .await
    }

    /// Refused by [`HereArgs::check`] before.
    #[cfg(not(feature = "embedded"))]
    pub async fn here(self, _: HereArgs, _: &OpenStore, _: &Plan) -> Result<Watched, Error> {
        Err(no_worker_inside())
    }

    async fn publish_and_watch(
        self,
        queue: Arc<dyn JobQueue>,
        store: &OpenStore,
        plan: &Plan,
        embedded: bool,
    ) -> Result<Watched, Error> {
        let objects = store.objects.clone();
        publish::publish(queue.as_ref(), objects.as_ref(), plan, &self.settings, self.scope)
            .await?;
        let options = WatchOptions { republish: Some(self.settings), embedded };
        Ok(watch::watch(queue, objects, plan, &options, shared::interrupted()).await)
    }
}

impl HereArgs {
    /// Whether this build can do the work on that device: asked once, before the first cell.
    #[cfg(feature = "embedded")]
    pub fn check(self) -> Result<(), Error> {
        #[cfg(not(feature = "cuda"))]
        if let Some(index) = self.device.gpu_index() {
            return Err(Error::Input(format!(
                "the device `cuda:{index}` needs a coordinator built with `--features cuda`: use \
                --device cpu, or name a broker with --nats and start workers beside it"
            )));
        }
        Ok(())
    }

    /// Without a worker inside there is no device.
    #[cfg(not(feature = "embedded"))]
    pub fn check(self) -> Result<(), Error> {
        Err(no_worker_inside())
    }
}

#[cfg(not(feature = "embedded"))]
fn no_worker_inside() -> Error {
    Error::Input(
        "this coordinator was built without a worker inside: name a broker with --nats, and start \
        workers beside it"
            .to_owned(),
    )
}
