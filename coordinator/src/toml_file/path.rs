//! Where a value stands in a file.

use std::fmt;

/// A path of keys and list positions, as `models[2].engine.dtype`. Positions are shown from 1.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyPath(Vec<Step>);

/// One step of a [`KeyPath`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Key(String),
    /// Counted from 0.
    Index(usize),
}

/// A problem and the path of the value that has it.
#[derive(Debug)]
pub struct At<P> {
    /// Where.
    pub path: KeyPath,
    /// What.
    pub problem: Box<P>,
}

impl KeyPath {
    /// The path of a key of the file's top level.
    pub fn top(key: &str) -> Self {
        Self::default().key(key)
    }

    /// The path of a key inside this table.
    pub fn key(&self, key: &str) -> Self {
        let mut path = self.clone();
        path.0.push(Step::Key(key.to_owned()));
        path
    }

    /// The path of an item of this list, counted from 0.
    pub fn index(&self, index: usize) -> Self {
        let mut path = self.clone();
        path.0.push(Step::Index(index));
        path
    }

    /// What is wrong with the value at this path.
    pub fn refuse<P>(self, problem: P) -> At<P> {
        At { path: self, problem: Box::new(problem) }
    }

    /// From the top of the file.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    /// The file as a whole.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the last step is this key.
    pub fn ends_with(&self, key: &str) -> bool {
        matches!(self.0.last(), Some(Step::Key(last)) if last == key)
    }
}

impl From<&serde_path_to_error::Path> for KeyPath {
    fn from(path: &serde_path_to_error::Path) -> Self {
        use serde_path_to_error::Segment;
        let steps = path.iter().filter_map(|segment| match segment {
            Segment::Seq { index } => Some(Step::Index(*index)),
            Segment::Map { key } => Some(Step::Key(key.clone())),
            Segment::Enum { .. } | Segment::Unknown => None,
        });
        Self(steps.collect())
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if position == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{}]", index + 1)?,
            }
        }
        Ok(())
    }
}
