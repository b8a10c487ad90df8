//! Typed access to the fields of a `config.json`, with errors that name the field.

use serde_json::{Map, Value};

use super::Architecture;

/// Why a `config.json` cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    #[error("config.json is not valid JSON: {0}; fetch the file again")]
    NotJson(String),
    #[error(
        "config.json has no field `{0}`: complete it from the model's page, or use another revision"
    )]
    Missing(&'static str),
    #[error("config.json says `{field}` = {found}, expected {expected}: correct the file")]
    Bad { field: String, found: String, expected: String },
    #[error("the architecture `{found}` is not supported; supported are {}", supported())]
    UnknownArchitecture { found: String },
    #[error(
        "the checkpoint is quantised (config.json has `quantization_config` with `quant_method` = \
         {method}): use the model's unquantised BF16 checkpoint"
    )]
    Quantised { method: String },
    #[error("config.json asks for {what}, which is not supported: {next}")]
    Unsupported { what: String, next: &'static str },
}

fn supported() -> String {
    Architecture::ALL.map(Architecture::class_name).join(", ")
}

/// The object at the top of a `config.json`, or one inside it.
#[derive(Debug, Clone)]
pub struct Fields {
    map: Map<String, Value>,
    /// What to put before a field's name in messages: `rope_scaling.`, say.
    prefix: String,
}

impl Fields {
    /// # Errors
    /// [`ShapeError::NotJson`], also when the top is not an object.
    pub fn parse(json: &[u8]) -> Result<Self, ShapeError> {
        let value: Value =
            serde_json::from_slice(json).map_err(|error| ShapeError::NotJson(error.to_string()))?;
        match value {
            Value::Object(map) => Ok(Self { map, prefix: String::new() }),
            other => {
                Err(ShapeError::NotJson(format!("the top is {}, not an object", kind(&other))))
            }
        }
    }

    /// The value of a field; `null` counts as absent.
    pub fn get(&self, field: &str) -> Option<&Value> {
        self.map.get(field).filter(|value| !value.is_null())
    }

    /// # Errors
    /// The field is there and is no object.
    pub fn object(&self, field: &str) -> Result<Option<Self>, ShapeError> {
        self.optional(field, "an object", |value| value.as_object().cloned())
            .map(|map| map.map(|map| Self { map, prefix: format!("{}{field}.", self.prefix) }))
    }

    /// # Errors
    /// The field is there and is no text.
    pub fn text(&self, field: &str) -> Result<Option<String>, ShapeError> {
        self.optional(field, "a text", |value| value.as_str().map(str::to_owned))
    }

    /// # Errors
    /// The field is there and is not true or false.
    pub fn flag(&self, field: &str) -> Result<Option<bool>, ShapeError> {
        self.optional(field, "true or false", Value::as_bool)
    }

    /// A finite number.
    ///
    /// # Errors
    /// The field is there and is no number.
    pub fn number(&self, field: &str) -> Result<Option<f64>, ShapeError> {
        self.optional(field, "a number", |value| value.as_f64().filter(|n| n.is_finite()))
    }

    /// A positive number.
    ///
    /// # Errors
    /// The field is there and is no number above 0.
    pub fn positive(&self, field: &str) -> Result<Option<f64>, ShapeError> {
        self.optional(field, "a number above 0", |value| {
            value.as_f64().filter(|n| n.is_finite() && *n > 0.0)
        })
    }

    /// A size: a whole number of at least 1.
    ///
    /// # Errors
    /// The field is there and is no such number, or one no model has.
    pub fn size(&self, field: &str) -> Result<Option<usize>, ShapeError> {
        self.optional(field, "a whole number from 1 to 2147483647", |value| {
            let number = value.as_u64().filter(|n| (1..1 << 31).contains(n))?;
            usize::try_from(number).ok()
        })
    }

    /// # Errors
    /// The field is missing, or no size.
    pub fn required_size(&self, field: &'static str) -> Result<usize, ShapeError> {
        self.size(field)?.ok_or(ShapeError::Missing(field))
    }

    /// # Errors
    /// The field is there and is no list of whole numbers.
    pub fn indices(&self, field: &str) -> Result<Vec<usize>, ShapeError> {
        let list = self.optional(field, "a list of layer numbers", |value| {
            let index = |item: &Value| usize::try_from(item.as_u64()?).ok();
            value.as_array()?.iter().map(index).collect::<Option<Vec<_>>>()
        })?;
        Ok(list.unwrap_or_default())
    }

    /// An error about the value of a field of this object.
    pub fn bad(&self, field: &str, expected: impl Into<String>) -> ShapeError {
        let found = self.map.get(field).map_or_else(|| "nothing".to_owned(), Value::to_string);
        ShapeError::Bad {
            field: format!("{}{field}", self.prefix),
            found,
            expected: expected.into(),
        }
    }

    fn optional<T>(
        &self,
        field: &str,
        expected: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, ShapeError> {
        match self.get(field) {
            None => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| self.bad(field, expected)),
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a flag",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
