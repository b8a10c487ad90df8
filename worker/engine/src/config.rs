//! One configuration for every architecture: what differs between them is a field, not a file.

use bakeoff_model::{shape::{Fields, ModelShape, ShapeError}};
use bakeoff_proto::{FailureKind};

use crate::{EngineError, rope::Rope};

/// A model's `config.json` as the engines need it.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    pub shape: ModelShape,
    pub rms_norm_eps: f64,
    pub rope: Rope,
    /// Whether the weights of the chosen experts are made to sum to 1. False for a dense model.
    pub norm_topk_prob: bool,
}

impl ModelConfig {
    /// # Errors
    /// What [`ModelShape::from_config_json`] refuses, a missing or wrong field beside the sizes, an
    /// activation other than SiLU, a way of scaling positions we do not know.
    pub fn parse(json: &[u8]) -> Result<Self, EngineError> {
        Ok(Self::from_fields(&Fields::parse(json)?)?)
    }

    fn from_fields(fields: &Fields) -> Result<Self, ShapeError> {
        let shape = ModelShape::from_fields(fields)?;
        if let Some(act) = fields.text("hidden_act")?.filter(|act| act != "silu") {
            return Err(ShapeError::Unsupported {
                what: format!("the activation `hidden_act` = {act:?}"),
                next: "use a model with `silu`",
            });
        }
        let eps = fields.positive("rms_norm_eps")?;
        Ok(Self {
            rms_norm_eps: eps.ok_or(ShapeError::Missing("rms_norm_eps"))?,
            rope: Rope::from_fields(fields, &shape)?,
            norm_topk_prob: shape.experts.is_some()
                && fields.flag("norm_topk_prob")?.unwrap_or(false),
            shape,
        })
    }
}

impl From<ShapeError> for EngineError {
    fn from(error: ShapeError) -> Self {
        let kind = FailureKind::of_shape(&error);
        Self::new(kind, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn config() -> Value {
        json!({
            "architectures": ["Qwen2ForCausalLM"], "vocab_size": 320, "hidden_size": 64,
            "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "max_position_embeddings": 1024, "rope_theta": 10000,
            "rms_norm_eps": 1e-6, "hidden_act": "silu",
        })
    }

    fn refusal(change: impl FnOnce(&mut Value)) -> EngineError {
        let mut config = config();
        change(&mut config);
        ModelConfig::parse(config.to_string().as_bytes()).expect_err("refused")
    }

    #[test]
    fn fields_beside_the_sizes_are_required_and_named() {
        assert!(ModelConfig::parse(config().to_string().as_bytes()).is_ok());
        for field in ["rms_norm_eps", "rope_theta", "hidden_size"] {
            let error = refusal(|c| {
                c.as_object_mut().expect("an object").remove(field);
            });
            assert_eq!(error.kind, FailureKind::BadConfig);
            assert!(error.message.contains(field), "{error}");
        }
    }

    #[test]
    fn what_we_cannot_compute_is_refused_by_name() {
        let error = refusal(|c| c["hidden_act"] = json!("gelu"));
        assert_eq!(error.kind, FailureKind::Unsupported);
        assert!(error.message.contains("gelu"), "{error}");
        let error =
            refusal(|c| c["rope_scaling"] = json!({"rope_type": "longrope", "factor": 2.0}));
        assert_eq!(error.kind, FailureKind::Unsupported);
        assert!(error.message.contains("longrope"), "{error}");
        let error = refusal(|c| c["rope_scaling"] = json!({"rope_type": "yarn"}));
        assert_eq!(error.kind, FailureKind::BadConfig);
        assert!(error.message.contains("rope_scaling.factor"), "{error}");
        let error = refusal(|c| c["architectures"] = json!(["MambaForCausalLM"]));
        assert_eq!(error.kind, FailureKind::UnknownArchitecture);
    }
}
