//! Which model, from where, and how its prompt is formatted.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The models inside the engine: each a trained toy of one architecture.
pub const BUILTIN_MODELS: [&str; 3] = ["tiny-qwen2", "tiny-qwen3", "tiny-qwen3-moe"];

/// Where a model's files are.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "from", rename_all = "lowercase")]
pub enum ModelSource {
    /// `owner/name` on the hub. The revision is a commit once the plan has resolved it.
    Hub { id: String, revision: String },
    /// `builtin:NAME`, inside the engine.
    Builtin { name: String },
    /// A folder on the worker's machine.
    Path { path: String },
}

/// How the prompt becomes the model's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Instruct if there is a chat template; else code if the id says `code` or `coder`; else base.
    #[default]
    Auto,
    /// The chat template with system, user and assistant.
    Instruct,
    /// The prompt as it is.
    Base,
    /// The language hint of the sweep, then the prompt.
    Code,
}

impl Format {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Instruct => "instruct",
            Self::Base => "base",
            Self::Code => "code",
        }
    }
}

/// Whether a model that can think before it answers does so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Thinking {
    /// The template decides.
    #[default]
    Auto,
    On,
    Off,
}

/// One model of a sweep.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct ModelSpec {
    pub source: ModelSource,
    pub format: Format,
    pub thinking: Thinking,
}

impl ModelSpec {
    /// The name people know the model by: hub id, `builtin:NAME`, or the folder.
    pub fn display_id(&self) -> String {
        match &self.source {
            ModelSource::Hub { id, .. } => id.clone(),
            ModelSource::Builtin { name } => format!("builtin:{name}"),
            ModelSource::Path { path } => path.clone(),
        }
    }

    /// The last part of the name, with every character that a file name should not hold replaced.
    pub fn file_stem(&self) -> String {
        let id = self.display_id();
        let last = id.trim_end_matches('/').rsplit(['/', ':']).next().unwrap_or_default();
        let stem = file_token(last);
        if stem.is_empty() { "model".to_owned() } else { stem }
    }
}

/// Any string as part of a file name: letters, digits, `.`, `_` and `-` stay, the rest becomes `_`.
/// Never `.` or `..`, never empty unless the input is made of dots alone.
pub fn file_token(text: &str) -> String {
    let token: String = text
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '_' })
        .take(96)
        .collect();
    token.trim_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(source: ModelSource) -> ModelSpec {
        ModelSpec { source, format: Format::Auto, thinking: Thinking::Auto }
    }

    #[test]
    fn the_file_stem_is_the_last_part_and_never_leaves_the_folder() {
        let hub = ModelSource::Hub { id: "Qwen/Qwen3-32B".into(), revision: "main".into() };
        assert_eq!(spec(hub).file_stem(), "Qwen3-32B");
        let builtin = ModelSource::Builtin { name: "tiny-qwen2".into() };
        assert_eq!(spec(builtin).file_stem(), "tiny-qwen2");
        let path = ModelSource::Path { path: "/models/..".into() };
        assert_eq!(spec(path).file_stem(), "model");
        assert_eq!(file_token("../../etc/passwd"), "_.._etc_passwd");
        assert_eq!(file_token(".."), "");
    }
}
