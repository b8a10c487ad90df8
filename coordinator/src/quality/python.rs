//! Python as a syntax tree.

use tree_sitter::{Language, Node, Parser, Tree};

/// The grammar.
pub fn language() -> Language {
    tree_sitter_python::LANGUAGE.into()
}

/// A parser for Python; making one is cheap, keeping one is cheaper.
pub fn parser() -> Parser {
    let mut parser = Parser::new();
    parser.set_language(&language()).expect("the grammar fits the library it is linked with");
    parser
}

/// Parses anything: a syntax tree with error nodes comes back even for garbage.
pub fn parse(parser: &mut Parser, code: &str) -> Tree {
    parser.parse(code, None).expect("no time limit and no cancellation are set")
}

/// The first place that is not Python.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    /// Row within the code, counted from 0.
    pub row: usize,
    /// Nothing but white space follows: the code was cut off rather than wrong.
    pub at_end: bool,
}

/// `None` when all of the code parses.
pub fn first_error(tree: &Tree, code: &str) -> Option<SyntaxError> {
    let root = tree.root_node();
    if !root.has_error() {
        return None;
    }
    let node = deepest_error(root);
    let rest = code.get(node.end_byte()..).unwrap_or_default();
    let at_end = rest.trim().is_empty();
    Some(SyntaxError { row: node.start_position().row, at_end })
}

/// Follows the first child that has an error down to the node that is the error. A loop, since a
/// tree can be deeper than the stack.
fn deepest_error(root: Node<'_>) -> Node<'_> {
    let mut node = root;
    loop {
        if node.is_error() || node.is_missing() {
            return node;
        }
        let mut cursor = node.walk();
        let next = node.children(&mut cursor).find(|c| c.has_error() || c.is_missing());
        match next {
            Some(child) => node = child,
            None => return node,
        }
    }
}

/// Whether the code ends right after `def f():` or `class A:`, which the grammar lets pass.
pub fn ends_in_a_header(tree: &Tree) -> bool {
    let mut node = tree.root_node();
    loop {
        let header = matches!(node.kind(), "function_definition" | "class_definition");
        let body = node.child_by_field_name("body");
        if header && body.is_none_or(|body| body.named_child_count() == 0) {
            return true;
        }
        match node.named_child_count() {
            0 => return false,
            _ => {
                let mut cursor = node.walk();
                let Some(last) = node.named_children(&mut cursor).last() else { return false };
                node = last;
            }
        }
    }
}

/// How many lines hold code: neither blank nor only a comment.
pub fn code_lines(code: &str) -> usize {
    code.lines().filter(|line| !matches!(line.trim().as_bytes().first(), None | Some(b'#'))).count()
}

/// Whether a text without fences is a program: it parses and its first statement is one that prose
/// cannot be.
pub fn looks_like_a_program(tree: &Tree) -> bool {
    let root = tree.root_node();
    if root.has_error() {
        return false;
    }
    let mut cursor = root.walk();
    root.children(&mut cursor).any(|child| {
        matches!(
            child.kind(),
            "import_statement"
                | "import_from_statement"
                | "function_definition"
                | "class_definition"
                | "decorated_definition"
                | "for_statement"
                | "while_statement"
                | "if_statement"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: &str) -> Option<SyntaxError> {
        first_error(&parse(&mut parser(), code), code)
    }

    #[test]
    fn a_cut_differs_from_a_mistake() {
        assert_eq!(error("def f(x):\n    return x\n"), None);
        assert!(error("def f(x):\n    return g(x, \n").expect("cut").at_end);
        let wrong = error("x = 1\ny = = 2\nz = 3\nw = 4\n").expect("wrong");
        assert_eq!((wrong.row, wrong.at_end), (1, false));
    }

    #[test]
    fn deep_nesting_does_not_overflow_the_stack() {
        let deep = "(".repeat(20_000);
        assert!(error(&deep).is_some());
    }

    #[test]
    fn prose_is_no_program() {
        let program = |text: &str| looks_like_a_program(&parse(&mut parser(), text));
        assert!(program("import os\nprint(os.name)\n"));
        assert!(!program("hello"));
        assert!(!program("This is a sentence about import statements.\n"));
        assert!(!program(""));
    }

    #[test]
    fn blank_and_comment_lines_are_no_code() {
        assert_eq!(code_lines("# a\n\nx = 1  # b\n  # c\n"), 1);
    }
}
