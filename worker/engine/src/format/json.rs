//! Python's `json.dumps`, of which transformers' `tojson` filter is made.

use std::fmt::Write;

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind};

/// The arguments of `json.dumps` that templates use.
#[derive(Debug, Clone)]
pub struct Dumps {
    pub ensure_ascii: bool,
    /// What one level of nesting is indented by; `None` writes a single line.
    pub indent: Option<String>,
    pub item_separator: String,
    pub key_separator: String,
    pub sort_keys: bool,
}

impl Dumps {
    /// The JSON text of a value.
    ///
    /// # Errors
    /// For what Python's `json` refuses: undefined values, functions, keys that are no scalars.
    pub fn dump(&self, value: &Value) -> Result<String, Error> {
        let mut out = String::new();
        self.write(&mut out, value, 0)?;
        Ok(out)
    }

    fn write(&self, out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.push_str(&number(value, FloatStyle::Json)),
            ValueKind::String => self.string(out, value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.nested(out, '[', ']', items.len(), depth, |out, i| {
                    self.write(out, &items[i], depth + 1)
                })?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort_keys {
                    keys.sort();
                }
                self.nested(out, '{', '}', keys.len(), depth, |out, i| {
                    self.key(out, &keys[i])?;
                    out.push_str(&self.key_separator);
                    self.write(out, &value.get_item(&keys[i])?, depth + 1)
                })?;
            }
            other => {
                return Err(Error::new(
                    ErrorKind::InvalidOperation,
                    format!("a value of kind {other} is not JSON serializable"),
                ));
            }
        }
        Ok(())
    }

    fn nested(
        &self,
        out: &mut String,
        open: char,
        close: char,
        len: usize,
        depth: usize,
        mut item: impl FnMut(&mut String, usize) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if depth > 200 {
            return Err(Error::new(ErrorKind::InvalidOperation, "the value is nested too deep"));
        }
        out.push(open);
        for i in 0..len {
            if i > 0 {
                out.push_str(&self.item_separator);
            }
            self.line_break(out, depth + 1);
            item(out, i)?;
        }
        if len > 0 {
            self.line_break(out, depth);
        }
        out.push(close);
        Ok(())
    }

    fn line_break(&self, out: &mut String, depth: usize) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(indent.as_str(), depth));
        }
    }

    fn key(&self, out: &mut String, key: &Value) -> Result<(), Error> {
        match key.kind() {
            ValueKind::String => self.string(out, key.as_str().unwrap_or_default()),
            ValueKind::Number => write!(out, "\"{}\"", number(key, FloatStyle::Json)).unwrap_or(()),
            ValueKind::Bool => out.push_str(if key.is_true() { "\"true\"" } else { "\"false\"" }),
            ValueKind::None => out.push_str("\"null\""),
            other => {
                return Err(Error::new(
                    ErrorKind::InvalidOperation,
                    format!("keys must be str, int, float, bool or None, not {other}"),
                ));
            }
        }
        Ok(())
    }

    fn string(&self, out: &mut String, text: &str) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if (c as u32) < 0x20 || (self.ensure_ascii && !(' '..='~').contains(&c)) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        write!(out, "\\u{unit:04x}").unwrap_or(());
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

/// How infinities and NaN are spelt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FloatStyle {
    /// `Infinity`, `NaN`.
    Json,
    /// `inf`, `nan`.
    Python,
}

/// A number as Python writes it: the shortest digits that read back, an exponent below 1e-4 and
/// from 1e16.
pub fn number(value: &Value, style: FloatStyle) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    match f64::try_from(value.clone()) {
        Ok(float) => float_repr(float, style),
        Err(_) => value.to_string(),
    }
}

fn float_repr(float: f64, style: FloatStyle) -> String {
    let (nan, infinity) =
        if style == FloatStyle::Json { ("NaN", "Infinity") } else { ("nan", "inf") };
    if float.is_nan() {
        return nan.to_owned();
    }
    if float.is_infinite() {
        return if float > 0.0 { infinity.to_owned() } else { format!("-{infinity}") };
    }
    let magnitude = float.abs();
    if magnitude != 0.0 && !(1e-4..1e16).contains(&magnitude) {
        // Rust writes 1e-7 where Python writes 1e-07.
        let text = format!("{float:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = match exponent.strip_prefix('-') {
            Some(exponent) => ('-', exponent),
            None => ('+', exponent),
        };
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    format!("{float:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_read_as_python_writes_them() {
        for (float, text) in [
            (1.0, "1.0"),
            (0.1, "0.1"),
            (-0.0, "-0.0"),
            (1e-5, "1e-05"),
            (1e-4, "0.0001"),
            (1e16, "1e+16"),
            (123_456_789.125, "123456789.125"),
            (1e15, "1000000000000000.0"),
            (1.5e300, "1.5e+300"),
            (f64::INFINITY, "Infinity"),
        ] {
            assert_eq!(float_repr(float, FloatStyle::Json), text);
        }
        assert_eq!(float_repr(f64::NEG_INFINITY, FloatStyle::Python), "-inf");
    }
}
