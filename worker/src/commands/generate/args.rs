//! The command line of `worker generate`, and the settings it makes.

use std::path::{Path, PathBuf};

use bakeoff_model::{
    Dtype, EngineKind, EngineSettings, GenerationSettings, LoadFormat, ModelSource, SamplingSource,
    Thinking,
};
use clap::Args;

use crate::commands::device::DeviceArgs;
use crate::error::CommandError;

const AFTER_HELP: &str = "\
Examples:
  worker generate --model builtin:tiny-qwen3 --prompt 'def is_palindrome(text):'
  worker generate --model Qwen/Qwen3-32B --prompt-file task.txt --thinking off --device cuda:0
  worker generate --model ./model --prompt-file f --greedy --dtype f32 --json

Exit code 2 for input that cannot work, 1 for any other failure.";

/// One generation without a queue: text to stdout, figures to stderr
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct GenerateArgs {
    /// Folder, hub id (owner/name) or builtin:NAME
    #[arg(long, value_name = "DIR_OR_ID")]
    model: String,
    /// Branch, tag or commit of a hub model
    #[arg(long, default_value = "main")]
    pub(super) revision: String,
    #[command(flatten)]
    pub(super) input: Input,
    /// System message of the chat template
    #[arg(long, value_name = "TEXT")]
    pub(super) system: Option<String>,
    /// Let a model that can think do so, or not [default: as its template has it]
    #[arg(long, value_enum)]
    pub(super) thinking: Option<Thinking>,
    /// Send the prompt as it is, without a chat template
    #[arg(long, conflicts_with = "system")]
    pub(super) raw_prompt: bool,
    /// Always take the most likely token
    #[arg(long)]
    greedy: bool,
    /// Tokens after which the text is cut off [default: 4096, or what the model's context leaves]
    #[arg(long, value_name = "N")]
    max_new_tokens: Option<u32>,
    /// The same seed gives the same text
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub(super) seed: u64,
    /// Temperature [default: 0.7]
    #[arg(long)]
    temperature: Option<f64>,
    /// Share of the probability that is sampled from [default: 0.9]
    #[arg(long)]
    top_p: Option<f64>,
    /// Number of tokens that are sampled from [default: all]
    #[arg(long)]
    top_k: Option<u32>,
    /// Smallest probability sampled, relative to the most likely token's [default: 0]
    #[arg(long)]
    min_p: Option<f64>,
    /// Above 1: tokens that were there already become less likely [default: 1]
    #[arg(long)]
    repetition_penalty: Option<f64>,
    /// Where open settings come from: these defaults, or the model's generation_config.json
    #[arg(long, value_enum, default_value = "sweep")]
    sampling: SamplingSource,
    /// Where weights come from
    #[arg(long, value_enum, default_value = "safetensors")]
    pub(super) load_format: LoadFormat,
    /// Implementation of the forward pass
    #[arg(long, value_enum, default_value = "auto")]
    engine: EngineKind,
    /// Number format of weights and activations
    #[arg(long, value_enum, default_value = "bf16")]
    dtype: Dtype,
    #[command(flatten)]
    pub(super) device: DeviceArgs,
    /// Print one JSON object when done: rendered_prompt, prompt_token_ids, token_ids, text,
    /// finish_reason, metrics
    #[arg(long)]
    pub(super) json: bool,
}

/// The prompt, given in one of two ways.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct Input {
    /// The prompt
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// File whose bytes are the prompt, nothing trimmed
    #[arg(long, value_name = "FILE")]
    prompt_file: Option<PathBuf>,
}

impl Input {
    pub(super) fn text(&self) -> Result<String, CommandError> {
        let Some(path) = &self.prompt_file else {
            return Ok(self.prompt.clone().unwrap_or_default());
        };
        let bytes = std::fs::read(path)
            .map_err(|source| CommandError::PromptFile { path: path.clone(), source })?;
        String::from_utf8(bytes).map_err(|error| CommandError::PromptEncoding {
            path: path.clone(),
            source: error.utf8_error(),
        })
    }
}

impl GenerateArgs {
    pub(super) fn generation_settings(&self) -> GenerationSettings {
        GenerationSettings {
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            greedy: self.greedy,
            sampling: self.sampling,
            ..GenerationSettings::default()
        }
    }

    pub(super) fn engine_settings(&self) -> EngineSettings {
        EngineSettings {
            engine: self.engine,
            dtype: self.dtype,
            load_format: self.load_format,
            ..EngineSettings::default()
        }
    }

    /// A folder that exists, or is written like a path, is a folder; the rest are hub ids.
    pub(super) fn model_source(&self) -> ModelSource {
        let model = &self.model;
        if let Some(name) = model.strip_prefix("builtin:") {
            return ModelSource::Builtin { name: name.to_owned() };
        }
        if Path::new(model).is_dir() || model.starts_with(['/', '.', '~']) {
            return ModelSource::Path { path: model.clone() };
        }
        ModelSource::Hub { id: model.clone(), revision: self.revision.clone() }
    }

    /// As many as asked for, or else as many as usual and the context allows.
    pub(super) fn new_tokens(&self, prompt_tokens: usize, context: usize) -> usize {
        let usual = GenerationSettings::DEFAULT_MAX_NEW_TOKENS as usize;
        let open = usual.min(context.saturating_sub(prompt_tokens)).max(1);
        self.max_new_tokens.map_or(open, |tokens| tokens as usize)
    }
}
