//! The trained demo models inside the program: toys, so that a first sweep needs neither disk nor
//! network.

use bakeoff_proto::FailureKind;

use super::files::{ModelFiles, WeightFiles};
use crate::EngineError;

struct Embedded {
    name: &'static str,
    config: &'static [u8],
    generation_config: &'static [u8],
    tokenizer: &'static [u8],
    tokenizer_config: &'static [u8],
    weights: &'static [u8],
}

#[cfg(feature = "builtin-models")]
macro_rules! embedded {
    ($name:literal) => {
        Embedded {
            name: $name,
            config: include_bytes!(concat!("../../demo-models/", $name, "/config.json")),
            generation_config: include_bytes!(concat!(
                "../../demo-models/",
                $name,
                "/generation_config.json"
            )),
            tokenizer: include_bytes!(concat!("../../demo-models/", $name, "/tokenizer.json")),
            tokenizer_config: include_bytes!(concat!(
                "../../demo-models/",
                $name,
                "/tokenizer_config.json"
            )),
            weights: include_bytes!(concat!("../../demo-models/", $name, "/model.safetensors")),
        }
    };
}

#[cfg(feature = "builtin-models")]
static MODELS: &[Embedded] =
    &[embedded!("tiny-qwen2"), embedded!("tiny-qwen3"), embedded!("tiny-qwen3-moe")];
#[cfg(not(feature = "builtin-models"))]
static MODELS: &[Embedded] = &[];

/// Names of the models in this build.
pub fn names() -> impl Iterator<Item = &'static str> {
    MODELS.iter().map(|model| model.name)
}

pub(super) fn read(name: &str, weights: bool) -> Result<ModelFiles, EngineError> {
    let Some(model) = MODELS.iter().find(|model| model.name == name) else {
        let known: Vec<String> = names().map(|name| format!("builtin:{name}")).collect();
        let known = if known.is_empty() {
            "none: use a worker built with the feature `builtin-models`".to_owned()
        } else {
            known.join(", ")
        };
        return Err(EngineError::new(
            FailureKind::ModelNotFound,
            format!("unknown built-in model `builtin:{name}`: expected {known}"),
        ));
    };
    Ok(ModelFiles {
        id: format!("builtin:{name}"),
        revision: None,
        config: model.config.to_vec(),
        generation_config: Some(model.generation_config.to_vec()),
        tokenizer: Some(model.tokenizer.to_vec()),
        tokenizer_config: Some(model.tokenizer_config.to_vec()),
        chat_template: None,
        weights: if weights { WeightFiles::Embedded(model.weights) } else { WeightFiles::Absent },
        download_s: None,
    })
}
