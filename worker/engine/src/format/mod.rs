//! From a prompt to token ids, and from token ids back to text, as transformers does both.
//!
//! - [`template`]: a model's chat template, rendered
//! - [`tokenizer`]: text to ids and ids to text, all at once or as they come
//! - [`generation`]: sampling settings resolved, and the ids that end a text
//! - [`facts`]: thinking and answer, closed or not, code or none

pub mod facts;
mod filters;
pub mod generation;
mod json;
mod methods;
mod python;
mod rewrite;
pub mod template;
pub mod tokenizer;

use std::collections::BTreeMap;

use bakeoff_proto::digest::sha256_hex;
use bakeoff_proto::record::OutputFacts;
use bakeoff_model::{Format, GenerationSettings, Thinking};
use bakeoff_proto::{FailureKind, FinishReason};
use minijinja::Value;

use crate::source::ModelFiles;
use crate::{EngineError, Sampling};
use generation::GenerationConfig;
use template::{ChatTemplate, Message};
use tokenizer::{TextStream, TextTokenizer, TokenizerConfig};

/// What a prompt is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Prompt<'a> {
    pub text: &'a str,
    /// System message; only a chat template has a place for one.
    pub system: Option<&'a str>,
    /// Put on a line of its own before the text when the format is [`Format::Code`].
    pub code_hint: Option<&'a str>,
}

/// A model's input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    pub text: String,
    pub ids: Vec<u32>,
    /// The text ends inside `<think>`: the output starts as thinking.
    pub opens_thinking: bool,
}

/// Everything between text and tokens for one model.
pub struct Formatter {
    tokenizer: TextTokenizer,
    config: TokenizerConfig,
    generation: GenerationConfig,
    template: Option<ChatTemplate>,
    format: Format,
    thinking: Thinking,
    stop_ids: Vec<u32>,
    tokenizer_sha256: String,
    template_sha256: String,
}

impl Formatter {
    /// Reads tokenizer, template and generation settings from a model's files and settles `format` and
    /// `thinking`.
    ///
    /// # Errors
    /// A missing or corrupt tokenizer, a template that does not parse (or is missing where `instruct` was
    /// asked for), a malformed `generation_config.json`.
    pub fn new(
        files: &ModelFiles,
        format: Format,
        thinking: Thinking,
    ) -> Result<Self, EngineError> {
        let model = files.id.as_str();
        let config = match &files.tokenizer_config {
            Some(json) => TokenizerConfig::parse(model, json)?,
            None => TokenizerConfig::default(),
        };
        let source = files.chat_template.as_ref().or(config.chat_template.as_ref());
        let format = resolve_format(model, format, source.is_some())?;
        let template = match source {
            Some(source) if format == Format::Instruct => {
                Some(ChatTemplate::compile(model, source)?)
            }
            _ => None,
        };
        let template_sha256 = match (&template, source) {
            (Some(_), Some(source)) => sha256_hex(source.as_bytes()),
            _ => String::new(),
        };
        let tokenizer = TextTokenizer::load(model, files.tokenizer.as_deref(), &config)?;
        let generation = GenerationConfig::parse(model, files.generation_config.as_deref())?;
        let eos = config.special_token("eos_token").and_then(|token| tokenizer.token_id(token));
        let stop_ids = generation::stop_ids(&files.config, &generation, eos);
        let tokenizer_sha256 = sha256_hex(files.tokenizer.as_deref().unwrap_or_default());
        let mut formatter = Self {
            tokenizer,
            config,
            generation,
            template,
            format,
            thinking: Thinking::Auto,
            stop_ids,
            tokenizer_sha256,
            template_sha256,
        };
        formatter.thinking = formatter.resolve_thinking(thinking);
        Ok(formatter)
    }

    /// The model's input for a prompt.
    ///
    /// # Errors
    /// A template that throws or loops; a text that the tokenizer cannot represent.
    pub fn render(&self, prompt: &Prompt<'_>) -> Result<Rendered, EngineError> {
        let text = match (&self.template, self.format, prompt.code_hint) {
            (Some(template), ..) => self.chat(template, prompt, self.thinking)?,
            (None, Format::Code, Some(hint)) if hint.ends_with('\n') => {
                format!("{hint}{}", prompt.text)
            }
            (None, Format::Code, Some(hint)) => format!("{hint}\n{}", prompt.text),
            (None, ..) => prompt.text.to_owned(),
        };
        let ids = self.tokenizer.encode(&text, self.template.is_none())?;
        let opens_thinking = text.trim_end().ends_with("<think>");
        Ok(Rendered { text, ids, opens_thinking })
    }

    fn chat(
        &self,
        template: &ChatTemplate,
        prompt: &Prompt<'_>,
        thinking: Thinking,
    ) -> Result<String, EngineError> {
        let system = prompt.system.map(|content| Message { role: "system", content });
        let user = Message { role: "user", content: prompt.text };
        let messages: Value = system.iter().chain([&user]).map(Message::to_value).collect();
        let mut variables = BTreeMap::from([
            ("messages".to_owned(), messages),
            ("add_generation_prompt".to_owned(), Value::from(true)),
        ]);
        for (name, token) in &self.config.special_tokens {
            variables.insert(name.clone(), Value::from(token.as_str()));
        }
        if thinking != Thinking::Auto {
            variables.insert("enable_thinking".to_owned(), Value::from(thinking == Thinking::On));
        }
        template.render(&variables)
    }

    /// A template without a switch leaves thinking to the model: `auto`. With one, `auto` becomes what
    /// the template does by itself.
    fn resolve_thinking(&self, asked: Thinking) -> Thinking {
        let Some(template) = &self.template else { return Thinking::Auto };
        let probe = Prompt { text: "x", ..Prompt::default() };
        let text = |thinking| self.chat(template, &probe, thinking).ok();
        let (on, off) = (text(Thinking::On), text(Thinking::Off));
        match asked {
            _ if on == off => Thinking::Auto,
            Thinking::Auto if text(Thinking::Auto) == on => Thinking::On,
            Thinking::Auto if text(Thinking::Auto) == off => Thinking::Off,
            asked => asked,
        }
    }

    /// Text of generated ids, special tokens skipped.
    pub fn decode(&self, ids: &[u32]) -> String {
        self.tokenizer.decode(ids)
    }

    /// A decoder for ids that come one by one; its pieces together equal [`Self::decode`].
    pub fn stream(&self) -> TextStream<'_> {
        self.tokenizer.stream()
    }

    /// Facts of the output that followed `rendered`.
    pub fn output_facts(
        &self,
        rendered: &Rendered,
        ids: &[u32],
        finish_reason: FinishReason,
    ) -> OutputFacts {
        let plain = self.format != Format::Instruct;
        facts::output_facts(&self.tokenizer, ids, rendered.opens_thinking, plain, finish_reason)
    }

    /// Any of these ends a text.
    pub fn stop_ids(&self) -> &[u32] {
        &self.stop_ids
    }

    /// Sampling with nothing left open; see [`GenerationConfig::resolve`].
    ///
    /// # Errors
    /// [`FailureKind::InvalidRequest`] for a value outside its range.
    pub fn resolve_sampling(
        &self,
        settings: &GenerationSettings,
        seed: u64,
    ) -> Result<Sampling, EngineError> {
        self.generation.resolve(settings, seed)
    }

    /// Never [`Format::Auto`].
    pub fn format(&self) -> Format {
        self.format
    }

    /// [`Thinking::Auto`] where the model has no switch.
    pub fn thinking(&self) -> Thinking {
        self.thinking
    }

    pub fn tokenizer_sha256(&self) -> &str {
        &self.tokenizer_sha256
    }

    /// Empty when no template is used.
    pub fn template_sha256(&self) -> &str {
        &self.template_sha256
    }
}

/// Auto: a chat template makes it instruct; without one, an id that says code makes it code; else base.
fn resolve_format(model: &str, asked: Format, has_template: bool) -> Result<Format, EngineError> {
    match asked {
        Format::Auto if has_template => Ok(Format::Instruct),
        Format::Auto => {
            // Of a folder's path only the last part is the model's name.
            let name = if model.starts_with(['/', '.']) {
                model.trim_end_matches('/').rsplit('/').next().unwrap_or(model)
            } else {
                model
            };
            let code = name.to_lowercase().contains("code");
            Ok(if code { Format::Code } else { Format::Base })
        }
        Format::Instruct if !has_template => Err(EngineError::new(
            FailureKind::BadTemplate,
            format!(
                "{model} has no chat template, which format = \"instruct\" needs: set format = \"base\" \
                 to send the prompt as it is, or put a chat_template.jinja beside its weights"
            ),
        )),
        asked => Ok(asked),
    }
}
