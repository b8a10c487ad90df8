//! Python's string methods that minijinja-contrib lacks or does otherwise.

use minijinja::value::{Tuple, Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State};
use minijinja_contrib::pycompat;

pub(super) fn call(
    state: &mut State,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    if value.kind() == ValueKind::String
        && let Some(text) = value.as_str()
        && let Some(result) = string(text, method, args)?
    {
        return Ok(result);
    }
    pycompat::unknown_method_callback(state, value, method, args)
}

/// `None` leaves the method to minijinja-contrib.
fn string(text: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let value = match method {
        "swapcase" => {
            let () = from_args(args)?;
            Value::from(text.chars().map(swap_case).collect::<String>())
        }
        "casefold" => {
            let () = from_args(args)?;
            Value::from(text.to_lowercase().replace('ß', "ss"))
        }
        "title" => {
            let () = from_args(args)?;
            Value::from(title(text))
        }
        "capitalize" => {
            let () = from_args(args)?;
            Value::from(capitalize(text))
        }
        "istitle" => {
            let () = from_args(args)?;
            Value::from(title(text) == text && text.chars().any(char::is_alphabetic))
        }
        "isdigit" => {
            let () = from_args(args)?;
            Value::from(!text.is_empty() && text.chars().all(is_digit))
        }
        "isdecimal" => {
            let () = from_args(args)?;
            Value::from(
                !text.is_empty()
                    && text.chars().all(|c| c.is_numeric() && is_digit(c) && !is_superscript(c)),
            )
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            if separator.is_empty() {
                return Err(Error::new(ErrorKind::InvalidOperation, "empty separator"));
            }
            let halves = if method == "partition" {
                text.split_once(separator)
            } else {
                text.rsplit_once(separator)
            };
            let parts = match halves {
                Some((before, after)) => [before, separator, after],
                None if method == "partition" => [text, "", ""],
                None => ["", "", text],
            };
            Value::from(Tuple::from(parts.map(Value::from)))
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Value::from(text.strip_prefix(prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Value::from(text.strip_suffix(suffix).unwrap_or(text))
        }
        "rsplit" => {
            let (separator, limit): (Option<&str>, Option<i64>) = from_args(args)?;
            Value::from_iter(right_split(text, separator, limit)?)
        }
        "ljust" | "rjust" | "center" => {
            let (width, fill): (i64, Option<char>) = from_args(args)?;
            pad(text, method, width, fill.unwrap_or(' '))?
        }
        "zfill" => {
            let (width,): (i64,) = from_args(args)?;
            let (sign, digits) = match text.strip_prefix(['+', '-']) {
                Some(digits) => text.split_at(text.len() - digits.len()),
                None => ("", text),
            };
            let padded = pad(digits, "rjust", width - sign.len() as i64, '0')?;
            Value::from(format!("{sign}{padded}"))
        }
        "index" | "rindex" => {
            let (what,): (&str,) = from_args(args)?;
            let at = if method == "index" { text.find(what) } else { text.rfind(what) };
            let at =
                at.ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "substring not found"))?;
            Value::from(text[..at].chars().count())
        }
        "expandtabs" => {
            let (width,): (Option<usize>,) = from_args(args)?;
            Value::from(expand_tabs(text, width.unwrap_or(8).min(64)))
        }
        _ => return Ok(None),
    };
    Ok(Some(value))
}

fn swap_case(c: char) -> String {
    if c.is_uppercase() { c.to_lowercase().collect() } else { c.to_uppercase().collect() }
}

/// Every run of letters starts upper-case and goes on lower-case.
pub(super) fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for c in text.chars() {
        let cased = c.is_lowercase() || c.is_uppercase();
        if cased && !inside {
            title_case(&mut out, c);
        } else {
            out.extend(c.to_lowercase());
        }
        inside = cased;
    }
    out
}

/// The first character in title case, the rest in lower case.
pub(super) fn capitalize(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    if let Some(first) = chars.next() {
        title_case(&mut out, first);
    }
    out + &chars.as_str().to_lowercase()
}

/// Of an upper-case form of several letters only the first stays large: ß becomes Ss.
fn title_case(out: &mut String, c: char) {
    for (i, upper) in c.to_uppercase().enumerate() {
        if i == 0 {
            out.push(upper);
        } else {
            out.extend(upper.to_lowercase());
        }
    }
}

/// Python's digits: decimal ones of any script, and superscripts; not fractions or roman numerals.
fn is_digit(c: char) -> bool {
    let fraction = matches!(c, '½' | '¼' | '¾' | '\u{2150}'..='\u{218F}');
    let ideograph = matches!(c, '\u{3007}' | '\u{4e00}'..='\u{9fff}');
    c.is_numeric() && !fraction && !ideograph
}

fn is_superscript(c: char) -> bool {
    matches!(c, '²' | '³' | '¹' | '\u{2070}'..='\u{2089}')
}

fn right_split(
    text: &str,
    separator: Option<&str>,
    limit: Option<i64>,
) -> Result<Vec<String>, Error> {
    let pieces = usize::try_from(limit.unwrap_or(-1)).map_or(usize::MAX, |n| n.saturating_add(1));
    let mut parts: Vec<String> = match separator {
        Some("") => return Err(Error::new(ErrorKind::InvalidOperation, "empty separator")),
        Some(separator) => text.rsplitn(pieces, separator).map(str::to_owned).collect(),
        None => {
            let mut rest = text.trim_end();
            let mut parts = Vec::new();
            while !rest.is_empty() {
                let cut = rest.rfind(char::is_whitespace);
                match cut.filter(|_| parts.len() + 1 < pieces) {
                    Some(at) => {
                        let word = rest[at..].trim_start();
                        parts.push(word.to_owned());
                        rest = rest[..rest.len() - word.len()].trim_end();
                    }
                    None => {
                        parts.push(rest.to_owned());
                        break;
                    }
                }
            }
            parts
        }
    };
    parts.reverse();
    Ok(parts)
}

pub(super) fn pad(text: &str, method: &str, width: i64, fill: char) -> Result<Value, Error> {
    let missing = usize::try_from(width).unwrap_or(0).saturating_sub(text.chars().count());
    if missing > 1 << 16 {
        return Err(Error::new(ErrorKind::InvalidOperation, "the width asked for is too large"));
    }
    let left = match method {
        "ljust" => 0,
        "rjust" => missing,
        // CPython puts the odd character left when the width is odd.
        _ => missing / 2 + (missing & usize::try_from(width).unwrap_or(0) & 1),
    };
    let fill = |n: usize| std::iter::repeat_n(fill, n).collect::<String>();
    Ok(Value::from(format!("{}{text}{}", fill(left), fill(missing - left))))
}

fn expand_tabs(text: &str, width: usize) -> String {
    let mut out = String::new();
    let mut column = 0;
    for c in text.chars() {
        match c {
            '\t' => {
                let spaces = if width == 0 { 0 } else { width - column % width };
                out.extend(std::iter::repeat_n(' ', spaces));
                column += spaces;
            }
            '\n' | '\r' => {
                out.push(c);
                column = 0;
            }
            c => {
                out.push(c);
                column += 1;
            }
        }
    }
    out
}
