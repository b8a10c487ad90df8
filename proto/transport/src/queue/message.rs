//! A job as it travels.

use bakeoff_proto::Job;

use super::error::QueueError;

/// A job as JSON, of at most `limit` bytes.
pub(super) fn encode(job: &Job, limit: usize) -> Result<Vec<u8>, QueueError> {
    let json = serde_json::to_vec(job).map_err(|error| QueueError::Other {
        operation: format!("encoding job {}", job.id),
        source: error.into(),
    })?;
    if json.len() > limit {
        let (model, cells) = (job.model.display_id(), job.cells.len());
        let what = format!("job {} ({model}, {cells} cells)", job.id);
        return Err(QueueError::TooLarge { what, bytes: json.len(), limit });
    }
    Ok(json)
}
