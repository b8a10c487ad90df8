//! Code as HTML with a little colour: comments, strings, numbers, keywords and names of functions.
//! Everything is escaped; the markup is `<i class=…>` to keep pages small.

use super::python;

/// Text as HTML, safe between tags and inside quoted attributes.
pub fn escape(text: &str) -> String {
    let mut html = String::with_capacity(text.len() + text.len() / 16);
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            // Control characters are not allowed in HTML, and could reorder what a reader sees.
            '\n' | '\t' => html.push(c),
            '\r' => {}
            c if c.is_control() || is_bidi_control(c) => html.push('\u{fffd}'),
            c => html.push(c),
        }
    }
    html
}

/// Marks that make code read differently from how it runs.
fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Python as coloured HTML.
pub fn python_html(code: &str) -> String {
    let tree = python::parse(&mut python::parser(), code);
    let mut html = String::with_capacity(code.len() * 2);
    let mut done = 0;
    let mut cursor = tree.walk();
    'walk: loop {
        let node = cursor.node();
        // A string is one colour, whatever is inside it.
        let class = class(&node);
        if class.is_some() || node.child_count() == 0 {
            let (start, end) = (node.start_byte(), node.end_byte());
            if let (Some(class), true, Some(text)) = (class, start >= done, code.get(start..end)) {
                html.push_str(&escape(code.get(done..start).unwrap_or_default()));
                html.push_str(&format!("<i class={class}>{}</i>", escape(text)));
                done = end;
            }
        } else if cursor.goto_first_child() {
            continue;
        }
        while !cursor.goto_next_sibling() {
            if !cursor.goto_parent() {
                break 'walk;
            }
        }
    }
    html.push_str(&escape(code.get(done..).unwrap_or_default()));
    html
}

fn class(node: &tree_sitter::Node<'_>) -> Option<char> {
    let kind = node.kind();
    match kind {
        "comment" => Some('c'),
        "string" => Some('s'),
        "integer" | "float" | "true" | "false" | "none" => Some('n'),
        "decorator" => None,
        "identifier" => {
            let parent = node.parent()?;
            let named = matches!(parent.kind(), "function_definition" | "class_definition")
                && parent.child_by_field_name("name") == Some(*node);
            named.then_some('f')
        }
        _ if !node.is_named() && kind.bytes().all(|b| b.is_ascii_lowercase()) => Some('k'),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_in_code_are_text() {
        let html = python_html("x = '</code><script>alert(1)</script>'  # <b>\n");
        assert!(!html.contains("<script") && !html.contains("<b>"));
        assert!(html.contains("<i class=s>&#39;&lt;/code&gt;"));
        assert!(html.contains("<i class=c># &lt;b&gt;</i>"));
    }

    #[test]
    fn nothing_is_lost() {
        let code =
            "async def f(x: int) -> str:\n    return f\"{x!r} & {1.5}\"\n\nif True: pass\n(((";
        let html = python_html(code);
        let tag = regex::Regex::new("</?i[^>]*>").unwrap();
        assert_eq!(tag.replace_all(&html, ""), escape(code));
        assert!(html.contains("<i class=k>async</i>") && html.contains("<i class=f>f</i>"));
    }

    #[test]
    fn characters_that_hide_code_are_shown_as_unknown() {
        assert_eq!(escape("a\u{202e}b\0\r\n"), "a\u{fffd}b\u{fffd}\n");
    }
}
