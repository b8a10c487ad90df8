//! Filters whose result differs between minijinja and Jinja2, or that minijinja lacks.

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, Error};

use super::{json::Dumps, methods, python};

pub(super) fn register(environment: &mut Environment<'static>) {
    environment.add_filter("tojson", tojson);
    environment.add_filter("string", |value: &Value| python::text(value));
    environment.add_filter("title", |text: &str| methods::title(text));
    environment.add_filter("capitalize", |text: &str| methods::capitalize(text));
    environment.add_filter("center", |text: &str, width: Option<i64>| {
        methods::pad(text, "center", width.unwrap_or(80), ' ')
    });
    environment.add_filter("wordcount", |text: &str| {
        text.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|w| !w.is_empty()).count()
    });
    environment.add_test("iterable", |value: &Value| {
        !value.is_none() && (value.is_undefined() || value.try_iter().is_ok())
    });
    environment.add_test("sequence", |value: &Value| {
        matches!(value.kind(), ValueKind::String | ValueKind::Seq | ValueKind::Map)
    });
    environment
        .set_formatter(|out, _, value| out.write_str(&python::text(value)).map_err(Error::from));
}

/// `tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False)` of transformers:
/// Python's `json.dumps` without the HTML escapes of Jinja2's own filter.
fn tojson(value: &Value, ensure_ascii: Option<bool>, options: Kwargs) -> Result<Value, Error> {
    let named_ascii: Option<bool> = options.get("ensure_ascii")?;
    let indent: Option<Value> = options.get("indent")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    let sort_keys: Option<bool> = options.get("sort_keys")?;
    options.assert_all_used()?;
    let indent = indent.filter(|indent| !indent.is_none()).map(|indent| {
        let spaces = usize::try_from(indent.clone()).ok();
        spaces.map_or_else(|| indent.to_string(), |n| " ".repeat(n.min(64)))
    });
    let default_item = if indent.is_some() { "," } else { ", " };
    let mut separators = separators.unwrap_or_default().into_iter();
    let dumps = Dumps {
        ensure_ascii: named_ascii.or(ensure_ascii).unwrap_or(false),
        indent,
        item_separator: separators.next().unwrap_or_else(|| default_item.to_owned()),
        key_separator: separators.next().unwrap_or_else(|| ": ".to_owned()),
        sort_keys: sort_keys.unwrap_or(false),
    };
    dumps.dump(value).map(Value::from)
}
