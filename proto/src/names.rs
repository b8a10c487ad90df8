//! Names on the wire and in the store, in one place: whoever reads and whoever writes agree by
//! construction.

use crate::{CellId, Job, JobId, SweepId, SweepName, digest};

/// JetStream stream that holds the jobs (work-queue retention).
pub const JOBS_STREAM: &str = "BAKEOFF_JOBS";
/// JetStream stream that holds the live events (limits retention).
pub const EVENTS_STREAM: &str = "BAKEOFF_EVENTS";
/// Key-value bucket of attempts: who holds which job.
pub const ATTEMPTS_BUCKET: &str = "BAKEOFF_ATTEMPTS";
/// Key-value bucket of control messages: which sweeps are cancelled.
pub const CONTROL_BUCKET: &str = "BAKEOFF_CONTROL";
/// GPU class of jobs that any worker may take.
pub const ANY_CLASS: &str = "any";
/// GPU class of a worker without a GPU.
pub const CPU_CLASS: &str = "cpu";

/// Subjects of [`JOBS_STREAM`].
pub const JOBS_SUBJECTS: &str = "bakeoff.jobs.>";
/// Subjects of [`EVENTS_STREAM`].
pub const EVENTS_SUBJECTS: &str = "bakeoff.events.>";

/// A subject token may not hold `.`, `*`, `>` or spaces: names become hashes. Two sweeps of the same
/// name, one after the other or in two stores, share nothing on the broker: the token differs by
/// incarnation.
pub fn sweep_token(sweep: &SweepId) -> String {
    match &sweep.incarnation {
        None => name_token(&sweep.name),
        // No name holds a `/`.
        Some(incarnation) => hash_token(&format!("{}/{incarnation}", sweep.name)),
    }
}

fn name_token(name: &SweepName) -> String {
    hash_token(name.as_str())
}

fn hash_token(text: &str) -> String {
    let mut token = digest::sha256_hex(text.as_bytes());
    token.truncate(16);
    token
}

/// `bakeoff.jobs.<gpu-class>.<sweep>.<job>`
pub fn job_subject(job: &Job) -> String {
    format!(
        "bakeoff.jobs.{}.{}.{}",
        class_token(&job.gpu_class),
        sweep_token(&job.sweep_id()),
        job.id
    )
}

/// Filter for every queued job of a sweep, whatever its GPU class.
pub fn sweep_jobs_filter(sweep: &SweepId) -> String {
    format!("bakeoff.jobs.*.{}.*", sweep_token(sweep))
}

/// Filter for every job of a GPU class.
pub fn class_jobs_filter(class: &str) -> String {
    format!("bakeoff.jobs.{}.*.*", class_token(class))
}

/// The durable consumer of a GPU class.
pub fn consumer_name(class: &str) -> String {
    format!("workers-{}", class_token(class))
}

/// A GPU class as a subject token: lower case, only letters, digits and hyphens.
/// `NVIDIA H100 80GB HBM3` becomes `nvidia-h100-80gb-hbm3`.
pub fn class_token(class: &str) -> String {
    let mut token = String::new();
    for c in class.chars() {
        if c.is_ascii_alphanumeric() {
            token.push(c.to_ascii_lowercase());
        } else if !token.ends_with('-') && !token.is_empty() {
            token.push('-');
        }
    }
    token.trim_end_matches('-').to_owned()
}

/// `bakeoff.events.<sweep>.<job>`. By name alone: events are only looked at.
pub fn event_subject(sweep: &SweepName, job: &JobId) -> String {
    format!("bakeoff.events.{}.{job}", name_token(sweep))
}

/// Filter for every event of a sweep.
pub fn sweep_events_filter(sweep: &SweepName) -> String {
    format!("bakeoff.events.{}.*", name_token(sweep))
}

/// `Nats-Msg-Id` of a job: a retry is a new generation and so a new message.
pub fn message_id(job: &Job) -> String {
    format!("{}/{}/{}", sweep_token(&job.sweep_id()), job.id, job.generation)
}

/// Key of a job's attempt in [`ATTEMPTS_BUCKET`]. A new generation starts counting afresh.
pub fn attempt_key(job: &Job) -> String {
    format!("{}.{}.{}", sweep_token(&job.sweep_id()), job.id, job.generation)
}

/// Key of a sweep's cancellation in [`CONTROL_BUCKET`].
pub fn control_key(sweep: &SweepId) -> String {
    format!("cancel.{}", sweep_token(sweep))
}

/// The frozen plan.
pub fn plan_key(sweep: &SweepName) -> String {
    format!("{sweep}/sweep.json")
}

/// Where the records of a sweep are.
pub fn records_prefix(sweep: &SweepName) -> String {
    format!("{sweep}/metrics")
}

/// A cell's record: its presence is completion.
pub fn record_key(sweep: &SweepName, cell: &CellId) -> String {
    format!("{sweep}/metrics/{cell}.json")
}

/// Where the failures of a sweep are.
pub fn failures_prefix(sweep: &SweepName) -> String {
    format!("{sweep}/failed")
}

/// Why a generation of the job left the cell without a record.
pub fn failure_key(sweep: &SweepName, cell: &CellId, generation: u32) -> String {
    format!("{sweep}/failed/{cell}.{generation}.json")
}

/// What was sampled while a cell was generated.
pub fn telemetry_key(sweep: &SweepName, cell: &CellId, attempt: &crate::AttemptId) -> String {
    format!("{sweep}/telemetry/{cell}.{attempt}.csv")
}

/// The verdicts of a cell's checks.
pub fn check_key(sweep: &SweepName, cell: &CellId) -> String {
    format!("{sweep}/checks/{cell}.json")
}

/// The stars that people gave.
pub fn reviews_key(sweep: &SweepName) -> String {
    format!("{sweep}/reviews.toml")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Incarnation;

    #[test]
    fn sweeps_of_one_name_share_no_token_and_those_of_earlier_versions_keep_theirs() {
        let name: SweepName = "demo".parse().expect("a name");
        let of = |incarnation: Option<&str>| {
            let incarnation = incarnation.map(|id| Incarnation(id.to_owned()));
            sweep_token(&SweepId { name: name.clone(), incarnation })
        };
        assert_eq!(of(None), digest::sha256_hex(b"demo")[..16]);
        assert!(of(None) != of(Some("a")) && of(Some("a")) != of(Some("b")));
    }

    #[test]
    fn tokens_hold_nothing_that_a_subject_or_a_path_would_interprets() {
        assert_eq!(class_token("NVIDIA H100 80GB HBM3"), "nvidia-h100-80gb-hbm3");
        assert_eq!(class_token("any"), "any");
        assert_eq!(class_token(" a.b*c> "), "a-b-c");
    }
}
