//! What can go wrong in a command, by kind and with its source, and the exit code of each kind.

use bakeoff_proto::exit::Exit;
pub use bakeoff_transport::error::describe as chain;
use bakeoff_transport::queue::QueueError;
use bakeoff_transport::store::StoreError;

use crate::check::sandbox::SandboxError;
use crate::collect::read::ReadError;
use crate::compare::Refused;
use crate::hub::HubError;
use crate::kubernetes::bundle::BundleError;
use crate::kubernetes::objects::NoImage;
use crate::kubernetes::template::TemplateError;
use crate::plan::PlanError;
use crate::publish::PublishError;
use crate::review::push::PushError;
use crate::toml_file::FileError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A sweep or a reviews file.
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error(transparent)]
    Push(#[from] PushError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error(transparent)]
    Hub(#[from] HubError),
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error(transparent)]
    Compare(#[from] Refused),
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error("--template {path}")]
    Template {
        path: String,
        #[source]
        source: Box<TemplateError>,
    },
    #[error(transparent)]
    Image(#[from] NoImage),
    /// A flag, an argument or a file that the user can change, with what to do.
    #[error("{0}")]
    Input(String),
    /// The same, with the error of the operating system.
    #[error("{what}")]
    InputFile {
        what: String,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A file of this machine could not be read or written.
    #[error("{what}")]
    Local {
        what: String,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot write YAML")]
    Yaml(#[source] Box<serde_saphyr::SerializeError>),
    #[error("cannot write JSON")]
    Json(#[from] serde_json::Error),
    #[error("a task of this program broke down")]
    Task(#[from] tokio::task::JoinError),
    /// The store was found in a state that no command leaves behind.
    #[error("{0}")]
    Inconsistent(String),
    #[cfg(feature = "embedded")]
    #[error("the worker inside this process failed")]
    Worker(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// What the program ends with: was it the input, or did we fail?
    pub fn exit(&self) -> Exit {
        if self.is_bad_input() { Exit::BadInput } else { Exit::Failure }
    }

    fn is_bad_input(&self) -> bool {
        match self {
            Self::File(_)
            | Self::Plan(_)
            | Self::Hub(_)
            | Self::Compare(_)
            | Self::Bundle(_)
            | Self::Template { .. }
            | Self::Image(_)
            | Self::Input(_)
            | Self::InputFile { .. } => true,
            Self::Read(error) => read_is_bad_input(error),
            Self::Store(error) => error.is_bad_input(),
            Self::Queue(error) => error.is_bad_input(),
            Self::Publish(error) => match error {
                PublishError::DifferentPlan(_) => true,
                PublishError::Vanished { .. } => false,
                PublishError::Read(error) => read_is_bad_input(error),
                PublishError::Store(error) => error.is_bad_input(),
                PublishError::Queue(error) => error.is_bad_input(),
            },
            Self::Push(error) => match error {
                PushError::OtherSeed { .. } | PushError::Stored(_) => true,
                PushError::Store(error) => error.is_bad_input(),
                PushError::Contended { .. } => false,
            },
            Self::Sandbox(error) => match error {
                SandboxError::NoBubblewrap
                | SandboxError::Denied { .. }
                | SandboxError::NoPython { .. }
                | SandboxError::FileName { .. } => true,
                SandboxError::Setup { .. } | SandboxError::Io(_) => false,
            },
            Self::Io(_)
            | Self::Local { .. }
            | Self::Json(_)
            | Self::Yaml(_)
            | Self::Task(_)
            | Self::Inconsistent(_) => false,
            #[cfg(feature = "embedded")]
            Self::Worker(_) => false,
        }
    }
}

fn read_is_bad_input(error: &ReadError) -> bool {
    match error {
        ReadError::NoSuchSweep { .. } | ReadError::Plan { .. } => true,
        ReadError::Store(error) => error.is_bad_input(),
    }
}
