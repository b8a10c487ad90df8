//! What can be wrong with a sweep beyond its shape, each with its text.

use std::path::PathBuf;

use crate::quality::RubricError;
use crate::toml_file::words::{is_file_word, nearest, shorten};
use crate::toml_file::{At, KeyPath};

/// A value that cannot be used. The key's path stands before the text.
#[derive(Debug, thiserror::Error)]
pub enum SweepProblem {
    #[error("is missing: {add}")]
    Missing { add: &'static str },
    #[error("cannot stand beside `{other}`: {rule}")]
    Exclusive { other: &'static str, rule: &'static str },
    #[error(
        "must be 1 to 64 letters, digits, `.`, `_` or `-`, starting with a letter or a digit, \
        found \"{}\"",
        shorten(.0)
    )]
    NotAnId(String),
    #[error(
        "must be a file name of letters, digits, `.`, `_` and `-` that ends in `.csv`, found \
        \"{}\"",
        shorten(.0)
    )]
    NotACsvName(String),
    #[error("is \"{}\" for the second time: ids are unique", shorten(.0))]
    RepeatedId(String),
    #[error(
        "is \"{name}\" as in models[{earlier}]: give one of them a `label` of its own, or remove it"
    )]
    RepeatedModel { name: String, earlier: usize },
    #[error("lists `{0}` twice")]
    RepeatedWord(&'static str),
    #[error("is an empty list: name at least one, or leave it out")]
    EmptyList,
    #[error("is empty: {add}")]
    Empty { add: &'static str },
    #[error("applies to the whole sweep: move it to [generation]")]
    WholeSweepOnly,
    #[error("only applies to {to}: remove it")]
    OnlyFor { to: &'static str },
    #[error("must be \"any\", \"cpu\" or the name of a GPU such as \"NVIDIA H100 80GB HBM3\", \
    found \"{}\"", shorten(.0))]
    NotAGpuClass(String),
    #[error("must be `owner/name` as the hub has it, found \"{}\"; for a folder use \
    `path`", shorten(.0))]
    NotAHubId(String),
    #[error("must be a commit, a branch or a tag, found \"{}\"", shorten(.0))]
    NotARevision(String),
    #[error("must be 1 to 8 letters, such as \"USD\", found \"{}\"", shorten(.0))]
    NotACurrency(String),
    #[error("must be an absolute path, since the sandbox has no PATH; found \"{}\"", shorten(.0))]
    NotAbsolute(String),
    #[error("is an unknown {what}: \"{}\"; {hint}", shorten(.name))]
    Unknown { what: &'static str, name: String, hint: String },
    #[error("names {}, which cannot be read", .path.display())]
    UnreadableFile {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("names {}, which is not UTF-8", .path.display())]
    NotUtf8 {
        path: PathBuf,
        #[source]
        source: std::string::FromUtf8Error,
    },
    #[error("names {}, which cannot be used", .path.display())]
    BadRubric {
        path: PathBuf,
        #[source]
        source: RubricError,
    },
    #[error("names {}, line {line}", .path.display())]
    BadTask {
        path: PathBuf,
        line: usize,
        #[source]
        source: TaskProblem,
    },
    #[error("names {}, which has no tasks", .0.display())]
    NoTasks(PathBuf),
    #[error("the sweep has {cells} cells, at most {max} are allowed: split it")]
    TooManyCells { cells: usize, max: usize },
}

impl SweepProblem {
    /// An unknown name, with the nearest known one or all of them.
    pub fn unknown(what: &'static str, name: &str, known: &[&str]) -> Self {
        let hint = match nearest(name, known) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("known: {}", known.join(", ")),
        };
        Self::Unknown { what, name: name.to_owned(), hint }
    }
}

/// What can be wrong with a line of a suite.
#[derive(Debug, thiserror::Error)]
pub enum TaskProblem {
    #[error("not a task with `task_id`, `prompt`, `test` and `entry_point`")]
    NotATask(#[source] serde_json::Error),
    #[error("`entry_point` must name a function, found \"{}\"", shorten(.0))]
    NotAFunction(String),
    #[error("task \"{}\" occurs twice", shorten(.0))]
    Repeated(String),
    #[error("more than {0} tasks: split the suite")]
    TooMany(usize),
}

/// An id that becomes part of a file name.
pub fn check_id(id: &str, at: KeyPath) -> Result<(), At<SweepProblem>> {
    match is_file_word(id, 64) {
        true => Ok(()),
        false => Err(at.refuse(SweepProblem::NotAnId(id.to_owned()))),
    }
}
