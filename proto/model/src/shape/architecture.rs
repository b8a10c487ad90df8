//! The architectures we know, and how a configuration names them.

/// The decoders we know, by the name in `architectures`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Architecture {
    Llama,
    Qwen2,
    Qwen3,
    Qwen3Moe,
}

/// How a configuration may name an architecture.
#[derive(Debug, Clone, Copy)]
pub(super) struct Name {
    /// In `architectures`.
    pub class: &'static str,
    /// In `model_type`.
    pub model_type: &'static str,
    pub architecture: Architecture,
    /// Attention has a sliding window unless `sliding_window` is null.
    pub slides: bool,
}

impl Name {
    const fn new(class: &'static str, model_type: &'static str, is: Architecture) -> Self {
        Self { class, model_type, architecture: is, slides: false }
    }

    pub const ALL: [Self; 5] = [
        Self::new("LlamaForCausalLM", "llama", Architecture::Llama),
        Self::new("Qwen2ForCausalLM", "qwen2", Architecture::Qwen2),
        Self::new("Qwen3ForCausalLM", "qwen3", Architecture::Qwen3),
        Self::new("Qwen3MoeForCausalLM", "qwen3_moe", Architecture::Qwen3Moe),
        // Llama's layers, once it is checked that none has a window.
        Self { slides: true, ..Self::new("MistralForCausalLM", "mistral", Architecture::Llama) },
    ];
}

impl Architecture {
    /// The name in `model_type`; of several that of the architecture itself.
    pub fn model_type(self) -> &'static str {
        let name = Name::ALL.into_iter().find(|name| name.architecture == self);
        name.map_or("", |name| name.model_type)
    }
}
