//! What a model's own files say about sampling and about where a text ends.

use bakeoff_model::{GenerationSettings, SamplingSource};
use bakeoff_proto::{FailureKind};
use serde::Deserialize;

use crate::{EngineError, Sampling};

/// The fields of `generation_config.json` that matter here.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct GenerationConfig {
    pub eos_token_id: Ids,
    pub temperature: Option<f64>,
    pub top_p: Option<f64>,
    pub top_k: Option<u32>,
    pub min_p: Option<f64>,
    pub repetition_penalty: Option<f64>,
}

/// One id, several, or none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Ids {
    One(u32),
    Many(Vec<u32>),
    #[default]
    None,
}

impl Ids {
    pub fn as_slice(&self) -> &[u32] {
        match self {
            Self::One(id) => std::slice::from_ref(id),
            Self::Many(ids) => ids,
            Self::None => &[],
        }
    }
}

impl GenerationConfig {
    /// Reads `generation_config.json` of `model`; a model without one says nothing.
    ///
    /// # Errors
    /// [`FailureKind::BadConfig`] when it is malformed.
    pub fn parse(model: &str, json: Option<&[u8]>) -> Result<Self, EngineError> {
        let Some(json) = json else { return Ok(Self::default()) };
        serde_json::from_slice(json).map_err(|e| {
            EngineError::new(
                FailureKind::BadConfig,
                format!(
                    "generation_config.json of {model} cannot be read ({e}): mend or remove it, or \
                     take another revision"
                ),
            )
        })
    }

    /// Settles what the sweep left open. With [`SamplingSource::Model`] this file comes next and
    /// Bakeoff's defaults last; with [`SamplingSource::Sweep`] the file is not asked, so that every
    /// model samples alike.
    ///
    /// Greedy takes the most likely token, but after the repetition penalty, as transformers does: with
    /// `sampling = "model"` a penalty in this file changes greedy output too. A temperature of 0 means
    /// greedy. `do_sample` is not asked: the sweep's `greedy` decides.
    ///
    /// # Errors
    /// [`FailureKind::InvalidRequest`] for a value outside its range, naming where it comes from.
    pub fn resolve(
        &self,
        settings: &GenerationSettings,
        seed: u64,
    ) -> Result<Sampling, EngineError> {
        let own =
            if settings.sampling == SamplingSource::Model { self.clone() } else { Self::default() };
        let temperature = settings
            .temperature
            .or(own.temperature)
            .unwrap_or(GenerationSettings::DEFAULT_TEMPERATURE);
        let top_p = settings.top_p.or(own.top_p).unwrap_or(GenerationSettings::DEFAULT_TOP_P);
        let min_p = settings.min_p.or(own.min_p);
        let repetition_penalty =
            settings.repetition_penalty.or(own.repetition_penalty).unwrap_or(1.0);
        within("temperature", temperature, (0.0..=100.0).contains(&temperature), "0 to 100")?;
        within("top_p", top_p, top_p > 0.0 && top_p <= 1.0, "above 0, at most 1")?;
        let min_p_value = min_p.unwrap_or(0.0);
        within("min_p", min_p_value, (0.0..1.0).contains(&min_p_value), "0 to below 1")?;
        within(
            "repetition_penalty",
            repetition_penalty,
            repetition_penalty > 0.0 && repetition_penalty.is_finite(),
            "above 0 (1 is off)",
        )?;
        Ok(Sampling {
            greedy: settings.greedy || temperature == 0.0,
            temperature,
            top_p,
            top_k: settings.top_k.or(own.top_k).filter(|k| *k > 0),
            min_p: min_p.filter(|p| *p > 0.0),
            repetition_penalty,
            seed,
        })
    }
}

fn within(name: &str, value: f64, ok: bool, range: &str) -> Result<(), EngineError> {
    if ok {
        return Ok(());
    }
    Err(EngineError::new(
        FailureKind::InvalidRequest,
        format!("{name} = {value} cannot be used: set it in the sweep to a number {range}"),
    ))
}

/// Every id that ends a text: those of `config.json`, of `generation_config.json` and the tokenizer's
/// own end-of-sequence token, each once. transformers takes the second and falls back to the first;
/// their union also ends a chat whose files disagree.
pub fn stop_ids(config: &[u8], generation: &GenerationConfig, eos: Option<u32>) -> Vec<u32> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Config {
        eos_token_id: Ids,
    }
    // The engine reads config.json itself and reports what is wrong with it.
    let config: Config = serde_json::from_slice(config).unwrap_or_default();
    let mut ids = generation.eos_token_id.as_slice().to_vec();
    ids.extend(config.eos_token_id.as_slice());
    ids.extend(eos);
    ids.sort_unstable();
    ids.dedup();
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    const QWEN: &[u8] =
        br#"{"do_sample": true, "eos_token_id": [151645, 151643], "temperature": 0.6,
        "top_k": 20, "top_p": 0.95, "repetition_penalty": 1.05}"#;

    fn qwen() -> GenerationConfig {
        GenerationConfig::parse("m", Some(QWEN)).expect("valid")
    }

    #[test]
    fn a_sweep_samples_every_model_alike() {
        let sampling = qwen().resolve(&GenerationSettings::default(), 7).expect("valid");
        assert_eq!((sampling.temperature, sampling.top_p), (0.7, 0.9));
        assert_eq!(
            (sampling.top_k, sampling.min_p, sampling.repetition_penalty),
            (None, None, 1.0)
        );
        assert_eq!(sampling.seed, 7);
    }

    #[test]
    fn the_model_fills_only_what_the_sweep_leaves_open() {
        let settings = GenerationSettings {
            sampling: SamplingSource::Model,
            top_p: Some(0.5),
            top_k: Some(0),
            ..GenerationSettings::default()
        };
        let sampling = qwen().resolve(&settings, 1).expect("valid");
        assert_eq!((sampling.temperature, sampling.top_p), (0.6, 0.5));
        assert_eq!(sampling.top_k, None, "0 switches top-k off");
        let silent = GenerationConfig::default().resolve(&settings, 1).expect("valid");
        assert_eq!(silent.temperature, 0.7);
    }

    #[test]
    fn greedy_keeps_the_penalty_of_the_model_and_only_when_asked() {
        let mut settings = GenerationSettings { greedy: true, ..GenerationSettings::default() };
        assert_eq!(qwen().resolve(&settings, 1).expect("valid").repetition_penalty, 1.0);
        settings.sampling = SamplingSource::Model;
        let sampling = qwen().resolve(&settings, 1).expect("valid");
        assert!(sampling.greedy);
        assert_eq!(sampling.repetition_penalty, 1.05);
    }

    #[test]
    fn temperature_zero_is_greedy() {
        let settings =
            GenerationSettings { temperature: Some(0.0), ..GenerationSettings::default() };
        assert!(qwen().resolve(&settings, 1).expect("valid").greedy);
    }

    #[test]
    fn values_out_of_range_are_named() {
        for (settings, name) in [
            (
                GenerationSettings { temperature: Some(-1.0), ..Default::default() },
                "temperature = -1",
            ),
            (
                GenerationSettings { temperature: Some(f64::NAN), ..Default::default() },
                "temperature = NaN",
            ),
            (GenerationSettings { top_p: Some(0.0), ..Default::default() }, "top_p = 0"),
            (GenerationSettings { min_p: Some(1.0), ..Default::default() }, "min_p = 1"),
            (
                GenerationSettings { repetition_penalty: Some(0.0), ..Default::default() },
                "repetition_penalty = 0",
            ),
        ] {
            let error = qwen().resolve(&settings, 1).expect_err(name);
            assert_eq!(error.kind, FailureKind::InvalidRequest);
            assert!(error.message.contains(name), "{error}");
        }
    }

    #[test]
    fn stop_ids_are_the_union_each_once() {
        let config = br#"{"eos_token_id": 151645}"#;
        assert_eq!(stop_ids(config, &qwen(), Some(3)), [3, 151643, 151645]);
        let null = br#"{"eos_token_id": null}"#;
        assert_eq!(stop_ids(null, &GenerationConfig::default(), None), [0_u32; 0]);
    }

    #[test]
    fn a_malformed_file_is_named() {
        let error = GenerationConfig::parse("Q/m", Some(b"{\"top_p\": \"x\"}")).expect_err("text");
        assert_eq!(error.kind, FailureKind::BadConfig);
        assert!(error.message.contains("generation_config.json of Q/m"), "{error}");
    }
}
