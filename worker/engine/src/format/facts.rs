//! What an output is, without judging it: thinking or answer, closed or cut off, code or none.

use bakeoff_proto::FinishReason;
use bakeoff_proto::record::OutputFacts;

use super::tokenizer::TextTokenizer;

const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";

/// Facts of one output.
///
/// Thinking runs from `<think>` (or from the start, where the prompt already opened it) through
/// `</think>`, both included; every other token, the end-of-sequence token too, is answer.
/// `has_code` looks at the answer only: a fenced block with at least one line in it, or, where the
/// prompt asked for plain code (`plain`), a text that [`looks_like_code`].
pub fn output_facts(
    tokenizer: &TextTokenizer,
    ids: &[u32],
    opened_by_prompt: bool,
    plain: bool,
    finish_reason: FinishReason,
) -> OutputFacts {
    let mut thinking = opened_by_prompt;
    let mut seen = opened_by_prompt;
    let mut thinking_tokens = 0;
    let mut answer = String::new();
    // A tag may be one token or be spread over several; text not yet searched through stays here.
    let mut pending = String::new();
    let mut stream = tokenizer.stream();
    let mut pieces = ids.iter().map(|id| stream.push(*id)).collect::<Vec<_>>();
    let tail = stream.finish();
    if let Some(last) = pieces.last_mut() {
        last.push_str(&tail);
    }
    for piece in pieces {
        let was_thinking = thinking;
        pending.push_str(&piece);
        while let Some(at) = pending.find(if thinking { CLOSE } else { OPEN }) {
            let after = at + if thinking { CLOSE.len() } else { OPEN.len() };
            if !thinking {
                answer.push_str(&pending[..at]);
            }
            thinking = !thinking;
            seen = true;
            pending.drain(..after);
        }
        // All but what could be the beginning of a tag is settled.
        let tag = if thinking { CLOSE } else { OPEN };
        let keep = (1..tag.len()).rev().find(|n| pending.ends_with(&tag[..*n])).unwrap_or(0);
        let settled = pending.len() - keep;
        if !thinking {
            answer.push_str(&pending[..settled]);
        }
        pending.drain(..settled);
        thinking_tokens += u32::from(thinking || was_thinking);
    }
    if !thinking {
        answer.push_str(&pending);
    }
    let total = u32::try_from(ids.len()).unwrap_or(u32::MAX);
    OutputFacts {
        finish_reason,
        thinking_tokens,
        answer_tokens: total - thinking_tokens,
        think_closed: seen.then_some(!thinking),
        has_code: has_fenced_code(&answer) || (plain && looks_like_code(&answer)),
    }
}

/// True if a fence (three or more backticks or tildes, indented by three spaces at most) opens a
/// block that holds a line which is not blank. The block may be cut off.
pub fn has_fenced_code(text: &str) -> bool {
    let mut fence: Option<(char, usize)> = None;
    for line in text.lines() {
        let body = line.trim_start_matches(' ');
        let mark = body.chars().next().filter(|c| matches!(c, '`' | '~'));
        let run = mark.map_or(0, |mark| body.chars().take_while(|c| *c == mark).count());
        let is_fence = run >= 3 && line.len() - body.len() <= 3;
        match (fence, mark) {
            (Some(open), Some(mark)) if is_fence && mark == open.0 && run >= open.1 => fence = None,
            (Some(_), _) if !body.trim().is_empty() => return true,
            (None, Some(mark)) if is_fence => fence = Some((mark, run)),
            _ => {}
        }
    }
    false
}

/// True if a text without fences is code: at least one line is a statement of a common language,
/// and such lines, comments and indented lines make up half of all that are not blank.
pub fn looks_like_code(text: &str) -> bool {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let statements = lines.iter().filter(|line| is_statement(line.trim())).count();
    let attached = lines
        .iter()
        .filter(|line| {
            let body = line.trim();
            !is_statement(body)
                && (line.starts_with([' ', '\t'])
                    || body.starts_with(['#', '}', ')', '@'])
                    || body.starts_with("//"))
        })
        .count();
    statements > 0 && 2 * (statements + attached) >= lines.len()
}

fn is_statement(line: &str) -> bool {
    const OPENERS: [&str; 14] = [
        "def ",
        "async def ",
        "class ",
        "if ",
        "elif ",
        "else:",
        "for ",
        "while ",
        "with ",
        "try:",
        "except",
        "match ",
        "case ",
        "finally:",
    ];
    const STARTS: [&str; 17] = [
        "import ",
        "return ",
        "fn ",
        "pub ",
        "func ",
        "function ",
        "const ",
        "let ",
        "var ",
        "#include",
        "public ",
        "private ",
        "package ",
        "use ",
        "self.",
        "raise ",
        "assert ",
    ];
    let from_import = line.starts_with("from ") && line.contains(" import ");
    let opens = line.ends_with(':') && OPENERS.iter().any(|start| line.starts_with(start));
    let starts = STARTS.iter().any(|start| line.starts_with(start))
        && !line.ends_with(['.', '!', '?'])
        && (line.contains(|c: char| "(){}[]=;:<".contains(c))
            || line.split_whitespace().count() <= 4);
    let ends = line.ends_with([';', '{']);
    from_import || opens || starts || ends || is_assignment(line) || is_call(line)
}

/// `name = value`, `a.b[0] += 1`; not a comparison.
fn is_assignment(line: &str) -> bool {
    let Some((left, right)) = line.split_once('=') else { return false };
    let target = left.trim_end_matches(['+', '-', '*', '/', ':', '|', '&']).trim();
    !right.starts_with('=') && !right.trim().is_empty() && is_name(target)
}

/// `name(...)` as a whole line.
fn is_call(line: &str) -> bool {
    line.ends_with(')') && line.split_once('(').is_some_and(|(name, _)| is_name(name))
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_alphanumeric() || "_.[]'\",".contains(c) || c == ' ')
        && text.split(", ").all(|part| !part.contains(' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_needs_a_line_in_it() {
        assert!(has_fenced_code("Sure:\n```python\nprint(1)\n```\n"));
        assert!(has_fenced_code("~~~\nx\n"), "cut off counts");
        assert!(has_fenced_code("   ````\n```\n````"), "a shorter fence is content");
        assert!(!has_fenced_code("```python\n\n```\nno code"));
        assert!(!has_fenced_code("    ```\n    x"), "an indented block is no fence");
        assert!(!has_fenced_code("use `x` and ``y``"));
        assert!(!has_fenced_code(""));
    }

    #[test]
    fn code_without_fences_is_told_from_prose() {
        for code in [
            "def add(a, b):\n    return a + b\n",
            "import os\nx = 1\nprint(x)",
            "    return n * 2\n",
            "fn main() {\n    println!(\"x\");\n}\n",
            "# adds\nself.total += value",
        ] {
            assert!(looks_like_code(code), "{code}");
        }
        for prose in [
            "",
            "To create a server, follow these steps.\nFirst install it.",
            "Let us think. If the input is empty, return nothing.",
            "for example this one",
            "if you want that:\nread the manual\nand the tutorial\nand the source",
        ] {
            assert!(!looks_like_code(prose), "{prose}");
        }
    }
}
