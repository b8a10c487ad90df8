//! The model's own tokenizer: text to ids as transformers does it, and ids to text as they come.

use bakeoff_proto::FailureKind;
use serde::Deserialize;
use tokenizers::{AddedToken, Tokenizer};

use crate::{EngineError, error::BoxError};

/// What `tokenizer_config.json` says beside the tokenizer itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenizerConfig {
    /// `bos_token`, `eos_token` and the like, by name, as chat templates read them.
    pub special_tokens: Vec<(String, String)>,
    /// The chat template called `default`, or the only one.
    pub chat_template: Option<String>,
    /// Tokens that the configuration adds to the tokenizer, by id.
    pub added_tokens: Vec<(u32, String, bool)>,
}

const NAMED_TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

impl TokenizerConfig {
    /// Reads `tokenizer_config.json` of `model`.
    ///
    /// # Errors
    /// [`FailureKind::BadTokenizer`] when it is no JSON object.
    pub fn parse(model: &str, json: &[u8]) -> Result<Self, EngineError> {
        let map: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(json)
            .map_err(|error| bad(model, "tokenizer_config.json", error))?;
        let special_tokens = NAMED_TOKENS
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), token_text(map.get(*name)?)?.to_owned())));
        let added_tokens = map.get("added_tokens_decoder").and_then(|value| value.as_object());
        let mut added_tokens: Vec<(u32, String, bool)> = added_tokens
            .into_iter()
            .flatten()
            .filter_map(|(id, token)| {
                let special = token.get("special").and_then(|flag| flag.as_bool()).unwrap_or(false);
                Some((id.parse().ok()?, token_text(token)?.to_owned(), special))
            })
            .collect();
        added_tokens.sort_unstable();
        Ok(Self {
            special_tokens: special_tokens.collect(),
            chat_template: map.get("chat_template").and_then(chosen_template),
            added_tokens,
        })
    }

    /// The text of a named token, `eos_token` for instance.
    pub fn special_token(&self, name: &str) -> Option<&str> {
        self.special_tokens.iter().find(|(key, _)| key == name).map(|(_, text)| text.as_str())
    }
}

/// A token is written as its text or as an object that holds it.
fn token_text(value: &serde_json::Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}

/// A template, or a list of named ones of which transformers takes `default`.
fn chosen_template(value: &serde_json::Value) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        name: String,
        template: String,
    }
    if let Some(template) = value.as_str() {
        return Some(template.to_owned());
    }
    let named: Vec<Named> = serde_json::from_value(value.clone()).ok()?;
    let only = named.len() == 1;
    named.into_iter().find(|entry| only || entry.name == "default").map(|entry| entry.template)
}

/// The tokenizer of one model.
#[derive(Clone)]
pub struct TextTokenizer {
    inner: Tokenizer,
    model: String,
}

impl TextTokenizer {
    /// Reads `tokenizer.json` of `model`, with the tokens that its configuration adds.
    ///
    /// # Errors
    /// [`FailureKind::BadTokenizer`] when there is none, or it cannot be read.
    pub fn load(
        model: &str,
        json: Option<&[u8]>,
        config: &TokenizerConfig,
    ) -> Result<Self, EngineError> {
        let json = json.ok_or_else(|| {
            EngineError::new(
                FailureKind::BadTokenizer,
                format!(
                    "{model} has no tokenizer.json: put one beside its weights (transformers' \
                     AutoTokenizer.from_pretrained(...).save_pretrained(...) writes it), or use a \
                     revision that has one"
                ),
            )
        })?;
        let mut inner =
            Tokenizer::from_bytes(json).map_err(|error| bad(model, "tokenizer.json", error))?;
        for (id, content, special) in &config.added_tokens {
            if inner.token_to_id(content).is_none() && inner.get_vocab_size(true) == *id as usize {
                let token = AddedToken::from(content.as_str(), *special);
                let _ = inner.add_tokens([token]);
            }
        }
        Ok(Self { inner, model: model.to_owned() })
    }

    /// Token ids of a text. `special` adds what the model expects around a plain prompt (a
    /// beginning-of-sequence token, say); a rendered template holds it already.
    ///
    /// # Errors
    /// [`FailureKind::BadTokenizer`] when the tokenizer cannot represent the text.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, EngineError> {
        match self.inner.encode_fast(text, special) {
            Ok(encoding) => Ok(encoding.get_ids().to_vec()),
            Err(error) => {
                let message = format!("the tokenizer of {} cannot encode the prompt", self.model);
                Err(EngineError::caused(FailureKind::BadTokenizer, message, error))
            }
        }
    }

    /// Text of token ids without the special ones. Ids that the tokenizer does not know (a model's
    /// vocabulary is often padded) leave nothing.
    pub fn decode(&self, ids: &[u32]) -> String {
        self.inner.decode(ids, true).unwrap_or_default()
    }

    /// The id of a token, if the vocabulary has it.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// A decoder for ids that come one by one.
    pub fn stream(&self) -> TextStream<'_> {
        TextStream { tokenizer: self, ids: Vec::new(), emitted: 0 }
    }
}

fn bad(model: &str, file: &str, error: impl Into<BoxError>) -> EngineError {
    let message =
        format!("cannot use {file} of {model}; download it again, or use another revision");
    EngineError::caused(FailureKind::BadTokenizer, message, error)
}

/// Text piece by piece; the pieces together are exactly what decoding all ids at once gives.
///
/// A character may be spread over several tokens, and a tokenizer may treat the first token of a
/// text otherwise than the rest. So each new id is decoded together with the ids of the last piece,
/// and held back while the text ends in the middle of a character.
pub struct TextStream<'a> {
    tokenizer: &'a TextTokenizer,
    /// The ids of the last piece and those held back.
    ids: Vec<u32>,
    /// How many of `ids` are in the last piece.
    emitted: usize,
}

impl TextStream<'_> {
    /// The text that this id completes; often empty.
    pub fn push(&mut self, id: u32) -> String {
        self.ids.push(id);
        let text = self.tokenizer.decode(&self.ids);
        if text.ends_with(char::REPLACEMENT_CHARACTER) {
            return String::new();
        }
        self.emit(&text)
    }

    /// What is still held back: a character that never became whole.
    pub fn finish(mut self) -> String {
        let text = self.tokenizer.decode(&self.ids);
        self.emit(&text)
    }

    fn emit(&mut self, text: &str) -> String {
        let before = self.tokenizer.decode(&self.ids[..self.emitted]);
        let piece = text.get(before.len()..).unwrap_or_default().to_owned();
        if !piece.is_empty() {
            self.ids.drain(..self.emitted);
            self.emitted = self.ids.len();
        }
        piece
    }
}
