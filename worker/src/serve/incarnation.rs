//! Whether a job still belongs to the sweep in the store: looked at before every effect, so that a
//! worker of a sweep that was deleted leaves nothing in the next one of its name.

use std::sync::Mutex;

use bakeoff_proto::{Incarnation, SweepName, names};
use bakeoff_transport::store::{self, Look};
use futures::FutureExt;
use serde::Deserialize;

use super::error::JobError;
use super::results::through_outages;
use super::running::Running;

/// The plan that was looked at last. A look at the same plan is a small request without a body.
#[derive(Default)]
pub(super) struct LastPlan(Mutex<Option<Seen>>);

#[derive(Clone)]
struct Seen {
    sweep: SweepName,
    incarnation: Option<Incarnation>,
    tag: Option<String>,
}

/// Of a plan, all that a worker reads.
#[derive(Deserialize)]
struct FrozenPlan {
    #[serde(default)]
    incarnation: Option<Incarnation>,
}

impl LastPlan {
    fn of(&self, sweep: &SweepName) -> Option<Seen> {
        // A panic elsewhere leaves no half-made value: it is replaced as a whole.
        let last = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        last.clone().filter(|seen| seen.sweep == *sweep)
    }

    fn keep(&self, seen: Option<Seen>) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = seen;
    }
}

impl Running<'_> {
    /// An error if the sweep that the job was published for is not the one in the store. A plan
    /// that cannot be read is nobody's. Jobs of earlier versions name no incarnation: they are
    /// withdrawn only by a plan that has one.
    pub(super) async fn check_incarnation(&self) -> Result<(), JobError> {
        let sweep = &self.job.sweep;
        let key = names::plan_key(sweep);
        let last = self.worker.last_plan.of(sweep);
        let tag = last.as_ref().and_then(|seen| seen.tag.clone());
        let look = through_outages(&self.progress, "plan", || {
            store::look(self.store(), &key, tag.clone()).boxed()
        })
        .await?;
        let seen = match look {
            Look::Absent => None,
            Look::Unchanged => last,
            Look::Found { bytes, tag } => {
                let plan = serde_json::from_slice::<FrozenPlan>(&bytes).ok();
                plan.map(|FrozenPlan { incarnation }| Seen {
                    sweep: sweep.clone(),
                    incarnation,
                    tag,
                })
            }
        };
        let stored = seen.as_ref().and_then(|seen| seen.incarnation.clone());
        self.worker.last_plan.keep(seen);
        if stored == self.job.incarnation { Ok(()) } else { Err(JobError::Withdrawn) }
    }
}
