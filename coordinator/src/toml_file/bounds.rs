//! Numbers with a range. The range stands once: it checks the value, words the message and bounds
//! the JSON Schema.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Bound::{self, Excluded, Included, Unbounded};
use std::ops::RangeBounds;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};
use serde::{Serialize, Serializer};

/// A type of number that a file may hold.
pub trait Number: Copy + PartialOrd + fmt::Display + Serialize + fmt::Debug + 'static {
    /// `a number`, `an integer`.
    const NOUN: &'static str;
    /// Type in a JSON Schema.
    const SCHEMA_TYPE: &'static str;

    /// `None`: it does not fit.
    fn from_integer(value: i128) -> Option<Self>;
    /// `None`: it is not finite, or not an integer where one is asked for.
    fn from_float(value: f64) -> Option<Self>;
}

impl Number for f64 {
    const NOUN: &'static str = "a number";
    const SCHEMA_TYPE: &'static str = "number";

    fn from_integer(value: i128) -> Option<Self> {
        Some(value as Self)
    }

    fn from_float(value: f64) -> Option<Self> {
        value.is_finite().then_some(value)
    }
}

macro_rules! integer {
    ($type:ty) => {
        impl Number for $type {
            const NOUN: &'static str = "an integer";
            const SCHEMA_TYPE: &'static str = "integer";

            fn from_integer(value: i128) -> Option<Self> {
                Self::try_from(value).ok()
            }

            fn from_float(_: f64) -> Option<Self> {
                None
            }
        }
    };
}
integer!(u8);
integer!(u32);
integer!(u64);

/// A range, as a type, so that a field's attribute can name it.
pub trait Bounds: 'static {
    /// What is bounded.
    type Number: Number;
    /// Least and largest value.
    const RANGE: (Bound<Self::Number>, Bound<Self::Number>);
    /// The range in words, where somebody has worded it already.
    const EXPECTED: Option<&'static str> = None;
    /// What a message adds to the range.
    const NOTE: &'static str = "";
}

/// `Name: type = (lower, upper), "note";` or `Name: type = (lower, upper), expected WORDS;` for
/// each range.
macro_rules! bounds {
    ($(
        $(#[$doc:meta])*
        $name:ident: $type:ty = $range:expr $(, $note:literal)? $(, expected $expected:path)?;
    )*) => {
        $(
            #[doc = concat!("The range of `", stringify!($name), "`.")]
            $(#[$doc])*
            #[derive(Debug)]
            pub enum $name {}

            impl $crate::toml_file::bounds::Bounds for $name {
                type Number = $type;
                const RANGE: (std::ops::Bound<$type>, std::ops::Bound<$type>) = $range;
                $(const EXPECTED: Option<&'static str> = Some($expected.expected);)?
                $(const NOTE: &'static str = $note;)?
            }
        )*
    };
}
pub(crate) use bounds;

fn describe<B: Bounds>() -> String {
    if let Some(expected) = B::EXPECTED {
        return expected.to_owned();
    }
    let range = match B::RANGE {
        (Included(low), Included(high)) => format!(" from {low} to {high}"),
        (Included(low), Excluded(high)) => format!(" from {low} to below {high}"),
        (Excluded(low), Included(high)) => format!(" above {low} and at most {high}"),
        (Excluded(low), Excluded(high)) => format!(" above {low} and below {high}"),
        (Included(low), Unbounded) => format!(" of at least {low}"),
        (Excluded(low), Unbounded) => format!(" above {low}"),
        (Unbounded, Included(high)) => format!(" of at most {high}"),
        (Unbounded, Excluded(high)) => format!(" below {high}"),
        (Unbounded, Unbounded) => String::new(),
    };
    format!("{}{range}{}", B::Number::NOUN, B::NOTE)
}

fn schema<B: Bounds>() -> Schema {
    let mut schema = json_schema!({ "type": B::Number::SCHEMA_TYPE });
    let mut set = |key: &str, value: B::Number| {
        let value = serde_json::to_value(value).expect("a number serialises");
        schema.insert(key.to_owned(), value);
    };
    match B::RANGE.0 {
        Included(low) => set("minimum", low),
        Excluded(low) => set("exclusiveMinimum", low),
        Unbounded => {}
    }
    match B::RANGE.1 {
        Included(high) => set("maximum", high),
        Excluded(high) => set("exclusiveMaximum", high),
        Unbounded => {}
    }
    schema
}

struct NumberVisitor<B>(PhantomData<B>);

impl<B: Bounds> NumberVisitor<B> {
    fn accept<E: Error>(
        &self,
        value: Option<B::Number>,
        found: Unexpected<'_>,
    ) -> Result<B::Number, E> {
        value.filter(|value| B::RANGE.contains(value)).ok_or_else(|| E::invalid_value(found, self))
    }
}

impl<B: Bounds> Visitor<'_> for NumberVisitor<B> {
    type Value = B::Number;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&describe::<B>())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<B::Number, E> {
        self.accept(B::Number::from_integer(value.into()), Unexpected::Unsigned(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<B::Number, E> {
        self.accept(B::Number::from_integer(value.into()), Unexpected::Signed(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<B::Number, E> {
        self.accept(B::Number::from_float(value), Unexpected::Float(value))
    }
}

/// `#[serde(with = "Within::<B>")]` for a number, `#[serde(with = "Maybe::<B>")]` for an optional
/// one.
#[derive(Debug)]
pub struct Within<B>(PhantomData<B>);

impl<B: Bounds> Within<B> {
    /// Reads a number and refuses one outside the range.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<B::Number, D::Error> {
        from.deserialize_any(NumberVisitor::<B>(PhantomData))
    }

    /// Writes the number as it is.
    pub fn serialize<S: Serializer>(value: &B::Number, to: S) -> Result<S::Ok, S::Error> {
        value.serialize(to)
    }
}

impl<B: Bounds> JsonSchema for Within<B> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        std::any::type_name::<B>().into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schema::<B>()
    }
}

/// See [`Within`].
#[derive(Debug)]
pub struct Maybe<B>(PhantomData<B>);

/// A number already checked.
struct Checked<B: Bounds>(B::Number);

impl<'de, B: Bounds> Deserialize<'de> for Checked<B> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Within::<B>::deserialize(from).map(Self)
    }
}

impl<B: Bounds> Maybe<B> {
    /// Reads a number, or nothing, and refuses one outside the range.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<B::Number>, D::Error> {
        Ok(Option::<Checked<B>>::deserialize(from)?.map(|checked| checked.0))
    }

    /// Writes the number as it is.
    pub fn serialize<S: Serializer>(value: &Option<B::Number>, to: S) -> Result<S::Ok, S::Error> {
        value.serialize(to)
    }
}

impl<B: Bounds> JsonSchema for Maybe<B> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        std::any::type_name::<B>().into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = Within::<B>::json_schema(generator);
        let types = serde_json::json!([B::Number::SCHEMA_TYPE, "null"]);
        schema.insert("type".to_owned(), types);
        schema
    }
}
