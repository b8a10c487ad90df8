//! From `config.json` to a [`ModelShape`]. Where a field may be absent, the value assumed is the one
//! transformers assumes for that architecture.

use super::{Architecture, ExpertShape, Fields, ModelShape, ShapeError};

/// No model is larger; sizes beyond are mistakes, and would overflow what follows from them.
const MAX_PARAMETERS: f64 = 1e14;

pub(super) fn shape(fields: &Fields) -> Result<ModelShape, ShapeError> {
    let architecture = architecture(fields)?;
    refuse_quantised(fields)?;
    refuse_sliding_window(fields)?;

    let hidden_size = fields.required_size("hidden_size")?;
    let heads = fields.required_size("num_attention_heads")?;
    let kv_heads = match fields.size("num_key_value_heads")? {
        Some(kv_heads) => kv_heads,
        None if architecture == Architecture::Llama => heads,
        None => return Err(ShapeError::Missing("num_key_value_heads")),
    };
    if !heads.is_multiple_of(kv_heads) {
        let expected = format!("a divisor of num_attention_heads = {heads}");
        return Err(fields.bad("num_key_value_heads", expected));
    }
    let head_dim = head_dim(fields, architecture, hidden_size, heads)?;
    let attention_bias = fields.flag("attention_bias")?.unwrap_or(false);
    let qwen3 = matches!(architecture, Architecture::Qwen3 | Architecture::Qwen3Moe);

    let shape = ModelShape {
        architecture,
        vocab_size: fields.required_size("vocab_size")?,
        hidden_size,
        intermediate_size: fields.required_size("intermediate_size")?,
        layers: fields.required_size("num_hidden_layers")?,
        heads,
        kv_heads,
        head_dim,
        max_context: max_context(fields)?,
        tie_word_embeddings: fields.flag("tie_word_embeddings")?.unwrap_or(false),
        qkv_bias: architecture == Architecture::Qwen2 || attention_bias,
        o_bias: architecture != Architecture::Qwen2 && attention_bias,
        mlp_bias: architecture == Architecture::Llama && fields.flag("mlp_bias")?.unwrap_or(false),
        qk_norm: qwen3,
        experts: match architecture {
            Architecture::Qwen3Moe => Some(experts(fields)?),
            Architecture::Llama | Architecture::Qwen2 | Architecture::Qwen3 => None,
        },
        stored_bytes_per_parameter: stored_bytes(fields)?,
    };
    refuse_impossible(&shape)?;
    Ok(shape)
}

fn architecture(fields: &Fields) -> Result<Architecture, ShapeError> {
    let listed = fields.get("architectures").map(|value| {
        let first = value.as_array().and_then(|list| list.first()).and_then(|name| name.as_str());
        first.map(str::to_owned).ok_or_else(|| fields.bad("architectures", "a list with one name"))
    });
    let (found, name_of): (String, fn(Architecture) -> &'static str) = match listed {
        Some(name) => (name?, Architecture::class_name),
        None => {
            let model_type = fields.text("model_type")?;
            (model_type.ok_or(ShapeError::Missing("architectures"))?, Architecture::model_type)
        }
    };
    let known = Architecture::ALL.into_iter().find(|known| name_of(*known) == found);
    known.ok_or(ShapeError::UnknownArchitecture { found })
}

fn refuse_quantised(fields: &Fields) -> Result<(), ShapeError> {
    match fields.object("quantization_config")? {
        None => Ok(()),
        Some(config) => {
            let method = config.text("quant_method")?.unwrap_or_else(|| "unknown".to_owned());
            Err(ShapeError::Quantised { method })
        }
    }
}

fn refuse_sliding_window(fields: &Fields) -> Result<(), ShapeError> {
    if fields.flag("use_sliding_window")?.unwrap_or(false) {
        return Err(ShapeError::Unsupported {
            what: "sliding-window attention (`use_sliding_window` = true)".to_owned(),
            next: "use a model with full attention",
        });
    }
    Ok(())
}

fn head_dim(
    fields: &Fields,
    architecture: Architecture,
    hidden_size: usize,
    heads: usize,
) -> Result<usize, ShapeError> {
    let head_dim = match fields.size("head_dim")? {
        Some(head_dim) => head_dim,
        None if architecture == Architecture::Qwen3 => 128,
        None if hidden_size.is_multiple_of(heads) => hidden_size / heads,
        None => {
            let expected = format!("a multiple of num_attention_heads = {heads}, or `head_dim`");
            return Err(fields.bad("hidden_size", expected));
        }
    };
    if !head_dim.is_multiple_of(2) {
        return Err(ShapeError::Bad {
            field: "head_dim".to_owned(),
            found: head_dim.to_string(),
            expected: "an even number: rotary positions turn pairs".to_owned(),
        });
    }
    Ok(head_dim)
}

fn max_context(fields: &Fields) -> Result<usize, ShapeError> {
    let positions = fields.required_size("max_position_embeddings")?;
    let scaling = match fields.object("rope_scaling")? {
        Some(scaling) => Some(scaling),
        None => fields.object("rope_parameters")?,
    };
    let Some(scaling) = scaling else { return Ok(positions) };
    // Configurations that are stretched by hand often keep the old maximum beside the factor.
    let original = scaling.size("original_max_position_embeddings")?;
    let (Some(original), Some(factor)) = (original, scaling.positive("factor")?) else {
        return Ok(positions);
    };
    let stretched = (original as f64 * factor).min(f64::from(i32::MAX)) as usize;
    Ok(positions.max(stretched))
}

fn experts(fields: &Fields) -> Result<ExpertShape, ShapeError> {
    // transformers 5 writes the second name.
    let experts = match fields.size("num_experts")? {
        Some(experts) => experts,
        None => fields.size("num_local_experts")?.ok_or(ShapeError::Missing("num_experts"))?,
    };
    let experts_per_token = fields.required_size("num_experts_per_tok")?;
    if experts_per_token > experts {
        return Err(fields.bad("num_experts_per_tok", format!("at most num_experts = {experts}")));
    }
    Ok(ExpertShape {
        experts,
        experts_per_token,
        intermediate_size: fields.required_size("moe_intermediate_size")?,
        sparse_step: fields.size("decoder_sparse_step")?.unwrap_or(1),
        dense_layers: fields.indices("mlp_only_layers")?,
    })
}

fn stored_bytes(fields: &Fields) -> Result<u64, ShapeError> {
    let name = match fields.text("torch_dtype")? {
        Some(name) => Some(name),
        None => fields.text("dtype")?,
    };
    Ok(if name.as_deref() == Some("float32") { 4 } else { 2 })
}

fn refuse_impossible(shape: &ModelShape) -> Result<(), ShapeError> {
    let size = |n: usize| n as f64;
    let mlp = match &shape.experts {
        Some(e) => size(e.experts) * size(e.intermediate_size).max(1.0),
        None => 0.0,
    } + size(shape.intermediate_size);
    let heads = size(shape.heads) * size(shape.head_dim);
    let layer = size(shape.hidden_size) * (4.0 * heads + 3.0 * mlp);
    let total = size(shape.layers) * layer + 2.0 * size(shape.vocab_size) * size(shape.hidden_size);
    if total > MAX_PARAMETERS {
        return Err(ShapeError::Bad {
            field: "the sizes together".to_owned(),
            found: format!("about {total:.1e} parameters"),
            expected: format!("at most {MAX_PARAMETERS:.0e}"),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn config() -> Value {
        json!({
            "architectures": ["Qwen3MoeForCausalLM"], "vocab_size": 320, "hidden_size": 64,
            "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "head_dim": 32, "max_position_embeddings": 1024,
            "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
        })
    }

    fn parse(config: &Value) -> Result<ModelShape, ShapeError> {
        ModelShape::from_config_json(config.to_string().as_bytes())
    }

    #[test]
    fn a_missing_field_is_named() {
        for field in [
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "num_key_value_heads",
            "max_position_embeddings",
            "num_experts",
            "num_experts_per_tok",
            "moe_intermediate_size",
        ] {
            let mut without = config();
            without.as_object_mut().expect("an object").remove(field);
            let error = parse(&without).expect_err(field);
            assert!(matches!(error, ShapeError::Missing(_)), "{error:?}");
            assert!(error.to_string().contains(&format!("`{field}`")), "{error}");
        }
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_named_with_what_was_expected() {
        for (field, value, expected) in [
            ("hidden_size", json!("big"), "whole number"),
            ("hidden_size", json!(0), "whole number"),
            ("hidden_size", json!(-3), "whole number"),
            ("num_hidden_layers", json!(2.5), "whole number"),
            ("num_key_value_heads", json!(3), "divisor of num_attention_heads = 4"),
            ("num_experts_per_tok", json!(9), "at most num_experts = 8"),
            ("head_dim", json!(33), "even"),
            ("tie_word_embeddings", json!("no"), "true or false"),
            ("mlp_only_layers", json!([-1]), "layer numbers"),
        ] {
            let mut bad = config();
            bad[field] = value;
            let text = parse(&bad).expect_err(field).to_string();
            assert!(text.contains(field) && text.contains(expected), "{text}");
        }
        let mut huge = config();
        huge["hidden_size"] = json!(2_000_000_000);
        huge["intermediate_size"] = json!(2_000_000_000);
        assert!(parse(&huge).expect_err("too large").to_string().contains("parameters"));
    }

    #[test]
    fn unknown_quantised_and_sliding_models_are_refused_with_the_way_out() {
        let mut unknown = config();
        unknown["architectures"] = json!(["GPT2LMHeadModel"]);
        let error = parse(&unknown).expect_err("an unknown architecture");
        assert!(matches!(error, ShapeError::UnknownArchitecture { .. }));
        let text = error.to_string();
        assert!(text.contains("GPT2LMHeadModel") && text.contains("Qwen3MoeForCausalLM"), "{text}");

        let mut quantised = config();
        quantised["quantization_config"] = json!({"quant_method": "gptq", "bits": 4});
        let error = parse(&quantised).expect_err("a quantised checkpoint");
        assert!(matches!(error, ShapeError::Quantised { .. }));
        assert!(error.to_string().contains("gptq"));

        let mut sliding = config();
        sliding["use_sliding_window"] = json!(true);
        let error = parse(&sliding).expect_err("sliding");
        assert!(matches!(error, ShapeError::Unsupported { .. }));

        for text in [&b"{"[..], b"[1]"] {
            let error = Fields::parse(text).expect_err("no object");
            assert!(matches!(error, ShapeError::NotJson(_)));
        }
    }

    #[test]
    fn a_stretched_context_counts() {
        let mut yarn = config();
        yarn["rope_scaling"] =
            json!({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024});
        assert_eq!(parse(&yarn).expect("valid").max_context, 4096);
        assert_eq!(parse(&config()).expect("valid").max_context, 1024);
    }
}
