//! Text from outside, made harmless in markdown.

/// Text from outside on one line, with everything escaped that markdown or HTML would interpret.
pub fn text(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '\\' | '`' | '*' | '[' | ']' | '|' | '#' | '~' | '!' => {
                out.push('\\');
                out.push(c);
            }
            // Underscores inside words are no emphasis, and names are full of them.
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_text_is_neither_markup_nor_a_new_line() {
        assert_eq!(text("a|b\n# <img src=x> [x](y)"), "a\\|b \\# &lt;img src=x&gt; \\[x\\](y)");
        assert_eq!(text("Qwen/Qwen3-32B_x"), "Qwen/Qwen3-32B_x");
    }
}
