//! Jobs into the queue, and which of them are still there.

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::message::PublishMessage;
use bakeoff_proto::limits::MAX_JOB_BYTES;
use bakeoff_proto::{Job, JobId, SweepId, names};
use futures::TryStreamExt;

use super::broker::jetstream_code;
use super::handles::Handles;
use crate::logging::trace_context;
use crate::queue::message::encode;
use crate::queue::{Published, QueueError};

impl Handles {
    /// Adds a job and waits until the queue has it on disk.
    pub async fn publish(&self, job: &Job) -> Result<Published, QueueError> {
        let broker = &self.broker;
        let payload = encode(job, MAX_JOB_BYTES.min(broker.client.max_payload()))?;
        let subject = names::job_subject(job);
        let operation = format!("publishing job {}", job.id);
        let mut id = names::message_id(job);
        loop {
            let mut message =
                PublishMessage::build().message_id(&id).payload(payload.clone().into());
            for (name, value) in trace_context::headers() {
                message = message.header(name.as_str(), value.as_str());
            }
            let send = async { broker.context.send_publish(subject.clone(), message).await?.await };
            match broker.unless_denied(&operation, &subject, send).await? {
                Ok(ack) if !ack.duplicate => return Ok(Published::Queued),
                Ok(ack) => {
                    if self.is_queued(&subject, &operation).await? {
                        return Ok(Published::AlreadyQueued);
                    }
                    // The first message has left the queue within the duplicate window. Two
                    // coordinators that come here at once make the same new id.
                    id = format!("{id}/{}", ack.sequence);
                }
                Err(error) => match jetstream_code(&error) {
                    // "maximum messages per subject exceeded": the job still lies there.
                    Some(ErrorCode::STREAM_STORE_FAILED)
                        if self.is_queued(&subject, &operation).await? =>
                    {
                        return Ok(Published::AlreadyQueued);
                    }
                    _ => return Err(broker.publish_failed(&operation, error)),
                },
            }
        }
    }

    /// Ids of a sweep's jobs that are queued or being worked on.
    pub async fn open_jobs(&self, sweep: &SweepId) -> Result<Vec<JobId>, QueueError> {
        let filter = names::sweep_jobs_filter(sweep);
        let found = self.subjects("listing queued jobs", &filter).await?;
        let id = |subject: &String| subject.rsplit('.').next().and_then(JobId::parse);
        Ok(found.iter().filter_map(id).collect())
    }

    async fn is_queued(&self, subject: &str, operation: &str) -> Result<bool, QueueError> {
        Ok(!self.subjects(operation, subject).await?.is_empty())
    }

    /// The subjects of the jobs stream that hold a message and match `filter`.
    async fn subjects(&self, operation: &str, filter: &str) -> Result<Vec<String>, QueueError> {
        let broker = &self.broker;
        let jobs = self.jobs().await?;
        let list = async {
            match jobs.info_with_subjects(filter).await {
                Ok(subjects) => subjects.try_collect::<Vec<(String, usize)>>().await,
                Err(error) => Err(error),
            }
        };
        let found = broker
            .unless_denied(operation, "STREAM.INFO", list)
            .await?
            .map_err(|error| broker.failed(operation, error))?;
        Ok(found.into_iter().map(|(subject, _)| subject).collect())
    }
}
