//! The program in an output: what is executed.

use crate::quality::text::{self, Block};
use crate::quality::{has_python_keyword, is_python, python};
use crate::sweep::Task;

/// The Python that an answer offers: its longest block, for the others are usually commands,
/// requests or examples of use; or the whole answer where it is a bare program.
pub fn solution(output: &str, language: &str) -> Option<String> {
    if !is_python(language) {
        return None;
    }
    let answer = text::split(output).answer;
    let blocks = text::blocks(answer);
    let longest = blocks
        .iter()
        .filter(|block| {
            is_python(&block.language)
                || block.language.is_empty() && has_python_keyword(block.code)
        })
        // The first of several that are equally long.
        .rev()
        .max_by_key(|block| python::code_lines(block.code))
        .filter(|block| python::code_lines(block.code) > 0);
    if let Some(block) = longest {
        return Some(block.code.to_owned());
    }
    let bare = blocks.is_empty()
        && python::looks_like_a_program(&python::parse(&mut python::parser(), answer));
    bare.then(|| answer.to_owned())
}

/// The program that an answer to a suite's task makes: a whole function or a continuation of the
/// prompt, fenced or not, with prose around it or after it.
pub fn task_program(output: &str, task: &Task) -> Option<String> {
    let answer = text::split(output).answer;
    let blocks: Vec<Block<'_>> = text::blocks(answer)
        .into_iter()
        .filter(|block| block.language.is_empty() || is_python(&block.language))
        .filter(|block| python::code_lines(block.code) > 0)
        .collect();
    if let Some(block) = blocks.iter().find(|block| defines(block.code, &task.entry_point)) {
        return Some(with_header(task, block.code));
    }
    if let Some(block) = blocks.iter().find(|block| block.code.starts_with([' ', '\t'])) {
        return Some(format!("{}{}", on_a_new_line(&task.prompt), block.code));
    }
    if let Some(block) = blocks.first() {
        // The check will say that it lacks the function.
        return Some(with_header(task, block.code));
    }
    if answer.trim().is_empty() {
        return None;
    }
    if defines(answer, &task.entry_point) {
        return Some(with_header(task, without_prose(answer)));
    }
    Some(format!("{}{}", on_a_new_line(&task.prompt), continuation(answer)))
}

/// Whether code defines a function of this name at its top level.
fn defines(code: &str, name: &str) -> bool {
    code.lines().any(|line| definition(line).is_some_and(|defined| defined == name))
}

/// The name that a line at the top level defines.
fn definition(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("async ").unwrap_or(line);
    let rest = rest.strip_prefix("def ")?.trim_start();
    rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()
}

/// Puts before the code what the prompt has before its function: imports and helpers that an answer
/// may rely on.
fn with_header(task: &Task, code: &str) -> String {
    let at = task
        .prompt
        .split_inclusive('\n')
        .scan(0, |at, line| {
            let here = *at;
            *at += line.len();
            Some((here, line))
        })
        .find(|(_, line)| definition(line).is_some_and(|name| name == task.entry_point))
        .map_or(0, |(at, _)| at);
    let header = &task.prompt[..at];
    // An import from the future must stay the first statement.
    if header.trim().is_empty() || code.contains("from __future__") {
        return code.to_owned();
    }
    format!("{}{code}", on_a_new_line(header))
}

fn on_a_new_line(text: &str) -> String {
    if text.is_empty() || text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") }
}

/// The longest run of lines that parses, from the first line that starts a statement at the top
/// level.
fn without_prose(answer: &str) -> &str {
    const STARTS: [&str; 6] = ["import ", "from ", "def ", "async def ", "class ", "@"];
    /// More lines of prose than any explanation has.
    const TRIES: usize = 400;
    let mut start = 0;
    for line in answer.split_inclusive('\n') {
        if STARTS.iter().any(|s| line.starts_with(s)) {
            break;
        }
        start += line.len();
    }
    let code = &answer[start..];
    let mut parser = python::parser();
    let mut end = code.len();
    for _ in 0..TRIES {
        let candidate = &code[..end];
        if !python::parse(&mut parser, candidate).root_node().has_error() {
            return candidate;
        }
        match candidate.trim_end_matches('\n').rfind('\n') {
            Some(at) => end = at + 1,
            None => break,
        }
    }
    code
}

/// The rest of a function's body: up to the first line that is outside of it.
fn continuation(answer: &str) -> String {
    let mut body = String::new();
    for line in answer.split_inclusive('\n') {
        let blank = line.trim().is_empty();
        let indented = line.starts_with([' ', '\t']);
        if body.trim().is_empty() && !blank && !indented {
            // A tokenizer may have eaten the first indent.
            body = format!("    {line}");
        } else if blank || indented {
            body.push_str(line);
        } else {
            break;
        }
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task() -> Task {
        Task {
            task_id: "t/1".into(),
            prompt: "from typing import List\n\n\ndef total(xs: List[int]) -> \
            int:\n    \"\"\"Sum.\"\"\"\n"
                .into(),
            test: "def check(f):\n    assert f([1, 2]) == 3\n".into(),
            entry_point: "total".into(),
        }
    }

    fn program(output: &str) -> String {
        task_program(output, &task()).expect("a program")
    }

    const WHOLE: &str = "def total(xs: List[int]) -> int:\n    return sum(xs)\n";

    #[test]
    fn a_chat_answer_gives_its_function_with_the_prompts_imports() {
        let chat = format!(
            "Sure! First the idea:\n```\nadd all\n```\nThen:\n\n```python\n{WHOLE}```\n\nUse \
            it:\n```python\nprint(total([1]))\n```\n"
        );
        let expected = format!("from typing import List\n\n\n{WHOLE}");
        assert_eq!(program(&chat), expected);
        assert_eq!(
            program(&format!("<think>\n```python\ndef total(): 1\n```\n</think>\n{chat}")),
            expected
        );
        let future = "from __future__ import annotations\n";
        assert_eq!(program(&format!("```py\n{future}{WHOLE}```")), format!("{future}{WHOLE}"));
    }

    #[test]
    fn prose_around_a_bare_function_is_left_out() {
        let bare =
            format!("Here is the function.\n\n{WHOLE}\nThis adds all of them up.\nIt is fast.\n");
        assert_eq!(program(&bare), format!("from typing import List\n\n\n{WHOLE}\n"));
    }

    #[test]
    fn a_continuation_ends_where_the_function_does() {
        let prompt = task().prompt;
        let more = "    n = 0\n    for x in xs:\n        n += x\n\n    return n\n";
        assert_eq!(
            program(&format!("{more}\n\ndef other():\n    pass\n")),
            format!("{prompt}{more}\n\n")
        );
        assert_eq!(program(&format!("{more}# Example\nprint(1)\n")), format!("{prompt}{more}"));
        // The first indent is lost, or the body is fenced.
        assert_eq!(program(more.trim_start()), format!("{prompt}{more}"));
        assert_eq!(program(&format!("```python\n{more}```")), format!("{prompt}{more}"));
        assert_eq!(program("return sum(xs)"), format!("{prompt}    return sum(xs)"));
    }

    #[test]
    fn an_answer_without_an_end_to_its_thinking_has_no_program() {
        assert_eq!(task_program("<think> hm", &task()), None);
        assert_eq!(task_program("  \n", &task()), None);
        assert_eq!(solution("<think>```python\nx = 1\n```", "python"), None);
    }

    #[test]
    fn the_longest_python_block_is_the_solution() {
        let output = "```bash\npip install x y z\nls\nls\nls\nls\n```\n```python\nimport \
        x\nx.run()\n```\n```python\n# example\nx\n```\n";
        assert_eq!(solution(output, "python").as_deref(), Some("import x\nx.run()\n"));
        assert_eq!(solution("```\nimport os\n```", "Python").as_deref(), Some("import os\n"));
        assert_eq!(
            solution("import os\n\nos.getcwd()\n", "python").as_deref(),
            Some("import os\n\nos.getcwd()\n")
        );
        assert_eq!(solution("I am sorry.", "python"), None);
        assert_eq!(solution("```rust\nfn main() {}\n```", "rust"), None);
        assert_eq!(solution("```python\n# nothing\n```", "python"), None);
    }
}
