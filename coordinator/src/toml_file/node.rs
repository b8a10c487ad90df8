//! A parsed TOML value as serde sees it. Unlike toml's own deserializer, errors stay data: which
//! key is unknown, which words are known, what was found. So a message can suggest the nearest
//! word.

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{Deserializer, Expected, IntoDeserializer, Unexpected, Visitor};
use serde::forward_to_deserialize_any;
use toml::de::{DeTable, DeValue};

use super::words::{backticked, nearest, quoted, shorten};

/// How a file differs from the shape that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    #[error("is an unknown key{}", suggest_key(.key, .known))]
    UnknownKey { key: String, known: &'static [&'static str] },
    #[error("must be {}, found \
    \"{}\"{}", one_of(.known), shorten(.word), suggest_word(.word, .known))]
    UnknownWord { word: String, known: &'static [&'static str] },
    #[error("is missing: it has no default")]
    Missing { key: String },
    #[error("must be {expected}, found {found}")]
    Unexpected { expected: String, found: String },
    /// A value refused by its own type, which says why.
    #[error("cannot be used: {0}")]
    Refused(String),
}

fn suggest_key(key: &str, known: &[&str]) -> String {
    match nearest(key, known) {
        Some(near) => format!(": did you mean `{near}`?"),
        None => format!("; known keys here: {}", backticked(known)),
    }
}

fn suggest_word(word: &str, known: &[&str]) -> String {
    nearest(word, known).map_or_else(String::new, |near| format!("; did you mean \"{near}\"?"))
}

fn one_of(known: &[&str]) -> String {
    format!("one of {}", quoted(known))
}

impl serde::de::Error for Mismatch {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self::Refused(message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::Unexpected { expected: expected.to_string(), found: describe(found) }
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_variant(word: &str, known: &'static [&'static str]) -> Self {
        Self::UnknownWord { word: word.to_owned(), known }
    }

    fn unknown_field(key: &str, known: &'static [&'static str]) -> Self {
        Self::UnknownKey { key: key.to_owned(), known }
    }

    fn missing_field(key: &'static str) -> Self {
        Self::Missing { key: key.to_owned() }
    }
}

fn describe(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(flag) => flag.to_string(),
        Unexpected::Unsigned(number) => number.to_string(),
        Unexpected::Signed(number) => number.to_string(),
        Unexpected::Float(number) => number.to_string(),
        Unexpected::Str(text) => format!("the string \"{}\"", shorten(text)),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a table".to_owned(),
        other => other.to_string(),
    }
}

/// A value of a parsed file.
#[derive(Debug, Clone, Copy)]
pub enum Node<'a> {
    Table(&'a DeTable<'a>),
    Value(&'a DeValue<'a>),
}

impl<'a> Node<'a> {
    fn of(value: &'a DeValue<'a>) -> Self {
        match value {
            DeValue::Table(table) => Self::Table(table),
            other => Self::Value(other),
        }
    }

    fn mismatch(self, expected: impl Into<String>) -> Mismatch {
        let found = match self {
            Self::Table(_) => "a table".to_owned(),
            Self::Value(value) => match value {
                DeValue::String(text) => format!("the string \"{}\"", shorten(text)),
                DeValue::Integer(number) => number.to_string(),
                DeValue::Float(number) => number.to_string(),
                DeValue::Boolean(flag) => flag.to_string(),
                DeValue::Datetime(date) => format!("the date {date}"),
                DeValue::Array(_) => "a list".to_owned(),
                DeValue::Table(_) => "a table".to_owned(),
            },
        };
        Mismatch::Unexpected { expected: expected.into(), found }
    }
}

impl<'de> IntoDeserializer<'de, Mismatch> for Node<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Node<'de> {
    type Error = Mismatch;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        let value = match self {
            Self::Table(table) => {
                let entries = table.iter().map(|(key, value)| {
                    let key: &str = key.get_ref();
                    (key, Node::of(value.get_ref()))
                });
                return visitor.visit_map(MapDeserializer::new(entries));
            }
            Self::Value(value) => value,
        };
        match value {
            DeValue::String(text) => visitor.visit_str(text),
            DeValue::Boolean(flag) => visitor.visit_bool(*flag),
            DeValue::Integer(number) => {
                let (digits, radix) = (number.as_str(), number.radix());
                if let Ok(value) = u64::from_str_radix(digits, radix) {
                    visitor.visit_u64(value)
                } else if let Ok(value) = i64::from_str_radix(digits, radix) {
                    visitor.visit_i64(value)
                } else {
                    Err(self.mismatch("an integer of 64 bits"))
                }
            }
            DeValue::Float(number) => {
                visitor.visit_f64(number.as_str().parse().unwrap_or(f64::NAN))
            }
            DeValue::Array(items) => {
                let items = items.iter().map(|item| Node::of(item.get_ref()));
                visitor.visit_seq(SeqDeserializer::new(items))
            }
            DeValue::Datetime(_) => {
                Err(self.mismatch("a string, a number, true or false, a list or a table"))
            }
            DeValue::Table(table) => Self::Table(table).deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self {
            Self::Value(DeValue::Boolean(flag)) => visitor.visit_bool(*flag),
            other => Err(other.mismatch("true or false")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self {
            Self::Value(DeValue::String(text)) => visitor.visit_str(text),
            other => Err(other.mismatch("a string")),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        self.deserialize_str(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self {
            Self::Value(DeValue::Array(_)) => self.deserialize_any(visitor),
            other => Err(other.mismatch("a list (of tables: a `[[…]]` for each)")),
        }
    }

    /// Refuses every key that the struct does not have, so that a domain type which reads leniently
    /// from stored JSON reads strictly from a file.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        let Self::Table(table) = self else { return Err(self.mismatch("a table")) };
        let unknown = table.keys().find(|key| !fields.contains(&key.get_ref().as_ref()));
        match unknown {
            Some(key) => {
                Err(Mismatch::UnknownKey { key: key.get_ref().to_string(), known: fields })
            }
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        match self {
            Self::Value(DeValue::String(word)) => {
                let word: &str = word;
                visitor.visit_enum(IntoDeserializer::<Mismatch>::into_deserializer(word))
            }
            other => Err(other.mismatch(one_of(variants))),
        }
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct tuple
        tuple_struct map identifier ignored_any
    }
}
