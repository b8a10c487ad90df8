//! An output's parts: what the model thought, what it answered, and the code blocks of the answer.

use serde::{Deserialize, Serialize};

const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";

/// An output cut at the end of its thinking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts<'a> {
    /// Empty when the model did not think aloud.
    pub thinking: &'a str,
    /// Empty when the thinking never ended.
    pub answer: &'a str,
    /// `None` when there is no thinking.
    pub think_closed: Option<bool>,
}

/// Cuts an output at the first `</think>`. A template may have opened the thinking in the prompt,
/// so the opening tag need not be there.
pub fn split(output: &str) -> Parts<'_> {
    let start = output.len() - output.trim_start().len();
    let opened = output[start..].starts_with(OPEN);
    match output.find(CLOSE) {
        Some(at) if opened || !output[..at].contains("```") => Parts {
            thinking: output[..at].trim_start().trim_start_matches(OPEN),
            answer: &output[at + CLOSE.len()..],
            think_closed: Some(true),
        },
        Some(_) | None if opened => {
            Parts { thinking: &output[start + OPEN.len()..], answer: "", think_closed: Some(false) }
        }
        Some(_) | None => Parts { thinking: "", answer: output, think_closed: None },
    }
}

/// A fenced code block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block<'a> {
    /// The first word of the info string, in lower case; empty without one.
    pub language: String,
    /// Its text, between the fences.
    pub code: &'a str,
    /// Line of the code's first line, counted from 1 in the text that was searched.
    pub line: usize,
    /// False when the text ended inside the block.
    pub closed: bool,
}

struct Fence {
    mark: u8,
    length: usize,
}

/// The fence a line opens or closes, and what follows it.
fn fence(line: &str) -> Option<(Fence, &str)> {
    let indent = line.len() - line.trim_start_matches(' ').len();
    let body = &line[indent..];
    let mark = *body.as_bytes().first()?;
    if indent > 3 || !matches!(mark, b'`' | b'~') {
        return None;
    }
    let length = body.bytes().take_while(|b| *b == mark).count();
    let info = body[length..].trim();
    (length >= 3 && !(mark == b'`' && info.contains('`'))).then_some((Fence { mark, length }, info))
}

/// The code blocks of a markdown text, by CommonMark's rules for fences, with one addition: inside
/// a block tagged `markdown`, a fence with a language opens a nested block, since models seldom
/// lengthen the outer fence.
pub fn blocks(text: &str) -> Vec<Block<'_>> {
    struct Open {
        fence: Fence,
        language: String,
        line: usize,
        start: usize,
        depth: usize,
    }
    let mut found = Vec::new();
    let mut open: Option<Open> = None;
    let mut offset = 0;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let here = offset;
        offset += line.len();
        let Some((fence, info)) = fence(line.trim_end_matches(['\n', '\r'])) else { continue };
        match &mut open {
            None => {
                let word = info.split_whitespace().next().unwrap_or_default();
                let language = word.trim_start_matches('{').trim_matches(['.', '}']).to_lowercase();
                open = Some(Open { fence, language, line: index + 2, start: offset, depth: 0 });
            }
            Some(block) if fence.mark == block.fence.mark && fence.length >= block.fence.length => {
                let nests = matches!(block.language.as_str(), "markdown" | "md");
                if !info.is_empty() {
                    block.depth += usize::from(nests);
                } else if block.depth > 0 {
                    block.depth -= 1;
                } else {
                    found.push(Block {
                        language: std::mem::take(&mut block.language),
                        code: &text[block.start..here],
                        line: block.line,
                        closed: true,
                    });
                    open = None;
                }
            }
            Some(_) => {}
        }
    }
    if let Some(block) = open {
        found.push(Block {
            language: block.language,
            code: &text[block.start..],
            line: block.line,
            closed: false,
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinking_is_apart_from_the_answer() {
        let parts = split("<think>\nhm ```python\nx\n``` </think>\nyes");
        assert_eq!((parts.thinking, parts.answer), ("\nhm ```python\nx\n``` ", "\nyes"));
        assert_eq!(parts.think_closed, Some(true));
        assert_eq!(split("opened in the prompt</think>A").answer, "A");
        let cut = split("<think> never ends");
        assert_eq!((cut.answer, cut.think_closed), ("", Some(false)));
        let plain = split("no tags");
        assert_eq!((plain.answer, plain.think_closed), ("no tags", None));
        let quoted = split("```python\nx = '</think>'\n```\n");
        assert_eq!(quoted.think_closed, None);
        assert_eq!(split("").answer, "");
    }

    #[test]
    fn fences_follow_commonmark() {
        let text = "a\n```python title=x\nx = 1\n```\n~~~\n```\n~~~\n````md\n```py\ny\n```\n````\n";
        let blocks = blocks(text);
        let seen: Vec<_> =
            blocks.iter().map(|b| (b.language.as_str(), b.code, b.line, b.closed)).collect();
        assert_eq!(
            seen,
            [
                ("python", "x = 1\n", 3, true),
                ("", "```\n", 6, true),
                ("md", "```py\ny\n```\n", 9, true)
            ]
        );
    }

    #[test]
    fn a_nested_fence_inside_markdown_does_not_end_it() {
        let text = "```markdown\n# Run\n```bash\nls\n```\ndone\n```\n```python\nz\n```\n";
        let blocks = blocks(text);
        assert_eq!(blocks.len(), 2);
        assert_eq!(blocks[0].code, "# Run\n```bash\nls\n```\ndone\n");
        assert_eq!((blocks[1].language.as_str(), blocks[1].code), ("python", "z\n"));
    }

    #[test]
    fn an_unclosed_fence_runs_to_the_end_and_says_so() {
        let blocks = blocks("```python\ndef f(");
        assert_eq!((blocks[0].code, blocks[0].closed), ("def f(", false));
        assert!(super::blocks("``` not a fence ` here\n").is_empty());
        assert!(super::blocks(&"x".repeat(200_000)).is_empty());
    }
}
