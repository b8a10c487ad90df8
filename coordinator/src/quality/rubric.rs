//! Rubrics: what good output contains, as data. Evidence is found by queries on the syntax tree, so
//! a keyword in a comment or a string proves nothing.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tree_sitter::{Query, QueryError};

use super::python;

/// The rubric for a service written in Python.
pub const PYTHON_SERVICE: &str = include_str!("rubrics/python-service.toml");
/// The rubric for any Python code.
pub const PYTHON_CODE: &str = include_str!("rubrics/python-code.toml");
/// The rubric for one small function.
pub const PYTHON_FUNCTION: &str = include_str!("rubrics/python-function.toml");

/// A list of things to look for. Frozen with the sweep, so that a report can be made again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rubric {
    /// Short name.
    pub name: String,
    /// What is looked for.
    pub items: Vec<Item>,
}

/// One thing to look for. At least one of `query`, `shell` and `block` is set; any of them is
/// evidence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// Short name in tables and files.
    pub id: String,
    /// For people.
    pub title: String,
    /// Heading under which it is shown.
    pub group: String,
    /// Share of the coverage; 1 unless the rubric says otherwise.
    #[serde(default = "one")]
    pub weight: f64,
    /// A tree-sitter query over Python. The capture `@evidence` marks the line to show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// A regular expression over the lines of shell blocks and of inline code in the prose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<String>,
    /// A regular expression over the lines of blocks that are neither Python nor shell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<String>,
}

fn one() -> f64 {
    1.0
}

/// Why a rubric cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RubricError {
    #[error("the rubric is not valid TOML for a rubric")]
    Malformed(#[source] Box<toml::de::Error>),
    #[error("rubric `{rubric}` has no items: add an [[items]]")]
    Empty { rubric: String },
    #[error("rubric `{rubric}` has two items `{item}`: ids are unique")]
    Duplicate { rubric: String, item: String },
    #[error(
        "item `{item}` of rubric `{rubric}` looks for nothing: set `query`, `shell` or `block`"
    )]
    Nothing { rubric: String, item: String },
    #[error("item `{item}` of rubric `{rubric}` has weight {weight}: it must be above 0")]
    Weight { rubric: String, item: String, weight: f64 },
    #[error(
        "the query of item `{item}` of rubric `{rubric}` is wrong in its line {line}, column \
        {column}: {message}"
    )]
    Query { rubric: String, item: String, line: usize, column: usize, message: String },
    #[error(
        "the query of item `{item}` of rubric `{rubric}` has no capture `@evidence`: mark the \
        node that proves it"
    )]
    NoEvidence { rubric: String, item: String },
    #[error("the `{key}` pattern of item `{item}` of rubric `{rubric}` is wrong")]
    Pattern {
        rubric: String,
        item: String,
        key: &'static str,
        #[source]
        source: Box<regex::Error>,
    },
}

impl Rubric {
    /// Reads a rubric; [`Compiled::new`] checks it.
    pub fn parse(text: &str) -> Result<Self, RubricError> {
        toml::from_str(text).map_err(|error| RubricError::Malformed(Box::new(error)))
    }

    /// A rubric that ships, by name.
    pub fn shipped(name: &str) -> Option<Self> {
        let text = match name {
            "python-service" => PYTHON_SERVICE,
            "python-code" => PYTHON_CODE,
            "python-function" => PYTHON_FUNCTION,
            _ => return None,
        };
        Some(Self::parse(text).expect("a test parses every shipped rubric"))
    }

    /// Names of the rubrics that ship.
    pub const SHIPPED: [&'static str; 3] = ["python-service", "python-code", "python-function"];
}

/// A rubric ready to be applied: one query for all items, so that a tree is walked once.
pub struct Compiled {
    /// What it was made from.
    pub rubric: Rubric,
    pub(super) query: Query,
    /// The item of each pattern in `query`.
    pub(super) pattern_items: Vec<usize>,
    pub(super) evidence_capture: Option<u32>,
    pub(super) shell: Vec<Option<regex::Regex>>,
    pub(super) block: Vec<Option<regex::Regex>>,
}

impl Compiled {
    /// Checks and compiles a rubric.
    pub fn new(rubric: Rubric) -> Result<Self, RubricError> {
        if rubric.items.is_empty() {
            return Err(RubricError::Empty { rubric: rubric.name });
        }
        let mut source = String::new();
        let mut pattern_items = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for (index, item) in rubric.items.iter().enumerate() {
            let (name, id) = (|| rubric.name.clone(), || item.id.clone());
            if !seen.insert(&item.id) {
                return Err(RubricError::Duplicate { rubric: name(), item: id() });
            }
            if item.query.is_none() && item.shell.is_none() && item.block.is_none() {
                return Err(RubricError::Nothing { rubric: name(), item: id() });
            }
            if !(item.weight > 0.0 && item.weight.is_finite()) {
                let weight = item.weight;
                return Err(RubricError::Weight { rubric: name(), item: id(), weight });
            }
            let Some(query) = &item.query else { continue };
            // Compiled alone first, so that an error names the item and the line within it.
            let alone = Query::new(&python::language(), query).map_err(|error: QueryError| {
                let (line, column) = (error.row + 1, error.column + 1);
                let message = error.message;
                RubricError::Query { rubric: name(), item: id(), line, column, message }
            })?;
            if alone.capture_index_for_name("evidence").is_none() {
                return Err(RubricError::NoEvidence { rubric: name(), item: id() });
            }
            pattern_items.extend(std::iter::repeat_n(index, alone.pattern_count()));
            source.push_str(query);
            source.push('\n');
        }
        let query = Query::new(&python::language(), &source)
            .expect("each query compiled alone, and queries do not see each other");
        let evidence_capture = query.capture_index_for_name("evidence");
        let shell = patterns(&rubric, "shell", |item| item.shell.as_deref())?;
        let block = patterns(&rubric, "block", |item| item.block.as_deref())?;
        Ok(Self { rubric, query, pattern_items, evidence_capture, shell, block })
    }
}

fn patterns(
    rubric: &Rubric,
    key: &'static str,
    of: fn(&Item) -> Option<&str>,
) -> Result<Vec<Option<regex::Regex>>, RubricError> {
    let compile = |item: &Item| {
        of(item).map(regex::Regex::new).transpose().map_err(|error| RubricError::Pattern {
            rubric: rubric.name.clone(),
            item: item.id.clone(),
            key,
            source: Box::new(error),
        })
    };
    rubric.items.iter().map(compile).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_rubric_compiles() {
        for name in Rubric::SHIPPED {
            let rubric = Rubric::shipped(name).expect("it ships");
            assert_eq!(rubric.name, name);
            Compiled::new(rubric).unwrap_or_else(|error| panic!("{error}"));
        }
        assert!(Rubric::shipped("nope").is_none());
    }

    #[test]
    fn a_bad_rubric_is_refused_with_its_item_and_line() {
        let compile = |text: &str| {
            let rubric = Rubric::parse(&format!("name = \"r\"\n{text}"))?;
            Compiled::new(rubric).map(|_| ())
        };
        let item =
            |rest: &str| format!("[[items]]\nid = \"a\"\ntitle = \"A\"\ngroup = \"g\"\n{rest}\n");
        let message = |text: &str| crate::error::chain(&compile(text).expect_err(text));
        assert!(message("items = []").contains("no items"));
        assert!(message(&item("")).contains("looks for nothing"));
        assert!(message(&item("query = '(modul) @evidence'")).contains("line 1, column 2"));
        assert!(message(&item("query = '(module)'")).contains("no capture"));
        assert!(message(&item("shell = '('")).contains("`shell` pattern"));
        assert!(message(&item("shell = 'x'\nweight = 0")).contains("above 0"));
        let twice = item("shell = 'x'") + &item("shell = 'x'");
        assert!(message(&twice).contains("unique"));
        assert!(message(&item("shel = 'x'")).contains("unknown field"));
    }
}
