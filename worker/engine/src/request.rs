//! What is asked of an engine, checked before anything is computed.

use bakeoff_proto::FailureKind;

use crate::{
    EngineError,
    engine::{Request, Sampling},
};

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
    /// An empty prompt, nothing to generate, an id beyond the vocabulary, a sampling parameter out
    /// of its range ([`FailureKind::InvalidRequest`]); a sequence that would not fit
    /// ([`FailureKind::ContextOverflow`]).
    pub fn check(&self, request: &Request) -> Result<(), EngineError> {
        if request.max_new_tokens == 0 {
            return Err(invalid("max_new_tokens is 0: ask for at least 1".to_owned()));
        }
        self.check_ids(&request.prompt_ids)?;
        check_sampling(&request.sampling)?;
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

fn check_sampling(sampling: &Sampling) -> Result<(), EngineError> {
    let Sampling { greedy, temperature, top_p, top_k, min_p, repetition_penalty, seed: _ } =
        *sampling;
    let range = |name: &str, value: f64, expected: &str| {
        invalid(format!("{name} is {value}, expected {expected}"))
    };
    if !(repetition_penalty.is_finite() && repetition_penalty > 0.0) {
        return Err(range("repetition_penalty", repetition_penalty, "a number above 0 (1 is off)"));
    }
    if greedy {
        return Ok(());
    }
    if !(temperature.is_finite() && temperature > 0.0) {
        return Err(range("temperature", temperature, "a number above 0 (for none, set greedy)"));
    }
    if !(top_p > 0.0 && top_p <= 1.0) {
        return Err(range("top_p", top_p, "a number above 0 and at most 1"));
    }
    if top_k == Some(0) {
        return Err(range("top_k", 0.0, "at least 1 (leave it out to keep all)"));
    }
    if let Some(min_p) = min_p.filter(|p| !(0.0..=1.0).contains(p)) {
        return Err(range("min_p", min_p, "a number from 0 to 1"));
    }
    Ok(())
}

fn invalid(message: String) -> EngineError {
    EngineError::new(FailureKind::InvalidRequest, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = fn(&mut Request);

    const LIMITS: Limits = Limits { context: 100, model_context: 1000, vocab: 50 };

    fn request() -> Request {
        Request {
            prompt_ids: vec![1, 2, 3],
            max_new_tokens: 10,
            sampling: Sampling {
                greedy: false,
                temperature: 0.7,
                top_p: 0.9,
                top_k: Some(20),
                min_p: Some(0.0),
                repetition_penalty: 1.1,
                seed: 1,
            },
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
        let invalid: [(&str, Change); 9] = [
            ("max_new_tokens is 0", |r| r.max_new_tokens = 0),
            ("no tokens", |r| r.prompt_ids.clear()),
            ("token 50", |r| r.prompt_ids.push(50)),
            ("temperature is 0", |r| r.sampling.temperature = 0.0),
            ("temperature is NaN", |r| r.sampling.temperature = f64::NAN),
            ("top_p is 1.5", |r| r.sampling.top_p = 1.5),
            ("top_k is 0", |r| r.sampling.top_k = Some(0)),
            ("min_p is -1", |r| r.sampling.min_p = Some(-1.0)),
            ("repetition_penalty is 0", |r| r.sampling.repetition_penalty = 0.0),
        ];
        for (expected, change) in invalid {
            let error = refusal(change);
            assert_eq!(error.kind(), FailureKind::InvalidRequest);
            assert!(error.report().contains(expected), "{error}");
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
            assert_eq!(error.kind(), FailureKind::ContextOverflow);
            assert!(error.report().contains("100 tokens the cache was loaded for"), "{error}");
        }
        let whole = Limits { context: 1000, ..LIMITS };
        let long = Request { max_new_tokens: 1000, ..request() };
        let error = whole.check(&long).expect_err("too long");
        assert!(error.report().contains("the model's context of 1000 tokens"), "{error}");
        assert!(LIMITS.check_score(&[1; 101]).is_err());
        assert!(LIMITS.check_score(&[1; 100]).is_ok());
    }
}
