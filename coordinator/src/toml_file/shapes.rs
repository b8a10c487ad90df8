//! Values that a file may spell in two ways.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, IntoDeserializer, SeqAccess, Visitor};

/// One word, or a list of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OneOrMany<T>(pub Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Items<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Items<T> {
            type Value = Vec<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a word or a list of words")
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<Vec<T>, E> {
                T::deserialize(word.into_deserializer()).map(|item| vec![item])
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element()? {
                    items.push(item);
                }
                Ok(items)
            }
        }
        from.deserialize_any(Items(PhantomData)).map(Self)
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("OneOrMany_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let item = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [item, { "type": "array", "items": item, "minItems": 1 }] })
    }
}

/// A count, or the word `all`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CountOrAll {
    All,
    Count(u32),
}

impl CountOrAll {
    /// More cells than a sweep can have.
    pub const MAX: u32 = 100_000;
}

impl<'de> Deserialize<'de> for CountOrAll {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Count;
        impl Visitor<'_> for Count {
            type Value = CountOrAll;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "\"all\" or an integer from 1 to {}", CountOrAll::MAX)
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<CountOrAll, E> {
                match word {
                    "all" => Ok(CountOrAll::All),
                    other => Err(E::invalid_value(serde::de::Unexpected::Str(other), &self)),
                }
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<CountOrAll, E> {
                match u32::try_from(value) {
                    Ok(count @ 1..=CountOrAll::MAX) => Ok(CountOrAll::Count(count)),
                    Ok(_) | Err(_) => {
                        Err(E::invalid_value(serde::de::Unexpected::Unsigned(value), &self))
                    }
                }
            }
        }
        from.deserialize_any(Count)
    }
}

impl JsonSchema for CountOrAll {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "CountOrAll".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "const": "all" },
            { "type": "integer", "minimum": 1, "maximum": CountOrAll::MAX },
        ] })
    }
}

/// A word of `T`, or `true` and `false` for its words `on` and `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WordOrFlag<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for WordOrFlag<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Word<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Word<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a word, true or false")
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<T, E> {
                T::deserialize(word.into_deserializer())
            }

            fn visit_bool<E: Error>(self, flag: bool) -> Result<T, E> {
                self.visit_str(if flag { "on" } else { "off" })
            }
        }
        from.deserialize_any(Word(PhantomData)).map(Self)
    }
}

impl<T: JsonSchema> JsonSchema for WordOrFlag<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("WordOrFlag_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let word = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [word, { "type": "boolean" }] })
    }
}
