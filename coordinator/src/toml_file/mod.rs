//! TOML files that people write: the sweep and the reviews. Serde reads them; every error names the
//! file, the line, the key's path, what was found, what was expected and the nearest known word.
//!
//! - [`node`]: serde's view of the parsed file, with errors kept as data
//! - [`path`]: where a value stands, as `models[2].engine.dtype`
//! - [`bounds`]: numbers with their range, which is also their text and their JSON Schema
//! - [`shapes`]: values with two spellings: one or a list, a flag or a word
//! - [`words`]: the nearest known word, long values cut

pub mod bounds;
pub mod node;
pub mod path;
pub mod shapes;
pub mod words;

use std::error::Error;
use std::fmt;
use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use node::{Mismatch, Node};
use path::Step;
pub use path::{At, KeyPath};

/// A file that parsed as TOML, with its text, so that a key's path leads to its line.
#[derive(Debug)]
pub struct TomlFile<'a> {
    origin: &'a str,
    text: &'a str,
    table: Spanned<DeTable<'a>>,
}

/// What is wrong with a file, and where.
#[derive(Debug)]
pub struct FileError {
    /// File name, as the user wrote it.
    pub origin: String,
    /// Counted from 1.
    pub line: Option<usize>,
    /// `None`: the file as a whole.
    pub path: Option<KeyPath>,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a file or with one of its keys.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error("cannot read the file")]
    Unreadable(#[source] std::io::Error),
    #[error("invalid TOML: {0}")]
    NotToml(String),
    /// It does not have the shape that is asked for.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// It has the right shape and a value that cannot be used.
    #[error(transparent)]
    Value(Box<dyn Error + Send + Sync>),
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        match self.path.as_ref().filter(|path| !path.is_root()) {
            Some(path) => write!(f, ": `{path}` {}", self.problem),
            None => write!(f, ": {}", self.problem),
        }
    }
}

impl Error for FileError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        // The problem itself is part of the message.
        self.problem.source()
    }
}

impl FileError {
    /// An error about the file as a whole.
    pub fn whole(origin: &str, problem: Problem) -> Self {
        Self { origin: origin.to_owned(), line: None, path: None, problem }
    }

    /// The message without file, line and key, for a form that shows them itself.
    pub fn message(&self) -> String {
        self.problem.to_string()
    }
}

impl<'a> TomlFile<'a> {
    /// Parses `text`; `origin` is the file's name in messages.
    ///
    /// # Errors
    /// [`Problem::NotToml`], with its line.
    pub fn parse(origin: &'a str, text: &'a str) -> Result<Self, FileError> {
        match DeTable::parse(text) {
            Ok(table) => Ok(Self { origin, text, table }),
            Err(error) => Err(FileError {
                origin: origin.to_owned(),
                line: error.span().map(|span| line_of(text, span)),
                path: None,
                problem: Problem::NotToml(error.message().to_owned()),
            }),
        }
    }

    /// Reads the whole file as a `T`. Keys that `T` does not have are refused.
    ///
    /// # Errors
    /// [`Problem::Mismatch`], with path and line.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, FileError> {
        serde_path_to_error::deserialize(Node::Table(self.table.get_ref())).map_err(|error| {
            let mut path = KeyPath::from(error.path());
            let mismatch = error.into_inner();
            if let Mismatch::UnknownKey { key, .. } | Mismatch::Missing { key } = &mismatch
                && !path.ends_with(key)
            {
                path = path.key(key);
            }
            self.error(path, mismatch.into())
        })
    }

    /// The error for a value that was read and cannot be used.
    pub fn refuse<P: Error + Send + Sync + 'static>(&self, at: At<P>) -> FileError {
        self.error(at.path, Problem::Value(at.problem))
    }

    fn error(&self, path: KeyPath, problem: Problem) -> FileError {
        let line = (!path.is_root()).then(|| line_of(self.text, self.span(&path)));
        FileError { origin: self.origin.to_owned(), line, path: Some(path), problem }
    }

    /// Where a value stands; of one that is missing, the table that should hold it.
    fn span(&self, path: &KeyPath) -> Range<usize> {
        let mut span = 0..0;
        let mut table = Some(self.table.get_ref());
        let mut items: Option<&[Spanned<DeValue<'_>>]> = None;
        for step in path.steps() {
            let found = match step {
                Step::Key(key) => table.and_then(|table| table.get(key.as_str())),
                Step::Index(index) => items.and_then(|items| items.get(*index)),
            };
            let Some(value) = found else { break };
            span = value.span();
            table = value.get_ref().as_table();
            items = value.get_ref().as_array().map(|items| &items[..]);
        }
        span
    }
}

fn line_of(text: &str, span: Range<usize>) -> usize {
    let before = text.get(..span.start).unwrap_or(text);
    before.bytes().filter(|byte| *byte == b'\n').count() + 1
}
