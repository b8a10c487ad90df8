//! Who holds a job, and when it has been tried often enough.
//!
//! Acks do not fence: after a redelivery the old holder's ack is still accepted. So each holder
//! claims an attempt of its own before it works, and attempts that brought no new record are
//! counted at the claim, where a worker that was killed for want of memory counts too.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The claim after this many consecutive attempts without a new record gives the job up.
pub const MAX_FRUITLESS_ATTEMPTS: u32 = 5;

/// Identity of one holder of a job; unique, made by the worker.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct AttemptId(pub String);

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The latest attempt at a job, as the key-value bucket holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Attempt {
    /// The holder's own id.
    pub id: AttemptId,
    /// The holder's name, for people.
    pub worker: String,
    /// Attempts at this job so far, this one included.
    pub number: u32,
    /// Consecutive attempts, this one included, that started with no more records than the one
    /// before.
    pub fruitless: u32,
    /// Cells of the job that were done when this attempt started.
    pub done_at_start: u32,
}

/// What a claimant may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// Work on the open cells under this attempt.
    Work(Attempt),
    /// The job was tried [`MAX_FRUITLESS_ATTEMPTS`] times for nothing: write its failures and end
    /// it.
    GiveUp(Attempt),
}

impl Claim {
    /// The claim that follows `previous`, when `done` cells of the job have a record now.
    ///
    /// Five attempts without progress may start; the fifth claimant that finds none writes the
    /// failures.
    pub fn after(previous: Option<&Attempt>, id: AttemptId, worker: String, done: u32) -> Self {
        let number = previous.map_or(1, |p| p.number.saturating_add(1));
        let fruitless = match previous {
            Some(p) if done <= p.done_at_start => p.fruitless.saturating_add(1),
            Some(_) | None => 1,
        };
        let attempt = Attempt { id, worker, number, fruitless, done_at_start: done };
        if fruitless >= MAX_FRUITLESS_ATTEMPTS {
            Self::GiveUp(attempt)
        } else {
            Self::Work(attempt)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(previous: Option<&Attempt>, done: u32) -> Claim {
        Claim::after(previous, AttemptId("a".into()), "w".into(), done)
    }

    #[test]
    fn the_fifth_claim_without_a_new_record_gives_up() {
        let mut previous = None;
        for n in 1..=4 {
            match claim(previous.as_ref(), 0) {
                Claim::Work(attempt) => {
                    assert_eq!(attempt.fruitless, n);
                    previous = Some(attempt);
                }
                Claim::GiveUp(_) => panic!("gave up at claim {n}"),
            }
        }
        assert!(matches!(claim(previous.as_ref(), 0), Claim::GiveUp(_)));
    }

    #[test]
    fn progress_never_exhausts_a_job() {
        let mut previous = None;
        for done in 0..20 {
            match claim(previous.as_ref(), done) {
                Claim::Work(attempt) => previous = Some(attempt),
                Claim::GiveUp(_) => panic!("gave up although every attempt brought a record"),
            }
        }
    }
}
