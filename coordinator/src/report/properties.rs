//! What holds of every report, whatever came out of its sweep.

use std::collections::BTreeSet;

use bakeoff_model::{GpuTable, LoadFormat};
use bakeoff_proto::FinishReason;
use proptest::prelude::*;

use super::build;
use super::model::{Invalid, Report};
use crate::collect::Collected;
use crate::finished::{GOOD, Made, collected, review_all, sweep};

/// Names of which none is part of another.
const MODELS: [&str; 5] =
    ["org/alpha-coder", "org/beta", "org/gamma-30B-A3B", "org/delta-coder", "org/epsilon"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Whole,
    NoCode,
    Cut,
    InsideThinking,
    NotDone,
}

#[derive(Debug, Clone)]
struct Model {
    dummy: bool,
    /// Of each run.
    fates: Vec<Fate>,
    tok_per_s: f64,
    memory_gb: f64,
    stars: u8,
}

impl Model {
    /// Told apart by what was generated, not by how the report decides.
    fn is_valid(&self) -> bool {
        !self.dummy && self.fates.iter().any(|f| matches!(f, Fate::Whole | Fate::NoCode))
    }
}

fn model() -> impl Strategy<Value = Model> {
    let fate = || {
        prop_oneof![
            3 => Just(Fate::Whole),
            1 => Just(Fate::NoCode),
            3 => Just(Fate::Cut),
            2 => Just(Fate::InsideThinking),
            2 => Just(Fate::NotDone),
        ]
    };
    // Half of the models have one fate in all runs, or invalid groups would be rare.
    let fates =
        prop_oneof![fate().prop_map(|fate| vec![fate; 2]), proptest::collection::vec(fate(), 2),];
    (proptest::bool::weighted(0.25), fates, 5.0..200.0, 1.0..70.0, 1u8..=5).prop_map(
        |(dummy, fates, tok_per_s, memory_gb, stars)| Model {
            dummy,
            fates,
            tok_per_s,
            memory_gb,
            stars,
        },
    )
}

fn finished(models: &[Model], reviewed: bool) -> Collected {
    let mut text = String::from(
        "name = \"any\"\n[generation]\nruns = 2\n[[prompts]]\nid = \"p\"\ntext = \"x\"\n\
        rubric = \"python-service\"\n",
    );
    for (id, _) in MODELS.iter().zip(models) {
        text.push_str(&format!("[[models]]\nid = \"{id}\"\n"));
    }
    let of = |name: &str| &models[MODELS.iter().position(|id| *id == name).expect("one of them")];
    let mut made = collected(sweep(&text), |name, _, run| {
        let model = of(name);
        let (output, finish) = match model.fates[run as usize - 1] {
            Fate::Whole => (GOOD, FinishReason::Stop),
            Fate::NoCode => ("I cannot help with that.", FinishReason::Stop),
            Fate::Cut => (GOOD, FinishReason::Length),
            Fate::InsideThinking => ("<think>hm", FinishReason::Stop),
            Fate::NotDone => return None,
        };
        let (tok_per_s, memory_gb) = (model.tok_per_s, model.memory_gb);
        Some(Made { finish, tok_per_s, memory_gb, ..Made::new(output) })
    });
    for record in made.records.values_mut() {
        let model = of(&record.model);
        if model.dummy {
            record.engine_settings.load_format = LoadFormat::Dummy;
        }
        if model.fates[record.run as usize - 1] == Fate::InsideThinking {
            record.output.think_closed = Some(false);
        }
        record.metrics.roofline_pct = Some(model.tok_per_s / 2.0);
    }
    if reviewed {
        review_all(&mut made, |name| of(name).stars);
    }
    made
}

/// Every text that concludes something.
fn conclusions(report: &Report) -> Vec<String> {
    let mut texts = Vec::new();
    for r in &report.recommendations {
        texts.extend([r.variant.clone().unwrap_or_default(), r.because.clone()]);
        texts.extend(r.tied.iter().map(|(name, _)| name.clone()));
        texts.extend(r.figures.iter().map(|f| f.value.clone()));
    }
    for i in &report.insights {
        texts.push(i.text.clone());
        texts.extend(i.rests_on.iter().map(|(name, _)| name.clone()));
    }
    texts.extend(report.variants.iter().filter_map(|v| v.dominated_by.clone()));
    texts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_is_concluded_about_what_cannot_be_judged(
        models in proptest::collection::vec(model(), 2..=5),
        reviewed: bool,
    ) {
        let report = build(&finished(&models, reviewed), GpuTable::shipped().as_slice());
        let invalid: BTreeSet<&str> = MODELS
            .iter()
            .zip(&models)
            .filter(|(_, model)| !model.is_valid())
            .map(|(name, _)| *name)
            .collect();
        for v in &report.variants {
            prop_assert_eq!(v.invalid.is_some(), invalid.contains(v.name.as_str()), "{}", v.name);
            if v.invalid.is_some() {
                prop_assert!(v.quality.is_none() && v.stars.is_none() && v.evidence.is_none());
                prop_assert!(v.passing == 0 && v.dominated_by.is_none());
                let reason = v.invalid.map_or("", Invalid::words);
                let named = report.warnings.iter().any(|w| w.text.contains(&v.name));
                prop_assert!(named, "{} ({reason}) is not warned of", v.name);
            }
        }
        for text in conclusions(&report) {
            for name in &invalid {
                prop_assert!(!text.contains(name), "{name} is invalid: {text}");
            }
        }
    }
}
