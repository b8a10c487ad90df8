//! What is asked of an engine, checked before anything is computed.

use bakeoff_proto::FailureKind;

use crate::{EngineError, Request};

/// What an engine can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest sequence that the cache was allocated for.
    pub context: usize,
    /// Longest sequence the model was made for.
    pub model_context: usize,
    pub vocab: usize,
}

impl Limits {
    /// # Errors
    /// An empty prompt, nothing to generate, an id beyond the vocabulary
    /// ([`FailureKind::InvalidRequest`]); a sequence that would not fit
    /// ([`FailureKind::ContextOverflow`]).
    pub fn check(&self, request: &Request) -> Result<(), EngineError> {
        if request.max_new_tokens == 0 {
            return Err(invalid("max_new_tokens is 0: ask for at least 1".to_owned()));
        }
        self.check_ids(&request.prompt_ids)?;
        let (prompt, new) = (request.prompt_ids.len(), request.max_new_tokens);
        if prompt.saturating_add(new) > self.context {
            let what = format!("the prompt's {prompt} tokens and max_new_tokens = {new}");
            return Err(self.overflow(&what));
        }
        Ok(())
    }

    /// Checks ids that are only to be scored.
    ///
    /// # Errors
    /// None, one beyond the vocabulary, or more than the context holds.
    pub fn check_score(&self, ids: &[u32]) -> Result<(), EngineError> {
        self.check_ids(ids)?;
        if ids.len() > self.context {
            return Err(self.overflow(&format!("{} tokens to score", ids.len())));
        }
        Ok(())
    }

    fn check_ids(&self, ids: &[u32]) -> Result<(), EngineError> {
        if ids.is_empty() {
            return Err(invalid("the prompt has no tokens: give at least one".to_owned()));
        }
        match ids.iter().find(|id| **id as usize >= self.vocab) {
            None => Ok(()),
            Some(id) => Err(invalid(format!(
                "the prompt has token {id}, the model's vocabulary ends at {}: the tokenizer is of \
                 another model",
                self.vocab - 1
            ))),
        }
    }

    fn overflow(&self, what: &str) -> EngineError {
        let limit = if self.context < self.model_context {
            format!("the {} tokens the cache was loaded for", self.context)
        } else {
            format!("the model's context of {} tokens", self.model_context)
        };
        EngineError::new(
            FailureKind::ContextOverflow,
            format!("{what} exceed {limit}: shorten the prompt or lower max_new_tokens"),
        )
    }
}

fn invalid(message: String) -> EngineError {
    EngineError::new(FailureKind::InvalidRequest, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sampling;

    type Change = fn(&mut Request);

    const LIMITS: Limits = Limits { context: 100, model_context: 1000, vocab: 50 };

    fn request() -> Request {
        Request {
            prompt_ids: vec![1, 2, 3],
            max_new_tokens: 10,
            sampling: Sampling::GREEDY,
            stop_ids: vec![],
        }
    }

    fn refusal(change: impl FnOnce(&mut Request)) -> EngineError {
        let mut request = request();
        change(&mut request);
        LIMITS.check(&request).expect_err("refused")
    }

    #[test]
    fn a_request_that_cannot_be_met_is_refused_with_the_value_at_fault() {
        assert!(LIMITS.check(&request()).is_ok());
        let invalid: [(&str, Change); 3] = [
            ("max_new_tokens is 0", |r| r.max_new_tokens = 0),
            ("no tokens", |r| r.prompt_ids.clear()),
            ("token 50", |r| r.prompt_ids.push(50)),
        ];
        for (expected, change) in invalid {
            let error = refusal(change);
            assert_eq!(error.kind, FailureKind::InvalidRequest);
            assert!(error.message.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_sequence_beyond_the_context_is_refused_with_both_lengths() {
        for change in [
            (|r: &mut Request| r.max_new_tokens = 98) as Change,
            |r| r.max_new_tokens = usize::MAX,
            |r| r.prompt_ids = vec![1; 101],
        ] {
            let error = refusal(change);
            assert_eq!(error.kind, FailureKind::ContextOverflow);
            assert!(error.message.contains("100 tokens the cache was loaded for"), "{error}");
        }
        let whole = Limits { context: 1000, ..LIMITS };
        let long = Request { max_new_tokens: 1000, ..request() };
        let error = whole.check(&long).expect_err("too long");
        assert!(error.message.contains("the model's context of 1000 tokens"), "{error}");
        assert!(LIMITS.check_score(&[1; 101]).is_err());
        assert!(LIMITS.check_score(&[1; 100]).is_ok());
    }
}
