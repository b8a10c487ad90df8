//! The words that sweep files, JSON documents, command lines and labels share. Each word stands
//! once, as a variant: serde, clap (feature `clap`) and `as_str` derive the same spelling from it.
//!
//! `VARIANTS` (of [`strum::VariantArray`]) lists the words of an enum, for messages and tables.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantArray};

/// Gives enums that derive [`strum::IntoStaticStr`] a method for it that reads well.
#[macro_export]
macro_rules! words {
    ($($word:ty),+ $(,)?) => {$(
        impl $word {
            /// The word in files, flags and labels.
            pub fn as_str(self) -> &'static str {
                self.into()
            }
        }
    )+};
}

/// Where sampling parameters that the sweep leaves open come from.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Default,
    Serialize,
    Deserialize,
    JsonSchema,
    IntoStaticStr,
    VariantArray,
)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum), value(rename_all = "snake_case"))]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum SamplingSource {
    /// Bakeoff's defaults: the same for every model.
    #[default]
    Sweep,
    /// The model's own `generation_config.json`.
    Model,
}

/// Which implementation of the forward pass generates.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Default,
    Serialize,
    Deserialize,
    JsonSchema,
    IntoStaticStr,
    VariantArray,
)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum), value(rename_all = "snake_case"))]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum EngineKind {
    /// Fused where it can run, reference elsewhere.
    #[default]
    Auto,
    /// Plain candle operations on any device and dtype.
    Reference,
    /// Our CUDA kernels in one graph, BF16.
    Fused,
    /// candle-transformers' own models: what a user would write without Bakeoff.
    Stock,
}

/// The number format of weights and activations.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Default,
    Serialize,
    Deserialize,
    JsonSchema,
    IntoStaticStr,
    VariantArray,
)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum), value(rename_all = "snake_case"))]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Dtype {
    /// bfloat16, 2 bytes.
    #[default]
    Bf16,
    /// IEEE single precision, 4 bytes.
    F32,
}

impl Dtype {
    /// Bytes of one number.
    pub fn bytes(self) -> u64 {
        match self {
            Self::Bf16 => 2,
            Self::F32 => 4,
        }
    }
}

/// Where weights come from.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Default,
    Serialize,
    Deserialize,
    JsonSchema,
    IntoStaticStr,
    VariantArray,
)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum), value(rename_all = "snake_case"))]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum LoadFormat {
    /// The checkpoint's safetensors files.
    #[default]
    Safetensors,
    /// Random weights of the model's shape: right for measuring speed, meaningless as text.
    Dummy,
}

/// How the prompt becomes the model's input.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Default,
    Serialize,
    Deserialize,
    JsonSchema,
    IntoStaticStr,
    VariantArray,
)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum), value(rename_all = "snake_case"))]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
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

/// Whether a model that can think before it answers does so.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Default,
    Serialize,
    Deserialize,
    JsonSchema,
    IntoStaticStr,
    VariantArray,
)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum), value(rename_all = "snake_case"))]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Thinking {
    /// The chat template decides.
    #[default]
    Auto,
    /// The model thinks first.
    On,
    /// The model answers at once.
    Off,
}

words!(SamplingSource, EngineKind, Dtype, LoadFormat, Format, Thinking);

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;

    use super::*;

    /// The word is the same wherever it is written, and reads back.
    fn agree<T>()
    where
        T: Copy + PartialEq + std::fmt::Debug + Serialize + DeserializeOwned,
        T: VariantArray + Into<&'static str>,
    {
        for word in T::VARIANTS {
            let text: &'static str = (*word).into();
            assert_eq!(serde_json::to_value(word).expect("a word"), text);
            assert_eq!(serde_json::from_value::<T>(text.into()).expect(text), *word);
        }
    }

    #[test]
    fn json_and_labels_use_the_same_words() {
        agree::<SamplingSource>();
        agree::<EngineKind>();
        agree::<Dtype>();
        agree::<LoadFormat>();
        agree::<Format>();
        agree::<Thinking>();
        assert_eq!((Dtype::Bf16.as_str(), Dtype::F32.as_str()), ("bf16", "f32"));
    }

    #[cfg(feature = "clap")]
    #[test]
    fn flags_use_the_same_words() {
        fn agree<T: clap::ValueEnum + VariantArray + Into<&'static str> + Copy>() {
            for word in T::VARIANTS {
                let value = word.to_possible_value().expect("every word is a flag's value");
                assert_eq!(value.get_name(), Into::<&'static str>::into(*word));
            }
        }
        agree::<SamplingSource>();
        agree::<EngineKind>();
        agree::<Dtype>();
        agree::<LoadFormat>();
        agree::<Format>();
        agree::<Thinking>();
    }
}
