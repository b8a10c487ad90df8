//! Sizes of models, where they can be had without a network: of those that the program knows, and
//! of a folder.

use bakeoff_model::{ModelShape, ModelSource, known};

/// The shape of a model; `None` where there is nothing to say about its size.
///
/// # Errors
/// A sentence that says why the shape is not known.
pub fn shape(source: &ModelSource) -> Result<Option<ModelShape>, String> {
    let config = match source {
        ModelSource::Builtin { .. } => return Ok(None),
        ModelSource::Hub { id, .. } => {
            return known::find(id).map(|model| Some(model.shape())).ok_or_else(|| {
                format!(
                    "no memory ledger: the configuration of {id} is not in this program; the \
                     worker checks it before it loads"
                )
            });
        }
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
