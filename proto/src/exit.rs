//! The exit codes of both programs, as shells, Kubernetes and scripts see them.

use std::process::ExitCode;

/// What a program ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Exit {
    /// Done as asked.
    Success,
    /// A failure that the input is not to blame for and that may pass; also a condition that the
    /// caller asked to be told by the exit code (a regression, a model that does not fit).
    Failure,
    /// Usage or input that can never work.
    BadInput,
    /// The coordinator: the sweep finished, but cells failed or were cancelled.
    FailedCells,
    /// The worker: a signal stopped it. What it held was finished or handed back, and a controller
    /// that wants a worker here has to start another.
    Stopped,
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failure => 1,
            Self::BadInput => 2,
            Self::FailedCells => 3,
            Self::Stopped => 4,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
