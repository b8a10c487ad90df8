//! A model's sizes, read from its `config.json`, and the arithmetic that follows from them: how many
//! parameters, how many bytes, how many of them a decoded token reads, how many operations it costs.

mod fields;
mod parse;

use crate::Dtype;

pub use fields::{Fields, ShapeError};

/// The decoders we know, by the name in `architectures`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Architecture {
    Llama,
    Qwen2,
    Qwen3,
    Qwen3Moe,
}

impl Architecture {
    pub const ALL: [Self; 4] = [Self::Llama, Self::Qwen2, Self::Qwen3, Self::Qwen3Moe];

    /// The class name in `architectures`.
    pub fn class_name(self) -> &'static str {
        match self {
            Self::Llama => "LlamaForCausalLM",
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
            Self::Qwen3Moe => "Qwen3MoeForCausalLM",
        }
    }

    /// The name in `model_type`.
    pub fn model_type(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Qwen3Moe => "qwen3_moe",
        }
    }
}

/// The experts of a mixture-of-experts model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpertShape {
    pub experts: usize,
    pub experts_per_token: usize,
    pub intermediate_size: usize,
    /// Every so many layers are routed, unless listed in `dense_layers`.
    pub sparse_step: usize,
    /// Layers with a plain MLP although the step would route them.
    pub dense_layers: Vec<usize>,
}

/// What is needed to size a model. Everything else of its configuration is the engine's business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelShape {
    pub architecture: Architecture,
    pub vocab_size: usize,
    pub hidden_size: usize,
    /// Width of the plain MLP.
    pub intermediate_size: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Positions the model was made for, stretched by its `rope_scaling` if it has one.
    pub max_context: usize,
    pub tie_word_embeddings: bool,
    pub qkv_bias: bool,
    pub o_bias: bool,
    pub mlp_bias: bool,
    /// RMS norms over each head of queries and keys.
    pub qk_norm: bool,
    pub experts: Option<ExpertShape>,
    /// Bytes of a parameter as the checkpoint stores it (`torch_dtype`; 2 where it is silent).
    pub stored_bytes_per_parameter: u64,
}

impl ModelShape {
    /// Reads the sizes from the bytes of a `config.json`.
    ///
    /// # Errors
    /// Not JSON, a field missing or of the wrong kind (which is named), an architecture we do not know,
    /// a quantised checkpoint.
    pub fn from_config_json(json: &[u8]) -> Result<Self, ShapeError> {
        parse::shape(&Fields::parse(json)?)
    }

    /// The same from fields already parsed.
    ///
    /// # Errors
    /// As [`ModelShape::from_config_json`].
    pub fn from_fields(fields: &Fields) -> Result<Self, ShapeError> {
        parse::shape(fields)
    }

    /// Whether a layer is routed to experts; layers count from 0.
    pub fn is_routed(&self, layer: usize) -> bool {
        self.experts.as_ref().is_some_and(|experts| {
            (layer + 1).is_multiple_of(experts.sparse_step)
                && !experts.dense_layers.contains(&layer)
        })
    }

    pub fn routed_layers(&self) -> usize {
        (0..self.layers).filter(|&layer| self.is_routed(layer)).count()
    }

    pub fn q_size(&self) -> usize {
        self.heads * self.head_dim
    }

    pub fn kv_size(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    pub fn parameters(&self) -> u64 {
        let embeddings = if self.tie_word_embeddings { 1 } else { 2 };
        embeddings * self.embedding_parameters()
            + self.body_parameters()
            + self.routed_layers() as u64 * self.all_experts_parameters()
    }

    /// Bytes of all weights on the device.
    pub fn weight_bytes(&self, dtype: Dtype) -> u64 {
        self.parameters() * dtype.bytes()
    }

    /// Bytes of all weights as the checkpoint stores them: what a download moves.
    pub fn stored_bytes(&self) -> u64 {
        self.parameters() * self.stored_bytes_per_parameter
    }

    /// Bytes of keys and values of one token, over all layers.
    pub fn kv_bytes_per_token(&self, dtype: Dtype) -> u64 {
        2 * (self.layers * self.kv_size()) as u64 * dtype.bytes()
    }

    /// Weight bytes that decoding one token of one sequence reads: all but the embedding table (one
    /// row of it) and the experts that are not chosen.
    pub fn weight_bytes_per_token(&self, dtype: Dtype) -> u64 {
        let chosen = self.experts.as_ref().map_or(0, |e| e.experts_per_token);
        let experts = (self.routed_layers() * chosen) as u64 * self.expert_bytes(dtype);
        self.common_weight_bytes_per_token(dtype) + experts
    }

    /// The part of [`ModelShape::weight_bytes_per_token`] that no routing changes.
    pub fn common_weight_bytes_per_token(&self, dtype: Dtype) -> u64 {
        let row = self.hidden_size as u64;
        (self.body_parameters() + self.embedding_parameters() + row) * dtype.bytes()
    }

    /// Bytes of one expert of one layer.
    pub fn expert_bytes(&self, dtype: Dtype) -> u64 {
        self.expert_parameters() * dtype.bytes()
    }

    /// Floating-point operations of one token at position `position`: two for each weight it meets,
    /// and two for each element of the products of attention.
    pub fn flops_per_token(&self, position: usize) -> u64 {
        let row = self.hidden_size as u64;
        let weights = self.weight_bytes_per_token(Dtype::Bf16) / Dtype::Bf16.bytes() - row;
        let attention = 2 * (self.layers * self.q_size()) as u64 * (position as u64 + 1);
        2 * (weights + attention)
    }

    /// Floating-point operations of a prefill of `tokens` tokens, whose last one alone meets the
    /// output matrix.
    pub fn prefill_flops(&self, tokens: usize) -> u64 {
        let Some(last) = tokens.checked_sub(1) else { return 0 };
        // Attention grows linearly with the position, so the mean of both ends is exact.
        let both = u128::from(self.flops_per_token(0)) + u128::from(self.flops_per_token(last));
        let head = 2 * u128::from(self.embedding_parameters()) * last as u128;
        u64::try_from(both * tokens as u128 / 2 - head).unwrap_or(u64::MAX)
    }

    fn embedding_parameters(&self) -> u64 {
        (self.vocab_size * self.hidden_size) as u64
    }

    /// Everything but embeddings, output matrix and experts.
    fn body_parameters(&self) -> u64 {
        let routed = self.routed_layers();
        let router = self.experts.as_ref().map_or(0, |e| e.experts * self.hidden_size);
        let total = self.layers * self.attention_parameters()
            + (self.layers - routed) * self.mlp_parameters()
            + routed * router
            + self.hidden_size;
        total as u64
    }

    /// One layer's attention with both norms of the layer.
    fn attention_parameters(&self) -> usize {
        let (hidden, q, kv) = (self.hidden_size, self.q_size(), self.kv_size());
        let bias = |present, size| if present { size } else { 0 };
        hidden * (q + 2 * kv)
            + q * hidden
            + bias(self.qkv_bias, q + 2 * kv)
            + bias(self.o_bias, hidden)
            + bias(self.qk_norm, 2 * self.head_dim)
            + 2 * hidden
    }

    fn mlp_parameters(&self) -> usize {
        let bias = if self.mlp_bias { 2 * self.intermediate_size + self.hidden_size } else { 0 };
        3 * self.hidden_size * self.intermediate_size + bias
    }

    fn expert_parameters(&self) -> u64 {
        self.experts.as_ref().map_or(0, |e| 3 * (self.hidden_size * e.intermediate_size) as u64)
    }

    fn all_experts_parameters(&self) -> u64 {
        self.experts.as_ref().map_or(0, |e| e.experts as u64) * self.expert_parameters()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(name: &str) -> ModelShape {
        let path = format!("{}/../../deploy/models/{name}.json", env!("CARGO_MANIFEST_DIR"));
        ModelShape::from_config_json(&std::fs::read(&path).expect(&path)).expect(name)
    }

    fn gb(bytes: u64) -> f64 {
        bytes as f64 / 1e9
    }

    /// Parameter counts are those of the model cards; bytes are theirs times two.
    #[test]
    fn the_five_models_have_their_published_sizes() {
        for (name, parameters, weights_gb, read_gb) in [
            ("Qwen2.5-Coder-7B-Instruct", 7_615_616_512, 15.2, 14.14),
            ("Qwen2.5-Coder-32B-Instruct", 32_763_876_352, 65.5, 63.97),
            ("Qwen3-32B", 32_762_123_264, 65.5, 63.97),
            ("Qwen3-30B-A3B", 30_532_122_624, 61.1, 6.08),
            ("Qwen3-Coder-30B-A3B-Instruct", 30_532_122_624, 61.1, 6.08),
        ] {
            let shape = shape(name);
            assert_eq!(shape.parameters(), parameters, "{name}");
            assert!((gb(shape.weight_bytes(Dtype::Bf16)) - weights_gb).abs() < 0.05, "{name}");
            let read = gb(shape.weight_bytes_per_token(Dtype::Bf16));
            assert!((read - read_gb).abs() < 0.006, "{name}: {read}");
            assert_eq!(shape.stored_bytes(), shape.weight_bytes(Dtype::Bf16), "{name}");
        }
    }

    #[test]
    fn keys_and_values_of_a_token() {
        // 2 × layers × kv heads × head dim × 2 bytes.
        let bytes = |name| shape(name).kv_bytes_per_token(Dtype::Bf16);
        assert_eq!(bytes("Qwen2.5-Coder-7B-Instruct"), 2 * 28 * 4 * 128 * 2);
        assert_eq!(bytes("Qwen3-32B"), 2 * 64 * 8 * 128 * 2);
        assert_eq!(bytes("Qwen3-30B-A3B"), 2 * 48 * 4 * 128 * 2);
    }

    #[test]
    fn operations_are_two_for_each_weight_met() {
        let shape = shape("Qwen2.5-Coder-7B-Instruct");
        let without_attention = 2 * (7_615_616_512 - 152_064 * 3_584);
        let attention = |position: u64| 4 * 28 * 3_584 * (position + 1);
        assert_eq!(shape.flops_per_token(0), without_attention + attention(0));
        assert_eq!(shape.flops_per_token(99), without_attention + attention(99));
        assert_eq!(shape.prefill_flops(0), 0);
        assert_eq!(shape.prefill_flops(1), shape.flops_per_token(0));
        let head = 2 * 152_064 * 3_584;
        let sum: u64 = (0..100).map(|position| shape.flops_per_token(position)).sum();
        assert_eq!(shape.prefill_flops(100), sum - 99 * head);
    }

    #[test]
    fn routed_layers_follow_step_and_exceptions() {
        let mut shape = shape("Qwen3-30B-A3B");
        assert_eq!(shape.routed_layers(), 48);
        let experts = shape.experts.as_mut().expect("a mixture of experts");
        experts.sparse_step = 2;
        experts.dense_layers = vec![1, 2];
        assert!(!shape.is_routed(0) && !shape.is_routed(1) && shape.is_routed(3));
        assert_eq!(shape.routed_layers(), 23);
        let dense_layer = 3 * 2_048 * 6_144;
        let routed_layer = 2_048 * 128 + 128 * 3 * 2_048 * 768;
        assert_eq!(30_532_122_624 - shape.parameters(), 25 * (routed_layer - dense_layer));
    }
}
