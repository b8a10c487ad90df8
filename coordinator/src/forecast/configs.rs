//! Configurations of models, where they can be had without a network: those that the default
//! sweep names are inside the program, those of a folder are read from it.

use bakeoff_model::ModelSource;
use bakeoff_model::shape::ModelShape;

const KNOWN: [(&str, &[u8]); 5] = [
    (
        "Qwen/Qwen2.5-Coder-7B-Instruct",
        include_bytes!("../../../deploy/models/Qwen2.5-Coder-7B-Instruct.json"),
    ),
    (
        "Qwen/Qwen2.5-Coder-32B-Instruct",
        include_bytes!("../../../deploy/models/Qwen2.5-Coder-32B-Instruct.json"),
    ),
    ("Qwen/Qwen3-32B", include_bytes!("../../../deploy/models/Qwen3-32B.json")),
    ("Qwen/Qwen3-30B-A3B", include_bytes!("../../../deploy/models/Qwen3-30B-A3B.json")),
    (
        "Qwen/Qwen3-Coder-30B-A3B-Instruct",
        include_bytes!("../../../deploy/models/Qwen3-Coder-30B-A3B-Instruct.json"),
    ),
];

/// The shape of a model; `None` where there is nothing to say about its size.
///
/// # Errors
/// A sentence that says why the shape is not known.
pub fn shape(source: &ModelSource) -> Result<Option<ModelShape>, String> {
    let config = match source {
        ModelSource::Builtin { .. } => return Ok(None),
        ModelSource::Hub { id, .. } => match KNOWN.iter().find(|(known, _)| known == id) {
            Some((_, config)) => config.to_vec(),
            None => {
                return Err(format!(
                    "no memory ledger: the configuration of {id} is not in this program; the worker checks it before it loads"
                ));
            }
        },
        ModelSource::Path { path } => {
            let file = std::path::Path::new(path).join("config.json");
            std::fs::read(&file).map_err(|error| {
                format!(
                    "no memory ledger: {} is not readable here ({error}); workers need it",
                    file.display()
                )
            })?
        }
    };
    ModelShape::from_config_json(&config)
        .map(Some)
        .map_err(|error| format!("no memory ledger: config.json: {error}; its cells would fail"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_configuration_parses() {
        for (id, _) in KNOWN {
            let source = ModelSource::Hub { id: id.to_owned(), revision: "main".to_owned() };
            assert!(shape(&source).unwrap().is_some(), "{id}");
        }
    }
}
