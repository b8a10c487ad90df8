//! Spellings of a template that Jinja2 takes and minijinja does not, put into others that mean the
//! same.

/// The template's source as minijinja is given it.
pub(super) fn for_minijinja(source: &str) -> String {
    // Jinja2's lexer turns every kind of line end into \n before it looks at anything else.
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(source.len());
    let mut rest = source.as_str();
    while let Some(start) =
        rest.find("{%").into_iter().chain(rest.find("{{")).chain(rest.find("{#")).min()
    {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let Some(end) = end_of_tag(rest) else { break };
        let tag = &rest[..end];
        rest = &rest[end..];
        match tag_name(tag) {
            // What stands between is text, whatever it looks like.
            Some("raw") => {
                let end = rest.find("endraw").unwrap_or(rest.len());
                out.push_str(tag);
                out.push_str(&rest[..end]);
                rest = &rest[end..];
            }
            // transformers' own tag marks what the assistant said, for training; its body is
            // rendered as it is. An `if true` with the same whitespace marks does that.
            Some("generation") => out.push_str(&tag.replacen("generation", "if true", 1)),
            Some("endgeneration") => out.push_str(&tag.replacen("endgeneration", "endif", 1)),
            _ if tag.starts_with("{#") => out.push_str(tag),
            _ => out.push_str(&percent_formats(tag)),
        }
    }
    out + rest
}

/// Where the tag that `text` begins with ends; its strings may hold what would end it.
fn end_of_tag(text: &str) -> Option<usize> {
    let close = match text.as_bytes().get(1)? {
        b'%' => "%}",
        b'{' => "}}",
        _ => return text.find("#}").map(|at| at + 2),
    };
    let mut at = 2;
    // Braces of a dictionary literal may stand right before the end: `{{ {'a': {}}}}`.
    let mut braces = 0;
    while at < text.len() {
        let rest = &text[at..];
        if braces == 0 && rest.starts_with(close) {
            return Some(at + 2);
        }
        match rest.as_bytes()[0] {
            b'\'' | b'"' => at += string_len(rest)?,
            b'{' => {
                braces += 1;
                at += 1;
            }
            b'}' => {
                braces = usize::saturating_sub(braces, 1);
                at += 1;
            }
            _ => at += 1,
        }
        while !text.is_char_boundary(at) {
            at += 1;
        }
    }
    None
}

fn tag_name(tag: &str) -> Option<&str> {
    let inner = tag.strip_prefix("{%")?.strip_suffix("%}")?;
    Some(inner.trim_matches(|c: char| c.is_whitespace() || matches!(c, '-' | '+')))
}

/// Length of the string literal that `text` begins with, quotes included.
fn string_len(text: &str) -> Option<usize> {
    let quote = text.chars().next()?;
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// `'literal' % operand` becomes `('literal'|format(operand))`: minijinja's `%` takes numbers only.
fn percent_formats(tag: &str) -> String {
    let mut out = String::with_capacity(tag.len());
    let mut rest = tag;
    while let Some(start) = rest.find(['\'', '"']) {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let Some(len) = string_len(rest) else { break };
        let (literal, after) = rest.split_at(len);
        rest = after;
        let operand = after
            .trim_start()
            .strip_prefix('%')
            .filter(|operand| !operand.starts_with('}'))
            .map(str::trim_start);
        match operand.and_then(|operand| Some((operand, operand_len(operand)?))) {
            Some((operand, len)) => {
                let arguments = &operand[..len];
                let inner = arguments.strip_prefix('(').and_then(|inner| inner.strip_suffix(')'));
                out.push_str(&format!("({literal}|format({}))", inner.unwrap_or(arguments)));
                rest = &operand[len..];
            }
            None => out.push_str(literal),
        }
    }
    out + rest
}

/// Length of a primary with what is attached to it: `x`, `m.role`, `m['x']`, `f(1)|upper`, `('a',
/// 1)`.
fn operand_len(text: &str) -> Option<usize> {
    let mut at = match text.chars().next()? {
        '\'' | '"' => string_len(text)?,
        '(' => bracket_len(text)?,
        c if c.is_alphanumeric() || c == '_' => word_len(text),
        _ => return None,
    };
    loop {
        let rest = &text[at..];
        at += match rest.chars().next() {
            Some('(' | '[') => bracket_len(rest)?,
            Some('.' | '|') if word_len(&rest[1..]) > 0 => 1 + word_len(&rest[1..]),
            _ => return Some(at),
        };
    }
}

fn word_len(text: &str) -> usize {
    text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len())
}

fn bracket_len(text: &str) -> Option<usize> {
    let mut depth = 0;
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            '\'' | '"' => {
                at += string_len(&text[at..])?;
                continue;
            }
            _ => {}
        }
        at += c.len_utf8();
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::for_minijinja;

    #[test]
    fn only_what_minijinja_lacks_is_touched() {
        for same in [
            "{{ 7 % 3 }}{% if x %}a{% endif %}",
            "{{ 'a % b' }}{{ {'a': {}}}}",
            "{# '%s' % x #}",
            "{% raw %}{% generation %}{{ '%s' % x }}{% endraw %}",
            "{{ 'open",
            "{% if 'x' %}",
            "100 % {{ x }}",
        ] {
            assert_eq!(for_minijinja(same), same);
        }
    }

    #[test]
    fn percent_becomes_a_format_filter() {
        assert_eq!(for_minijinja("{{ '%s' % x }}"), "{{ ('%s'|format(x)) }}");
        assert_eq!(for_minijinja("{{ '%s-%s' % (a, b[0]) }}"), "{{ ('%s-%s'|format(a, b[0])) }}");
        assert_eq!(
            for_minijinja("{{ \"%s\" % m.role|upper + 'x' }}"),
            "{{ (\"%s\"|format(m.role|upper)) + 'x' }}"
        );
    }

    #[test]
    fn the_generation_tag_keeps_its_whitespace_marks() {
        let source = "{%- generation -%}x{% endgeneration %}";
        assert_eq!(for_minijinja(source), "{%- if true -%}x{% endif %}");
    }
}
