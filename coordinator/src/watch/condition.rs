//! A condition that is worth a warning once it has held for a while.

use std::time::{Duration, Instant};

/// A condition must hold for so long before it is warned of.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// A warning that still holds is repeated after this time.
const REPEAT: Duration = Duration::from_secs(60);

/// Since when a condition holds, and when it was last warned of.
#[derive(Debug, Default)]
pub struct Condition {
    since: Option<Instant>,
    warned: Option<Instant>,
}

impl Condition {
    /// The condition holds at `now`. True when it is time for a warning.
    pub fn holds(&mut self, now: Instant) -> bool {
        let lasts = now.duration_since(*self.since.get_or_insert(now)) >= PATIENCE;
        let quiet = self.warned.is_none_or(|warned| now.duration_since(warned) >= REPEAT);
        if lasts && quiet {
            self.warned = Some(now);
        }
        lasts && quiet
    }

    /// As if the condition, which holds, had begun to hold [`PATIENCE`] earlier.
    #[cfg(test)]
    pub fn has_lasted(&mut self) {
        self.since = self.since.expect("it holds").checked_sub(PATIENCE);
    }

    /// Whether a warning was due since the condition holds.
    #[cfg(test)]
    pub fn was_warned(&self) -> bool {
        self.warned.is_some()
    }

    /// The condition does not hold (any more).
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_warned_of_when_it_lasts_and_again_a_minute_later() {
        let start = Instant::now();
        let mut condition = Condition::default();
        assert!(!condition.holds(start));
        assert!(!condition.holds(start + PATIENCE / 2));
        assert!(condition.holds(start + PATIENCE));
        assert!(!condition.holds(start + PATIENCE * 2));
        assert!(condition.holds(start + PATIENCE + REPEAT));
        condition.clear();
        assert!(!condition.holds(start + PATIENCE + REPEAT * 2));
    }
}
