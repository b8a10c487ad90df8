//! candle-transformers' models behind one call, built from our configuration and our weights.

use std::collections::HashMap;

use bakeoff_model::{Dtype, shape::{Architecture, ModelShape}};
use bakeoff_proto::{FailureKind};
use candle_core::{DType, Device, Result, Shape, Tensor};
use candle_nn::{Activation, Init, VarBuilder, var_builder::SimpleBackend};
use candle_transformers::models::{llama, qwen2, qwen3, qwen3_moe};

use crate::{
    EngineError,
    config::ModelConfig,
    load::{LoadProgress, OnLoad},
    rope::RopeScaling,
    weights::{Weights, abandoned},
};

pub(super) enum Model {
    Qwen2(qwen2::ModelForCausalLM),
    Qwen3(qwen3::ModelForCausalLM),
    Qwen3Moe(qwen3_moe::ModelForCausalLM),
    Llama { model: Box<llama::Llama>, cache: llama::Cache, empty: llama::Cache },
}

impl Model {
    pub fn load(
        config: &ModelConfig,
        weights: &Weights,
        dtype: Dtype,
        device: &Device,
        on_progress: OnLoad<'_>,
    ) -> std::result::Result<Self, EngineError> {
        refuse(config)?;
        let candle_dtype = match dtype {
            Dtype::F32 => DType::F32,
            Dtype::Bf16 => DType::BF16,
        };
        // A `VarBuilder` owns what it reads from, so everything passes through memory of the host.
        let named = Named::read(weights, dtype, on_progress)?;
        let vb = VarBuilder::from_backend(Box::new(named), candle_dtype, device.clone());
        Ok(match config.shape.architecture {
            Architecture::Qwen2 => {
                Self::Qwen2(qwen2::ModelForCausalLM::new(&qwen2_config(config), vb)?)
            }
            Architecture::Qwen3 => {
                Self::Qwen3(qwen3::ModelForCausalLM::new(&qwen3_config(config), vb)?)
            }
            Architecture::Qwen3Moe => {
                let config = qwen3_moe_config(config)?;
                Self::Qwen3Moe(qwen3_moe::ModelForCausalLM::new(&config, vb)?)
            }
            Architecture::Llama => {
                let config = llama_config(config);
                let empty = llama::Cache::new(true, candle_dtype, &config, device)?;
                let model = Box::new(llama::Llama::load(vb, &config)?);
                Self::Llama { model, cache: empty.clone(), empty }
            }
        })
    }

    pub fn forward(&mut self, input: &Tensor, position: usize) -> Result<Tensor> {
        match self {
            Self::Qwen2(model) => model.forward(input, position),
            Self::Qwen3(model) => model.forward(input, position),
            Self::Qwen3Moe(model) => model.forward(input, position),
            Self::Llama { model, cache, .. } => model.forward(input, position, cache),
        }
    }

    /// Empties the cache.
    pub fn clear(&mut self) {
        match self {
            Self::Qwen2(model) => model.clear_kv_cache(),
            Self::Qwen3(model) => model.clear_kv_cache(),
            Self::Qwen3Moe(model) => model.clear_kv_cache(),
            Self::Llama { cache, empty, .. } => *cache = empty.clone(),
        }
    }
}

/// Refuses what candle-transformers would compute differently from what the configuration asks.
fn refuse(config: &ModelConfig) -> std::result::Result<(), EngineError> {
    let shape: &ModelShape = &config.shape;
    let llama = shape.architecture == Architecture::Llama;
    let own_head_dim = shape.heads * shape.head_dim != shape.hidden_size;
    let ignored = match () {
        () if config.rope.scaling != RopeScaling::None => "rope_scaling",
        () if shape.experts.as_ref().is_some_and(|e| !e.dense_layers.is_empty()) => {
            "mlp_only_layers"
        }
        () if own_head_dim && !shape.qk_norm => "head_dim other than hidden_size / heads",
        () if llama && (shape.qkv_bias || shape.mlp_bias) => "attention_bias and mlp_bias",
        () => return Ok(()),
    };
    Err(EngineError::new(
        FailureKind::Unsupported,
        format!(
            "candle-transformers' {} model ignores {ignored}, which this model needs: use the \
             engine `reference`",
            shape.architecture.model_type()
        ),
    ))
}

/// The weights under the checkpoint's own names.
struct Named(HashMap<String, Tensor>);

impl Named {
    fn read(
        weights: &Weights,
        dtype: Dtype,
        on_progress: OnLoad<'_>,
    ) -> std::result::Result<Self, EngineError> {
        let total_bytes = weights.plan().iter().map(|b| b.elements() as u64 * dtype.bytes()).sum();
        let mut bytes = 0;
        let mut tensors = HashMap::new();
        for buffer in weights.plan() {
            for part in &buffer.parts {
                tensors.insert(part.name.clone(), weights.named(&part.name, dtype)?);
                bytes += part.elements() as u64 * dtype.bytes();
            }
            if on_progress(LoadProgress { bytes, total_bytes }).is_break() {
                return Err(abandoned());
            }
        }
        Ok(Self(tensors))
    }
}

impl SimpleBackend for Named {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _: Init,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        let tensor = self.get_unchecked(name, dtype, device)?;
        if tensor.shape() != &shape {
            candle_core::bail!("tensor {name} has shape {:?}, expected {shape:?}", tensor.shape());
        }
        Ok(tensor)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let Some(tensor) = self.0.get(name) else {
            candle_core::bail!(
                "the model asks for a tensor {name} that its configuration does not have"
            );
        };
        tensor.to_dtype(dtype)?.to_device(device)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

fn qwen2_config(config: &ModelConfig) -> qwen2::Config {
    let shape = &config.shape;
    qwen2::Config {
        vocab_size: shape.vocab_size,
        hidden_size: shape.hidden_size,
        intermediate_size: shape.intermediate_size,
        num_hidden_layers: shape.layers,
        num_attention_heads: shape.heads,
        num_key_value_heads: shape.kv_heads,
        max_position_embeddings: shape.max_context,
        // Attention is full: a window as long as the context.
        sliding_window: shape.max_context,
        max_window_layers: shape.layers,
        tie_word_embeddings: shape.tie_word_embeddings,
        rope_theta: config.rope.theta,
        rms_norm_eps: config.rms_norm_eps,
        use_sliding_window: false,
        hidden_act: Activation::Silu,
    }
}

fn qwen3_config(config: &ModelConfig) -> qwen3::Config {
    let shape = &config.shape;
    qwen3::Config {
        vocab_size: shape.vocab_size,
        hidden_size: shape.hidden_size,
        intermediate_size: shape.intermediate_size,
        num_hidden_layers: shape.layers,
        num_attention_heads: shape.heads,
        head_dim: shape.head_dim,
        attention_bias: shape.qkv_bias,
        num_key_value_heads: shape.kv_heads,
        max_position_embeddings: shape.max_context,
        sliding_window: None,
        max_window_layers: shape.layers,
        tie_word_embeddings: shape.tie_word_embeddings,
        rope_theta: config.rope.theta,
        rms_norm_eps: config.rms_norm_eps,
        use_sliding_window: false,
        hidden_act: Activation::Silu,
    }
}

fn qwen3_moe_config(config: &ModelConfig) -> std::result::Result<qwen3_moe::Config, EngineError> {
    let shape = &config.shape;
    let experts = shape.experts.as_ref().ok_or_else(|| {
        EngineError::new(FailureKind::BadConfig, "a mixture of experts without experts")
    })?;
    Ok(qwen3_moe::Config {
        vocab_size: shape.vocab_size,
        hidden_size: shape.hidden_size,
        intermediate_size: shape.intermediate_size,
        num_hidden_layers: shape.layers,
        num_attention_heads: shape.heads,
        head_dim: shape.head_dim,
        attention_bias: shape.qkv_bias,
        num_key_value_heads: shape.kv_heads,
        max_position_embeddings: shape.max_context,
        sliding_window: None,
        max_window_layers: shape.layers,
        tie_word_embeddings: shape.tie_word_embeddings,
        rope_theta: config.rope.theta,
        rms_norm_eps: config.rms_norm_eps,
        use_sliding_window: false,
        hidden_act: Activation::Silu,
        decoder_sparse_step: experts.sparse_step,
        moe_intermediate_size: experts.intermediate_size,
        num_experts_per_tok: experts.experts_per_token,
        num_experts: experts.experts,
        norm_topk_prob: config.norm_topk_prob,
    })
}

fn llama_config(config: &ModelConfig) -> llama::Config {
    let shape = &config.shape;
    llama::Config {
        hidden_size: shape.hidden_size,
        intermediate_size: shape.intermediate_size,
        vocab_size: shape.vocab_size,
        num_hidden_layers: shape.layers,
        num_attention_heads: shape.heads,
        num_key_value_heads: shape.kv_heads,
        use_flash_attn: false,
        rms_norm_eps: config.rms_norm_eps,
        rope_theta: config.rope.theta as f32,
        bos_token_id: None,
        eos_token_id: None,
        rope_scaling: None,
        max_position_embeddings: shape.max_context,
        tie_word_embeddings: shape.tie_word_embeddings,
    }
}
