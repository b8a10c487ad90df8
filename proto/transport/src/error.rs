//! Errors of other crates behind ours: how they are kept, and how they are shown.

use std::error::Error;

/// An error of another crate, kept as the source of one of ours.
pub type BoxError = Box<dyn Error + Send + Sync + 'static>;

/// An error and its causes in one line, outermost first.
///
/// Some libraries put the text of a cause into their own message, others do not; a cause whose text
/// is there already is not repeated.
pub fn describe(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: Option<Box<Layer>>,
    }

    #[test]
    fn each_cause_is_shown_once() {
        let refused = Layer { text: "connection refused", source: None };
        let request = Layer { text: "connection refused by s3", source: Some(Box::new(refused)) };
        let reading = Layer { text: "reading a/b", source: Some(Box::new(request)) };
        assert_eq!(describe(&reading), "reading a/b: connection refused by s3");
    }
}
