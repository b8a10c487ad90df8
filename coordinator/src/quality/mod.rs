//! What an output is worth, as far as a machine can judge without running it: evidence with line
//! numbers, no judgement.
//!
//! - [`text`]: thinking apart from the answer, code blocks apart from prose
//! - [`python`]: the syntax tree
//! - [`rubric`]: what to look for, as data
//! - [`highlight`]: code as coloured HTML, from the same syntax tree

pub mod highlight;
pub mod python;
pub mod rubric;
pub mod text;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tree_sitter::{Parser, QueryCursor, StreamingIterator};

use bakeoff_proto::FinishReason;
pub use rubric::{Compiled, Rubric, RubricError};
use text::Block;

/// A line of evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    /// Counted from 1 in the output.
    pub line: usize,
    /// The line, trimmed and shortened.
    pub text: String,
}

/// What was found for one item of the rubric.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// The rubric item's id.
    pub item: String,
    /// The first few places, in order; empty when nothing proves the item.
    pub evidence: Vec<Evidence>,
}

/// The analysis of one output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Analysis {
    /// The answer has a code block.
    pub has_code: bool,
    /// `None` when there is no Python to parse.
    pub parses: Option<bool>,
    /// Where the first syntax error is.
    pub syntax_error: Option<Evidence>,
    /// Nothing is cut off: no reason stands in `incomplete_because`.
    pub complete: bool,
    /// Why it is not complete.
    pub incomplete_because: Vec<String>,
    /// `None`: there was no thinking.
    pub think_closed: Option<bool>,
    /// Lines of code in all blocks, without blank lines and comments.
    pub code_lines: usize,
    /// Lines of the answer outside of code blocks, without blank lines.
    pub prose_lines: usize,
    /// Share of the rubric's weight for which there is evidence, 0 to 1; `None` without a rubric.
    pub coverage: Option<f64>,
    /// Evidence by rubric item, in its order.
    pub findings: Vec<Finding>,
}

const EVIDENCE_PER_ITEM: usize = 5;
const EVIDENCE_CHARS: usize = 120;

/// Analyses outputs; holds what is costly to set up.
pub struct Analyser<'a> {
    rubric: Option<&'a Compiled>,
    parser: Parser,
    cursor: QueryCursor,
}

impl<'a> Analyser<'a> {
    /// An analyser for a prompt; without a rubric only shape and syntax are looked at.
    pub fn new(rubric: Option<&'a Compiled>) -> Self {
        Self { rubric, parser: python::parser(), cursor: QueryCursor::new() }
    }

    /// Analyses an output whose prompt asked for `language`. Any text is fine: empty, binary, cut.
    pub fn analyse(&mut self, output: &str, language: &str, finish: FinishReason) -> Analysis {
        let parts = text::split(output);
        let answer_at = output.len() - parts.answer.len();
        let first_line = output[..answer_at].bytes().filter(|b| *b == b'\n').count();
        let mut blocks = text::blocks(parts.answer);
        if blocks.is_empty() && self.is_bare_program(parts.answer, language) {
            let language = "python".to_owned();
            blocks.push(Block { language, code: parts.answer, line: 1, closed: true });
        }

        let mut analysis = Analysis {
            has_code: blocks.iter().any(|block| !block.code.trim().is_empty()),
            parses: None,
            syntax_error: None,
            complete: false,
            incomplete_because: Vec::new(),
            think_closed: parts.think_closed,
            code_lines: blocks.iter().map(|block| python::code_lines(block.code)).sum(),
            prose_lines: prose_lines(parts.answer, &blocks),
            coverage: None,
            findings: Vec::new(),
        };
        let mut found: Vec<Vec<Evidence>> =
            vec![Vec::new(); self.rubric.map_or(0, |rubric| rubric.rubric.items.len())];
        let mut cut_code = false;
        for block in &blocks {
            match kind(block, language) {
                Kind::Python => {
                    cut_code |= self.python_block(block, first_line, &mut analysis, &mut found);
                }
                kind => self.other_block(block, kind, first_line, &mut found),
            }
        }
        self.inline_code(parts.answer, &blocks, first_line, &mut found);

        let reasons = &mut analysis.incomplete_because;
        if finish == FinishReason::Length {
            reasons.push("stopped at the token limit".to_owned());
        }
        if parts.think_closed == Some(false) {
            reasons.push("the thinking never ends: there is no answer".to_owned());
        }
        if blocks.last().is_some_and(|block| !block.closed) {
            reasons.push("the last code block is not closed".to_owned());
        }
        if cut_code {
            reasons.push("the code is cut off".to_owned());
        }
        if output.trim().is_empty() {
            reasons.push("the output is empty".to_owned());
        }
        analysis.complete = reasons.is_empty();
        if let Some(compiled) = self.rubric {
            let items = &compiled.rubric.items;
            let total: f64 = items.iter().map(|item| item.weight).sum();
            // Not a sum: that of nothing is minus zero.
            let proven = items
                .iter()
                .zip(&found)
                .filter(|(_, evidence)| !evidence.is_empty())
                .fold(0.0, |proven, (item, _)| proven + item.weight);
            analysis.coverage = Some(proven / total);
            analysis.findings = items
                .iter()
                .zip(found)
                .map(|(item, evidence)| Finding { item: item.id.clone(), evidence })
                .collect();
        }
        analysis
    }

    /// A base model answers with code and no fence.
    fn is_bare_program(&mut self, answer: &str, language: &str) -> bool {
        is_python(language)
            && python::looks_like_a_program(&python::parse(&mut self.parser, answer))
    }

    /// Adds a Python block to the analysis; true when its code is cut off.
    fn python_block(
        &mut self,
        block: &Block<'_>,
        first_line: usize,
        analysis: &mut Analysis,
        found: &mut [Vec<Evidence>],
    ) -> bool {
        let tree = python::parse(&mut self.parser, block.code);
        let error = python::first_error(&tree, block.code);
        let cut = error.as_ref().is_some_and(|e| e.at_end) || python::ends_in_a_header(&tree);
        analysis.parses = Some(analysis.parses.unwrap_or(true) && error.is_none());
        let lines = Lines::new(block.code, first_line + block.line);
        if let (Some(error), None) = (&error, &analysis.syntax_error) {
            analysis.syntax_error = Some(lines.evidence(error.row));
        }
        let Some(compiled) = self.rubric else { return cut };
        let Some(capture) = compiled.evidence_capture else { return cut };
        let code = block.code.as_bytes();
        let mut matches = self.cursor.matches(&compiled.query, tree.root_node(), code);
        while let Some(found_here) = matches.next() {
            let item = &mut found[compiled.pattern_items[found_here.pattern_index]];
            if item.len() >= EVIDENCE_PER_ITEM {
                continue;
            }
            for node in found_here.nodes_for_capture_index(capture) {
                push(item, lines.evidence(node.start_position().row));
            }
        }
        cut
    }

    fn other_block(
        &self,
        block: &Block<'_>,
        kind: Kind,
        first_line: usize,
        found: &mut [Vec<Evidence>],
    ) {
        let Some(compiled) = self.rubric else { return };
        let lines = Lines::new(block.code, first_line + block.line);
        for (row, line) in block.code.lines().enumerate() {
            if matches!(kind, Kind::Shell | Kind::Untagged) {
                // A comment in a shell block is no instruction.
                let command = line.split(" #").next().unwrap_or(line);
                if !command.trim_start().starts_with('#') {
                    matching(&compiled.shell, command, || lines.evidence(row), found);
                }
            }
            if matches!(kind, Kind::Other | Kind::Untagged) {
                matching(&compiled.block, line, || lines.evidence(row), found);
            }
        }
    }

    /// Commands named in the prose, between backticks.
    fn inline_code(
        &self,
        answer: &str,
        blocks: &[Block<'_>],
        first_line: usize,
        found: &mut [Vec<Evidence>],
    ) {
        let Some(compiled) = self.rubric else { return };
        for (row, line) in prose(answer, blocks) {
            for code in line.split('`').skip(1).step_by(2) {
                let evidence =
                    || Evidence { line: first_line + row + 1, text: shorten(line.trim()) };
                matching(&compiled.shell, code, evidence, found);
            }
        }
    }
}

/// How a block is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Python,
    Shell,
    Untagged,
    Other,
}

pub(crate) fn is_python(language: &str) -> bool {
    matches!(language.to_ascii_lowercase().as_str(), "python" | "py" | "python3" | "py3")
}

fn kind(block: &Block<'_>, asked: &str) -> Kind {
    match block.language.as_str() {
        language if is_python(language) => Kind::Python,
        "bash" | "sh" | "shell" | "zsh" | "console" | "shell-session" | "powershell" => Kind::Shell,
        "" if is_python(asked) && has_python_keyword(block.code) => Kind::Python,
        "" | "text" | "txt" => Kind::Untagged,
        _ => Kind::Other,
    }
}

/// Whether an untagged block is Python: some line starts like a statement that no shell has.
pub(crate) fn has_python_keyword(code: &str) -> bool {
    code.lines().take(400).any(|line| {
        let line = line.trim_start();
        ["import ", "from ", "def ", "class ", "async def ", "@", "print("]
            .iter()
            .any(|start| line.starts_with(start))
    })
}

fn matching(
    patterns: &[Option<regex::Regex>],
    line: &str,
    evidence: impl Fn() -> Evidence,
    found: &mut [Vec<Evidence>],
) {
    for (pattern, item) in patterns.iter().zip(found) {
        if pattern.as_ref().is_some_and(|pattern| pattern.is_match(line)) {
            push(item, evidence());
        }
    }
}

fn push(item: &mut Vec<Evidence>, evidence: Evidence) {
    let known = item.iter().any(|e| e.line == evidence.line);
    if item.len() < EVIDENCE_PER_ITEM && !known {
        item.push(evidence);
    }
}

/// The lines of a block, found by row.
struct Lines<'a> {
    lines: Vec<&'a str>,
    /// Line of row 0 in the output, counted from 1.
    first: usize,
}

impl<'a> Lines<'a> {
    fn new(code: &'a str, first: usize) -> Self {
        Self { lines: code.split('\n').collect(), first }
    }

    fn evidence(&self, row: usize) -> Evidence {
        let text = self.lines.get(row).map(|line| shorten(line.trim())).unwrap_or_default();
        Evidence { line: self.first + row, text }
    }
}

fn shorten(line: &str) -> String {
    match line.char_indices().nth(EVIDENCE_CHARS) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line.to_owned(),
    }
}

/// The lines of the answer outside of its blocks and fences, with their rows.
fn prose<'a>(answer: &'a str, blocks: &[Block<'_>]) -> impl Iterator<Item = (usize, &'a str)> {
    // A block's code starts at row `line - 1`; its fences stand around it.
    let inside: Vec<_> = blocks
        .iter()
        .map(|block| {
            let start = (block.line - 1).saturating_sub(1);
            start..=(block.line - 1 + block.code.lines().count())
        })
        .collect();
    let mut next = 0;
    answer.lines().enumerate().filter(move |(row, _)| {
        while inside.get(next).is_some_and(|rows| rows.end() < row) {
            next += 1;
        }
        !inside.get(next).is_some_and(|rows| rows.contains(row))
    })
}

fn prose_lines(answer: &str, blocks: &[Block<'_>]) -> usize {
    prose(answer, blocks).filter(|(_, line)| !line.trim().is_empty()).count()
}

#[cfg(test)]
mod tests;
