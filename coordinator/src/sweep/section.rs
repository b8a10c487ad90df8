//! Reads one TOML table key by key, and refuses what nobody asked for.
//!
//! Every error names the key with its path, the line, the value found and what was expected. The
//! keys that were asked for are the known ones, so the list a message suggests from cannot drift.

use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::SweepError;

/// The text a sweep was read from, to turn positions into lines.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// File name, as the user wrote it.
    pub origin: &'a str,
    pub text: &'a str,
}

impl Source<'_> {
    pub fn error(&self, span: Option<Range<usize>>, message: impl Into<String>) -> SweepError {
        let line = span.map(|span| {
            let before = self.text.get(..span.start).unwrap_or(self.text);
            before.bytes().filter(|b| *b == b'\n').count() + 1
        });
        SweepError { origin: self.origin.to_owned(), line, message: message.into() }
    }
}

/// One table of the file, being read.
#[derive(Debug)]
pub struct Section<'a> {
    source: Source<'a>,
    /// `generation`, `models[2].engine`; empty for the top of the file.
    path: String,
    span: Range<usize>,
    table: &'a DeTable<'a>,
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    pub fn top(source: Source<'a>, table: &'a Spanned<DeTable<'a>>) -> Self {
        Self { source, path: String::new(), span: 0..0, table: table.get_ref(), known: Vec::new() }
    }

    /// An error about this table as a whole.
    pub fn error(&self, message: impl Into<String>) -> SweepError {
        self.source.error(Some(self.span.clone()), message)
    }

    /// An error about a key of this table; `message` follows the key's path.
    pub fn error_at(&self, key: &str, message: impl AsRef<str>) -> SweepError {
        let span = self.table.get(key).map_or_else(|| self.span.clone(), Spanned::span);
        self.source.error(Some(span), format!("`{}` {}", self.key_path(key), message.as_ref()))
    }

    fn key_path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn get(&mut self, key: &'static str) -> Option<&'a DeValue<'a>> {
        self.known.push(key);
        self.table.get(key).map(Spanned::get_ref)
    }

    fn wrong_type(&self, key: &str, expected: &str, found: &DeValue<'_>) -> SweepError {
        let found = match found {
            DeValue::String(text) => format!("the string \"{}\"", shorten(text)),
            DeValue::Integer(number) => format!("the integer {number}"),
            DeValue::Float(number) => format!("the number {number}"),
            DeValue::Boolean(flag) => format!("{flag}"),
            DeValue::Datetime(date) => format!("the date {date}"),
            DeValue::Array(_) => "an array".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
        };
        self.error_at(key, format!("must be {expected}, found {found}"))
    }

    pub fn string(&mut self, key: &'static str) -> Result<Option<String>, SweepError> {
        match self.get(key) {
            None => Ok(None),
            Some(DeValue::String(text)) => Ok(Some(text.to_string())),
            Some(other) => Err(self.wrong_type(key, "a string", other)),
        }
    }

    pub fn required_string(&mut self, key: &'static str) -> Result<String, SweepError> {
        self.string(key)?.ok_or_else(|| self.error_at(key, "is missing: it has no default"))
    }

    pub fn boolean(&mut self, key: &'static str) -> Result<Option<bool>, SweepError> {
        match self.get(key) {
            None => Ok(None),
            Some(DeValue::Boolean(flag)) => Ok(Some(*flag)),
            Some(other) => Err(self.wrong_type(key, "true or false", other)),
        }
    }

    pub fn integer(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, SweepError> {
        let expected = || format!("an integer from {} to {}", range.start(), range.end());
        match self.get(key) {
            None => Ok(None),
            Some(DeValue::Integer(number)) => {
                match u64::from_str_radix(number.as_str(), number.radix()) {
                    Ok(value) if range.contains(&value) => Ok(Some(value)),
                    Ok(_) | Err(_) => {
                        Err(self.error_at(key, format!("must be {}, found {number}", expected())))
                    }
                }
            }
            Some(other) => Err(self.wrong_type(key, &expected(), other)),
        }
    }

    /// An integer that fits 32 bits.
    pub fn integer_u32(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u32>,
    ) -> Result<Option<u32>, SweepError> {
        let wide = u64::from(*range.start())..=u64::from(*range.end());
        let value = self.integer(key, wide)?;
        Ok(value.map(|v| u32::try_from(v).expect("the range ends within 32 bits")))
    }

    /// A finite number for which `allowed` holds; `expected` says so in words.
    pub fn number(
        &mut self,
        key: &'static str,
        expected: &str,
        allowed: impl Fn(f64) -> bool,
    ) -> Result<Option<f64>, SweepError> {
        let value: f64 = match self.get(key) {
            None => return Ok(None),
            Some(DeValue::Float(number)) => number.as_str().parse().unwrap_or(f64::NAN),
            Some(DeValue::Integer(number)) if number.radix() == 10 => {
                number.as_str().parse().unwrap_or(f64::NAN)
            }
            Some(other) => return Err(self.wrong_type(key, expected, other)),
        };
        if value.is_finite() && allowed(value) {
            Ok(Some(value))
        } else {
            Err(self.error_at(key, format!("must be {expected}, found {value}")))
        }
    }

    /// One of a few words; a wrong one is answered with the nearest right one.
    pub fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        choices: &[(&'static str, T)],
    ) -> Result<Option<T>, SweepError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => self.one_of(key, value, choices).map(Some),
        }
    }

    /// One word or a list of them, without repetition.
    pub fn choices<T: Copy>(
        &mut self,
        key: &'static str,
        choices: &[(&'static str, T)],
    ) -> Result<Option<Vec<T>>, SweepError> {
        let items = match self.get(key) {
            None => return Ok(None),
            Some(DeValue::Array(items)) => items,
            Some(value) => return Ok(Some(vec![self.one_of(key, value, choices)?])),
        };
        if items.is_empty() {
            return Err(self.error_at(key, "is an empty list: name at least one, or leave it out"));
        }
        let mut seen = Vec::new();
        let mut chosen = Vec::new();
        for item in items.iter() {
            chosen.push(self.one_of(key, item.get_ref(), choices)?);
            let word = item.get_ref().as_str().unwrap_or_default();
            if seen.contains(&word) {
                return Err(self.error_at(key, format!("names `{word}` twice")));
            }
            seen.push(word);
        }
        Ok(Some(chosen))
    }

    fn one_of<T: Copy>(
        &self,
        key: &str,
        value: &DeValue<'_>,
        choices: &[(&'static str, T)],
    ) -> Result<T, SweepError> {
        let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
        let expected = format!("one of {}", quoted(&words));
        // A boolean is accepted where the words are `on` and `off`.
        let word = match value {
            DeValue::String(word) => word.as_ref(),
            DeValue::Boolean(true) if words.contains(&"on") => "on",
            DeValue::Boolean(false) if words.contains(&"off") => "off",
            other => return Err(self.wrong_type(key, &expected, other)),
        };
        if let Some((_, choice)) = choices.iter().find(|(known, _)| *known == word) {
            return Ok(*choice);
        }
        let hint = nearest(word, &words).map(|near| format!("; did you mean \"{near}\"?"));
        Err(self.error_at(
            key,
            format!("must be {expected}, found \"{}\"{}", shorten(word), hint.unwrap_or_default()),
        ))
    }

    /// A positive integer, or the word `all` (as `None` inside).
    pub fn count_or_all(
        &mut self,
        key: &'static str,
        max: u32,
    ) -> Result<Option<Option<u32>>, SweepError> {
        match self.get(key) {
            Some(DeValue::String(word)) if word == "all" => Ok(Some(None)),
            Some(DeValue::Integer(_)) => Ok(self.integer_u32(key, 1..=max)?.map(Some)),
            None => Ok(None),
            Some(other) => {
                Err(self.wrong_type(key, &format!("\"all\" or an integer from 1 to {max}"), other))
            }
        }
    }

    /// A table inside this one.
    pub fn section(&mut self, key: &'static str) -> Result<Option<Section<'a>>, SweepError> {
        let path = self.key_path(key);
        match self.get(key) {
            None => Ok(None),
            Some(DeValue::Table(table)) => {
                let span = self.table.get(key).map_or(0..0, Spanned::span);
                Ok(Some(Section { source: self.source, path, span, table, known: Vec::new() }))
            }
            Some(other) => Err(self.wrong_type(key, "a table", other)),
        }
    }

    /// A list of tables: `[[key]]`.
    pub fn sections(&mut self, key: &'static str) -> Result<Vec<Section<'a>>, SweepError> {
        let items = match self.get(key) {
            None => return Ok(Vec::new()),
            Some(DeValue::Array(items)) => items,
            Some(other) => {
                return Err(self.wrong_type(key, &format!("a list of tables ([[{key}]])"), other));
            }
        };
        let mut sections = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let DeValue::Table(table) = item.get_ref() else {
                return Err(self.wrong_type(
                    key,
                    &format!("a list of tables ([[{key}]])"),
                    item.get_ref(),
                ));
            };
            sections.push(Section {
                source: self.source,
                path: format!("{}[{}]", self.key_path(key), index + 1),
                span: item.span(),
                table,
                known: Vec::new(),
            });
        }
        Ok(sections)
    }

    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Refuses every key that was not asked for.
    pub fn finish(self) -> Result<(), SweepError> {
        for key in self.table.keys() {
            let name: &str = key.get_ref();
            if self.known.contains(&name) {
                continue;
            }
            let place =
                if self.path.is_empty() { String::new() } else { format!(" in `{}`", self.path) };
            let help = match nearest(name, &self.known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known here: {}", backticked(&self.known)),
            };
            return Err(self.source.error(
                Some(key.span()),
                format!("unknown key `{}`{place}; {help}", shorten(name)),
            ));
        }
        Ok(())
    }
}

/// The known word most like `word`, if any is alike enough to be meant.
pub fn nearest<'w>(word: &str, known: &[&'w str]) -> Option<&'w str> {
    let lower = word.to_lowercase();
    known
        .iter()
        .map(|candidate| (strsim::jaro_winkler(&lower, candidate), *candidate))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

/// The start of a text that a message should not repeat whole.
pub fn shorten(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn quoted(words: &[&str]) -> String {
    words.iter().map(|w| format!("\"{w}\"")).collect::<Vec<_>>().join(", ")
}

fn backticked(words: &[&str]) -> String {
    words.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(", ")
}
