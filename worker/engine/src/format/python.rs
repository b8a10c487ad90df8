//! How Python prints a value: `str` and `repr`.

use minijinja::value::{Tuple, Value, ValueKind};

use super::json::{FloatStyle, number};

/// `str(value)`; nothing for an undefined value.
pub(super) fn text(value: &Value) -> String {
    match value.kind() {
        ValueKind::Number => number(value, FloatStyle::Python),
        ValueKind::Seq | ValueKind::Map if is_container(value) => repr(value),
        _ => value.to_string(),
    }
}

/// Objects of the template engine (macros, loops, namespaces) print as they do.
fn is_container(value: &Value) -> bool {
    value.kind() == ValueKind::Seq || value.kind() == ValueKind::Map
}

/// `repr(value)`.
fn repr(value: &Value) -> String {
    match value.kind() {
        ValueKind::String => quote(value.as_str().unwrap_or_default()),
        ValueKind::Seq => {
            let items = parts(value, repr);
            match value.downcast_object_ref::<Tuple>() {
                Some(tuple) if tuple.len() == 1 => format!("({items},)"),
                Some(_) => format!("({items})"),
                None => format!("[{items}]"),
            }
        }
        ValueKind::Map => {
            let pair = |key: &Value| {
                let item = value.get_item(key).unwrap_or_default();
                format!("{}: {}", repr(key), repr(&item))
            };
            format!("{{{}}}", parts(value, pair))
        }
        _ => text(value),
    }
}

fn parts(value: &Value, one: impl Fn(&Value) -> String) -> String {
    let items = value.try_iter().map(|items| items.map(|item| one(&item)).collect::<Vec<_>>());
    items.unwrap_or_default().join(", ")
}

/// Single quotes unless the text holds one and no double quote; what does not print is escaped.
fn quote(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::from(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == quote => out.extend(['\\', c]),
            c if c.is_control() && (c as u32) < 0x100 => {
                out.push_str(&format!("\\x{:02x}", c as u32));
            }
            '\u{2028}'
            | '\u{2029}'
            | '\u{feff}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{e000}'..='\u{f8ff}' => {
                out.push_str(&format!("\\u{:04x}", c as u32));
            }
            '\u{a0}' | '\u{ad}' => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}
