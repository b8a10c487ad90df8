//! What a sweep file names outside of itself, read from its text alone.

use std::collections::BTreeSet;

use toml::{Table, Value};

/// Files and folders of a sweep as it writes them: relative ones are meant from the sweep's folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Named {
    /// Prompts, suites, rubrics and test files: all that [`super::load`] reads beside the sweep.
    pub files: BTreeSet<String>,
    /// Folders of models.
    pub models: BTreeSet<String>,
}

/// # Errors
/// The text is not TOML. [`super::load`] says more, and tells what else is wrong.
pub fn named(text: &str) -> Result<Named, toml::de::Error> {
    let top: Table = toml::from_str(text)?;
    let mut named = Named::default();
    for prompt in sections(&top, "prompts") {
        for key in ["file", "suite"] {
            named.files.extend(string(prompt, key));
        }
        // Other rubrics are the shipped ones.
        named.files.extend(string(prompt, "rubric").filter(|name| name.ends_with(".toml")));
    }
    if let Some(checks) = top.get("checks").and_then(Value::as_table) {
        named.files.extend(string(checks, "test_file"));
    }
    for model in sections(&top, "models") {
        named.models.extend(string(model, "path"));
    }
    Ok(named)
}

fn sections<'a>(top: &'a Table, key: &str) -> impl Iterator<Item = &'a Table> {
    top.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_table)
}

fn string(table: &Table, key: &str) -> Option<String> {
    table.get(key).and_then(Value::as_str).map(str::to_owned)
}
