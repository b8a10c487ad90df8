//! How the next token is chosen. The bounds stand here once, for sweep files, flags,
//! `generation_config.json` and engines alike.

use std::ops::{Bound, RangeBounds as _};

/// The values that a parameter may take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// The parameter's name in files and flags.
    pub name: &'static str,
    /// The bounds in words, to follow "expected".
    pub expected: &'static str,
    low: Bound<f64>,
    high: Bound<f64>,
}

impl Bounds {
    /// The least and the largest value, for a schema.
    pub const fn range(&self) -> (Bound<f64>, Bound<f64>) {
        (self.low, self.high)
    }

    /// Whether `value` lies within; NaN never does.
    pub fn contains(&self, value: f64) -> bool {
        (self.low, self.high).contains(&value)
    }

    /// The value itself.
    ///
    /// # Errors
    /// The value is out of bounds.
    pub fn check(&self, value: f64) -> Result<f64, OutOfBounds> {
        if self.contains(value) { Ok(value) } else { Err(OutOfBounds { bounds: *self, value }) }
    }
}

/// A sampling parameter has a value that it cannot have.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("{} = {value} is out of bounds: expected {}", bounds.name, bounds.expected)]
pub struct OutOfBounds {
    /// The parameter and what it may be.
    pub bounds: Bounds,
    /// What was found.
    pub value: f64,
}

/// Divides the logits. 0 is greedy, and so is all below [`MIN_TEMPERATURE`]. Above 5 every text is
/// noise.
pub const TEMPERATURE: Bounds = Bounds {
    name: "temperature",
    expected: "a number from 0 (greedy) to 5",
    low: Bound::Included(0.0),
    high: Bound::Included(5.0),
};

/// Share of the probability that is sampled from; 1 is off.
pub const TOP_P: Bounds = Bounds {
    name: "top_p",
    expected: "a number above 0 and at most 1",
    low: Bound::Excluded(0.0),
    high: Bound::Included(1.0),
};

/// Number of the likeliest tokens that are sampled from; 0 is off, as in transformers.
pub const TOP_K: Bounds = Bounds {
    name: "top_k",
    expected: "a whole number from 0 (off) to 1000000",
    low: Bound::Included(0.0),
    high: Bound::Included(MAX_TOP_K as f64),
};

/// Least probability that is sampled, relative to the likeliest token's; 0 is off. At 1 nothing but
/// the likeliest token would stay: that is `greedy`.
pub const MIN_P: Bounds = Bounds {
    name: "min_p",
    expected: "a number from 0 (off) to below 1",
    low: Bound::Included(0.0),
    high: Bound::Excluded(1.0),
};

/// Divides the logits of tokens that were there already; 1 is off.
pub const REPETITION_PENALTY: Bounds = Bounds {
    name: "repetition_penalty",
    expected: "a number from 0.1 to 10 (1 is off)",
    low: Bound::Included(0.1),
    high: Bound::Included(10.0),
};

/// Larger than any vocabulary.
pub const MAX_TOP_K: u32 = 1_000_000;

/// Temperatures below are greedy, as in vLLM (`_SAMPLING_EPS`): the likeliest token has all the
/// probability that FP32 can tell, and quotients of the logits would overflow in the end.
pub const MIN_TEMPERATURE: f64 = 1e-5;

/// Sampling parameters as somebody states them, not checked yet. The default is Bakeoff's own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SamplingParams {
    /// Always the likeliest token. Temperature and filters are ignored then, the penalty is not.
    pub greedy: bool,
    /// See [`TEMPERATURE`].
    pub temperature: f64,
    /// See [`TOP_P`].
    pub top_p: f64,
    /// See [`TOP_K`]; `None` is off, too.
    pub top_k: Option<u32>,
    /// See [`MIN_P`]; `None` is off, too.
    pub min_p: Option<f64>,
    /// See [`REPETITION_PENALTY`].
    pub repetition_penalty: f64,
    /// The same seed gives the same draws.
    pub seed: u64,
}

impl SamplingParams {
    /// The temperature where nobody sets one.
    pub const DEFAULT_TEMPERATURE: f64 = 0.7;
    /// The share of the probability sampled from where nobody sets one.
    pub const DEFAULT_TOP_P: f64 = 0.9;
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            greedy: false,
            temperature: Self::DEFAULT_TEMPERATURE,
            top_p: Self::DEFAULT_TOP_P,
            top_k: None,
            min_p: None,
            repetition_penalty: 1.0,
            seed: 0,
        }
    }
}

/// Sampling parameters within their bounds, nothing left open: what an engine obeys.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling(SamplingParams);

impl Sampling {
    /// Always the likeliest token, without a penalty.
    pub const GREEDY: Self = Self(SamplingParams {
        greedy: true,
        temperature: 0.0,
        top_p: 1.0,
        top_k: None,
        min_p: None,
        repetition_penalty: 1.0,
        seed: 0,
    });

    /// # Errors
    /// The first parameter that is out of bounds, also one that greedy decoding would ignore.
    pub fn new(params: SamplingParams) -> Result<Self, OutOfBounds> {
        let temperature = TEMPERATURE.check(params.temperature)?;
        TOP_P.check(params.top_p)?;
        TOP_K.check(f64::from(params.top_k.unwrap_or(0)))?;
        MIN_P.check(params.min_p.unwrap_or(0.0))?;
        REPETITION_PENALTY.check(params.repetition_penalty)?;
        Ok(Self(SamplingParams {
            greedy: params.greedy || is_greedy(temperature),
            top_k: params.top_k.filter(|k| *k > 0),
            min_p: params.min_p.filter(|p| *p > 0.0),
            ..params
        }))
    }

    /// Always the likeliest token; asked for by `greedy` or by a temperature of 0.
    pub fn greedy(&self) -> bool {
        self.0.greedy
    }

    /// At least [`MIN_TEMPERATURE`] unless [`Sampling::greedy`].
    pub fn temperature(&self) -> f64 {
        self.0.temperature
    }

    /// Above 0, at most 1.
    pub fn top_p(&self) -> f64 {
        self.0.top_p
    }

    /// At least 1; `None` is off.
    pub fn top_k(&self) -> Option<u32> {
        self.0.top_k
    }

    /// Above 0, below 1; `None` is off.
    pub fn min_p(&self) -> Option<f64> {
        self.0.min_p
    }

    /// 1 is off. Applied before anything else, also when greedy, over prompt and output, as
    /// transformers does.
    pub fn repetition_penalty(&self) -> f64 {
        self.0.repetition_penalty
    }

    /// The same seed gives the same draws.
    pub fn seed(&self) -> u64 {
        self.0.seed
    }
}

/// Whether a temperature means greedy.
pub fn is_greedy(temperature: f64) -> bool {
    temperature < MIN_TEMPERATURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_out_of_bounds_is_named_with_what_was_expected() {
        let fine = SamplingParams::default();
        assert!(Sampling::new(fine).is_ok());
        for (params, text) in [
            (SamplingParams { temperature: -0.1, ..fine }, "temperature = -0.1 is out of bounds"),
            (SamplingParams { temperature: 5.1, ..fine }, "expected a number from 0 (greedy) to 5"),
            (SamplingParams { temperature: f64::NAN, ..fine }, "temperature = NaN"),
            (SamplingParams { top_p: 0.0, ..fine }, "top_p = 0"),
            (SamplingParams { top_p: 1.5, ..fine }, "top_p = 1.5"),
            (SamplingParams { top_k: Some(MAX_TOP_K + 1), ..fine }, "top_k = 1000001"),
            (SamplingParams { min_p: Some(1.0), ..fine }, "min_p = 1 is"),
            (SamplingParams { min_p: Some(-1.0), ..fine }, "min_p = -1"),
            (SamplingParams { repetition_penalty: 0.0, ..fine }, "repetition_penalty = 0"),
            (SamplingParams { repetition_penalty: f64::INFINITY, ..fine }, "= inf"),
        ] {
            let error = Sampling::new(params).expect_err(text).to_string();
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn the_bounds_themselves_are_allowed_and_zeros_switch_off() {
        let ends = SamplingParams {
            temperature: 5.0,
            top_p: 1.0,
            top_k: Some(0),
            min_p: Some(0.0),
            repetition_penalty: 10.0,
            ..SamplingParams::default()
        };
        let sampling = Sampling::new(ends).expect("valid");
        assert_eq!((sampling.top_k(), sampling.min_p(), sampling.greedy()), (None, None, false));
    }

    #[test]
    fn a_temperature_of_zero_is_greedy_and_nothing_else_is_but_greedy() {
        let at = |temperature| {
            let params = SamplingParams { temperature, ..SamplingParams::default() };
            Sampling::new(params).expect("valid").greedy()
        };
        assert!(at(0.0) && at(1e-6) && !at(1e-5) && !at(0.7));
        let asked = SamplingParams { greedy: true, ..SamplingParams::default() };
        assert!(Sampling::new(asked).expect("valid").greedy());
        assert_eq!(Sampling::new(Sampling::GREEDY.0), Ok(Sampling::GREEDY));
    }
}
