//! An output line by line, as the review page shows it: coloured, with its code and its thinking
//! marked, and numbered as the evidence counts.

use serde::Serialize;

use crate::quality::text;
use crate::report::render::html::output_html;

/// Beyond this an output is cut, and says so.
const MOST_BYTES: usize = 400_000;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Escaped, but for the colours.
    pub html: String,
    /// What it belongs to.
    pub kind: Kind,
}

/// What a line belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Prose,
    Code,
    Think,
}

/// The lines of an output.
pub fn of(output: &str) -> Vec<Line> {
    let answer = text::split(output).answer;
    let thinking = output[..output.len() - answer.len()].matches('\n').count();
    let mut kinds = vec![Kind::Prose; output.matches('\n').count() + 1];
    let cut_off = if answer.is_empty() { kinds.len() } else { thinking };
    kinds.iter_mut().take(cut_off).for_each(|kind| *kind = Kind::Think);
    for block in text::blocks(answer) {
        let start = thinking + block.line - 1;
        for kind in kinds.iter_mut().skip(start).take(block.code.lines().count()) {
            *kind = Kind::Code;
        }
    }
    let html = split(&output_html(output, MOST_BYTES, true));
    let kinds = kinds.into_iter().chain(std::iter::repeat(Kind::Prose));
    html.into_iter().zip(kinds).map(|(html, kind)| Line { html, kind }).collect()
}

/// Splits highlighted HTML at its line ends. A colour that spans lines, as a string in triple
/// quotes does, is closed at the end of each and opened again.
fn split(html: &str) -> Vec<String> {
    let mut open: Option<&str> = None;
    html.split('\n')
        .map(|line| {
            let mut text = open.unwrap_or_default().to_owned();
            text.push_str(line);
            for (at, _) in line.match_indices('<') {
                let end = line[at..].find('>').map_or(line.len(), |length| at + length + 1);
                let tag = &line[at..end];
                open = (!tag.starts_with("</")).then_some(tag);
            }
            if open.is_some() {
                text.push_str("</i>");
            }
            text
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_numbered_as_the_evidence_counts_and_colours_end_with_them() {
        let output = "<think>\nhm\n</think>\nHere:\n```python\nx = '''<b>\ny'''\n# z\n```\nend";
        let lines = of(output);
        assert_eq!(lines.len(), output.split('\n').count());
        let kinds: Vec<_> = lines.iter().map(|line| line.kind).collect();
        use Kind::{Code, Prose, Think};
        assert_eq!(
            kinds,
            [Think, Think, Prose, Prose, Prose, Code, Code, Code, Prose, Prose],
            "the tag that ends the thinking is the answer's first line"
        );
        assert_eq!(lines[5].html, "x = <i class=s>&#39;&#39;&#39;&lt;b&gt;</i>");
        assert_eq!(lines[6].html, "<i class=s>y&#39;&#39;&#39;</i>");
        assert_eq!(lines[7].html, "<i class=c># z</i>");
        assert!(
            lines.iter().all(|l| l.html.matches("<i").count() == l.html.matches("</i").count())
        );
    }

    #[test]
    fn an_output_without_an_answer_or_without_anything_has_lines() {
        assert!(of("<think>\na\nb").iter().all(|line| line.kind == Kind::Think));
        assert_eq!(of(""), [Line { html: String::new(), kind: Kind::Think }]);
        assert_eq!(of("```python\ndef f(").last().map(|line| line.kind), Some(Kind::Code));
    }
}
