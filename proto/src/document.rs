//! The markdown file of one generation: a header for people, the prompt, then the output verbatim.

use jiff::Timestamp;

/// One line of the header's table.
pub type HeaderRow = (&'static str, String);

/// The markdown of one generation. The output is the last `output.len()` bytes, untouched, so that
/// it can be cut out again whatever it holds.
pub fn render(title: &str, header: &[HeaderRow], prompt: &str, output: &str) -> String {
    let mut text = format!("# {}\n\n| field | value |\n|---|---|\n", inline(title));
    for (field, value) in header {
        text.push_str(&format!("| {field} | {} |\n", cell(value)));
    }
    let fence = fence_for(prompt);
    text.push_str(&format!("\n## Prompt\n\n{fence}text\n{prompt}\n{fence}\n\n## Output\n\n"));
    text.push_str(output);
    text
}

/// The output part of a document, given its length in bytes; `None` if the document is shorter or
/// the cut would split a character.
pub fn output(document: &str, output_bytes: u64) -> Option<&str> {
    let length = usize::try_from(output_bytes).ok()?;
    document.get(document.len().checked_sub(length)?..)
}

/// `<stem>__YYYYMMDD_HHMMSS.md`, in UTC.
pub fn file_name(stem: &str, started_at: Timestamp) -> String {
    format!("{stem}__{}.md", started_at.strftime("%Y%m%d_%H%M%S"))
}

/// A fence longer than any run of backticks inside.
fn fence_for(text: &str) -> String {
    let mut longest = 0;
    let mut run = 0;
    for c in text.chars() {
        run = if c == '`' { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    "`".repeat(longest.max(2) + 1)
}

fn inline(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

fn cell(text: &str) -> String {
    inline(text).replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_comes_back_byte_for_byte() {
        for body in
            ["", "plain", "```python\nx = 1\n```\n", "## Output\n\n| a | b |\r\n", "é\u{1F600}\0"]
        {
            let text = render("m", &[("model", "a|b\nc".into())], "say `````hi", body);
            assert_eq!(output(&text, body.len() as u64), Some(body));
            assert!(text.contains("| model | a\\|b c |"));
            assert!(text.contains("``````text\nsay `````hi\n``````"));
        }
        assert_eq!(output("short", 6), None);
    }

    #[test]
    fn the_stamp_is_utc() {
        let at: Timestamp = "2026-11-24T04:05:06.789Z".parse().unwrap();
        assert_eq!(file_name("Qwen3-32B", at), "Qwen3-32B__20261124_040506.md");
    }
}
