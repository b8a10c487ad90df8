//! What a command ends with: the one place where errors become exit codes.

use std::process::ExitCode;

use bakeoff_proto::{Disposition, FailureKind};

use crate::error::CommandError;
use crate::serve::ServeError;

/// The exit codes of `worker`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Success,
    /// A failure that the input is not to blame for; it may pass.
    Failure,
    /// Usage or input that can never work.
    BadInput,
    /// `worker run` only: a signal stopped it. What it held was finished or handed back, and a
    /// controller that wants a worker here has to start another.
    Stopped,
}

impl Exit {
    /// The number, as shells and Kubernetes see it.
    pub fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failure => 1,
            Self::BadInput => 2,
            // 3 is the coordinator's: a sweep that finished with failed cells.
            Self::Stopped => 4,
        }
    }

    /// What a failed command ends with.
    pub fn of(error: &CommandError) -> Self {
        let bad_input = match error {
            CommandError::Usage(_)
            | CommandError::PromptFile { .. }
            | CommandError::PromptEncoding { .. }
            | CommandError::ModelFile { .. }
            | CommandError::Listen(_) => true,
            CommandError::Queue(error) | CommandError::Serve(ServeError::Queue(error)) => {
                error.is_bad_input()
            }
            CommandError::Store(error) => error.is_bad_input(),
            CommandError::Engine(error) | CommandError::Bench { source: error, .. } => {
                is_bad_input(error.kind)
            }
            CommandError::Hub(error) => is_bad_input(error.kind()),
            CommandError::Serve(ServeError::Hung(_))
            | CommandError::System { .. }
            | CommandError::Output(_) => false,
        };
        if bad_input { Self::BadInput } else { Self::Failure }
    }
}

/// Input that can never work; the rest is a failure.
fn is_bad_input(kind: FailureKind) -> bool {
    kind.disposition() == Disposition::Final && kind != FailureKind::NonFiniteLogits
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
