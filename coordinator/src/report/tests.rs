use std::collections::BTreeMap;
use std::path::Path;

use bakeoff_model::GpuTable;
use bakeoff_proto::CellId;

use super::model::{Measure, WarningKind};
use super::*;
use crate::finished::{GOOD, Made, collected, notebook, review_all, sweep};
use crate::review::{self, Review, Reviews};

#[test]
fn the_notebooks_outcome_leads_to_its_conclusions() {
    let collected = notebook();
    let report = build(&collected, GpuTable::shipped().as_slice());
    assert_eq!(report.measure, Measure::Stars);
    let picks: Vec<_> = report
        .recommendations
        .iter()
        .map(|r| (r.use_case.as_str(), r.variant.as_deref()))
        .collect();
    assert_eq!(
        picks,
        [
            ("Real-time use", Some("Qwen/Qwen2.5-Coder-7B-Instruct")),
            ("Quality first", Some("Qwen/Qwen2.5-Coder-32B-Instruct")),
            ("Batch use", Some("Qwen/Qwen2.5-Coder-32B-Instruct")),
        ]
    );
    let batch = &report.recommendations[2];
    assert!(
        batch.because.contains("it dominates Qwen/Qwen3-Coder-30B-A3B-Instruct (7.1 times"),
        "{}",
        batch.because
    );
    assert!(report.recommendations.iter().all(|r| r.caveats.contains(&"single run".to_owned())));
    assert!(report.variants.iter().all(|v| v.single_run));
    let single =
        report.warnings.iter().find(|w| w.kind == WarningKind::SingleRun).expect("a warning");
    assert!(single.text.starts_with("Every model: a single run"), "{}", single.text);
    let truncated: Vec<_> = report
        .warnings
        .iter()
        .filter(|w| w.kind == WarningKind::Truncated)
        .map(|w| &w.text)
        .collect();
    assert_eq!(truncated.len(), 2);
    assert!(truncated[0].starts_with("Qwen/Qwen3-32B:"));
    assert!(truncated[1].starts_with("Qwen/Qwen3-30B-A3B:"));
    let titles: Vec<_> = report.insights.iter().map(|i| i.title.as_str()).collect();
    // Both general models were cut off: nothing is said of general models.
    assert_eq!(titles, ["Size costs speed", "Experts slower than dense"]);
    // The notebook's last question: an L4 holds the 7B, at about 21 tokens a second.
    let l4 =
        report.variants[0].sizing.iter().find(|fit| fit.gpu == "L4").expect("in the data file");
    assert!(l4.fits && l4.decode_tok_s.map(f64::round) == Some(21.0));

    let documents = documents(&collected);
    // The matrix: stars, speed, whether it can be used as it is, best use.
    for row in [
        "| Qwen/Qwen2.5-Coder-7B-Instruct | 4.0 ★ | 53.1 | 1 of 1 | – | use of \
        Qwen/Qwen2.5-Coder-7B-Instruct |",
        "| Qwen/Qwen2.5-Coder-32B-Instruct | 5.0 ★ | 25.5 | 1 of 1 | – | use of \
        Qwen/Qwen2.5-Coder-32B-Instruct |",
        "| Qwen/Qwen3-32B | not judged: every output is cut off | 21.7 | – | – | use of Qwen/Qwen3-32B |",
        "| Qwen/Qwen3-30B-A3B | not judged: every output is cut off | 10.6 | – | – | use of Qwen/Qwen3-30B-A3B |",
        "| Qwen/Qwen3-Coder-30B-A3B-Instruct | 5.0 ★ | 10.3 | 1 of 1 | – | use of \
        Qwen/Qwen3-Coder-30B-A3B-Instruct |",
    ] {
        assert!(documents.markdown.contains(row), "{row}\n{}", documents.markdown);
    }
    // The metrics, in the order that readers know.
    for row in ["yes | 550 | 53.1 | 10.30 | 15.2 |", "yes | 4096 | 10.6 | 385.80 | 61.1 |"] {
        assert!(documents.markdown.contains(row), "{row}");
    }
    assert_eq!(documents.markdown.matches("1 length").count(), 2);
    assert_eq!(documents, super::documents(&collected), "the same records give the same bytes");
}

#[test]
fn a_hostile_output_is_text_everywhere() {
    let attack = "</pre></script><script>alert(1)</script><img src=x \
    onerror=alert(1)>\n```python\n# </pre><svg onload=alert(1)>\nx = \"<iframe \
    src='https://x.example'>\"\n```\n{{ 7*7 }} [x](javascript:alert(1))";
    let text = "name = \"hostile\"\n[generation]\nruns = 1\n[[prompts]]\nid = \"p\"\ntext = \
    \"<script>alert(2)</script>\"\n[[models]]\nid = \"builtin:tiny-qwen2\"\n";
    let mut collected = collected(sweep(text), |_, _, _| Some(Made::new(attack)));
    let cell = collected.rows[0].cell.clone();
    let review = Review {
        output: review::blind::name(1, &cell),
        reviewer: "<b>Eve</b>".into(),
        stars: [("correctness".to_owned(), 1)].into(),
        strengths: "<script>alert(3)</script>".into(),
        ..Review::default()
    };
    let reviews = Reviews { sweep: "hostile".into(), seed: 1, reviews: vec![review] };
    collected.reviews = Some(review::file::render(&reviews, &BTreeMap::new()));
    let documents = documents(&collected);
    for tag in ["<script", "<img", "<iframe", "<svg onload", "<b>Eve"] {
        assert!(!documents.html.contains(tag), "{tag} is in the page");
        assert!(!documents.markdown.contains(tag), "{tag} is in the markdown");
    }
    assert!(documents.html.contains("&lt;script&gt;alert(1)"));
    assert!(documents.html.contains("{{ 7*7 }}"), "an output is no template");
}

#[test]
fn sweeps_with_nothing_in_them_still_have_a_report() {
    let text = "name = \"small\"\n[generation]\nruns = 1\n[[prompts]]\nid = \"p\"\ntext = \
    \"x\"\n[[models]]\nid = \"builtin:tiny-qwen2\"\n";
    let empty = collected(sweep(text), |_, _, _| None);
    let report = build(&empty, &[]);
    assert_eq!((report.measure, report.cells_done), (Measure::None, 0));
    assert!(report.recommendations.iter().all(|r| r.variant.is_none()));
    assert!(documents(&empty).html.contains("nothing to draw"));
    let mut one = collected(sweep(text), |_, _, _| Some(Made::new("")));
    one.reviews = Some("nonsense".into());
    one.checks.insert(one.rows[0].cell.clone(), "{".into());
    one.telemetry.insert(one.rows[0].cell.clone(), "\0".into());
    let report = build(&one, &[]);
    let kinds: Vec<_> = report.warnings.iter().map(|w| w.kind).collect();
    assert!(
        kinds.contains(&WarningKind::BadReviews) && kinds.contains(&WarningKind::BadChecks),
        "{kinds:?}"
    );
    assert!(documents(&one).markdown.contains("single run"));
}

#[test]
fn no_rank_where_the_difference_is_noise() {
    let text = "name = \"noise\"\n[generation]\nruns = 4\n[[prompts]]\nid = \"p\"\ntext = \
    \"x\"\n[[models]]\nid = \"builtin:tiny-qwen2\"\n[[models]]\nid = \"builtin:tiny-qwen3\"\n";
    let speeds = [[30.0, 31.0, 29.0, 30.5], [30.4, 29.6, 31.0, 29.9]];
    let mut noisy = collected(sweep(text), |name, _, run| {
        let model = usize::from(name.ends_with("qwen3"));
        Some(Made { tok_per_s: speeds[model][run as usize - 1], ..Made::new(GOOD) })
    });
    review_all(&mut noisy, |_| 4);
    let report = build(&noisy, &[]);
    assert!(report.recommendations[0].variant.is_none());
    let tie = &report.recommendations[0];
    let tied: Vec<_> = tie.tied.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(tied, ["builtin:tiny-qwen3", "builtin:tiny-qwen2"]);
    assert!(tie.because.contains("not distinguishable by speed (30.2 tok/s and 30.1"), "{tie:?}");
    assert!(tie.because.contains("more prompt"), "{}", tie.because);
    assert!(
        documents(&noisy).markdown.contains("**builtin:tiny-qwen3** or **builtin:tiny-qwen2**")
    );
    assert!(report.variants[0].tok_per_s.is_some_and(|s| s.low.is_some()));
}

#[test]
fn a_hundred_long_cells_are_fast_and_small() {
    let text = "name = \"long\"\n[generation]\nruns = 50\n[[prompts]]\nid = \"p\"\ntext = \
    \"x\"\nrubric = \"python-service\"\n[[models]]\nid = \"builtin:tiny-qwen2\"\n[[models]]\nid = \
    \"builtin:tiny-qwen3\"\n";
    let unit = "    if file.content_type not in ALLOWED:\n        raise \
    HTTPException(status_code=415, detail=f\"<{x}>\")\n";
    let output = format!("```python\ndef f(file):\n{}```\n", unit.repeat(16_384 / unit.len()));
    let long = collected(sweep(text), |_, _, _| Some(Made::new(&output)));
    let start = std::time::Instant::now();
    let documents = documents(&long);
    let elapsed = start.elapsed();
    println!("100 cells: {elapsed:?}, {} bytes", documents.html.len());
    assert!(documents.html.len() < 3_000_000, "{} bytes", documents.html.len());
    // Unoptimised code is allowed its handicap.
    let most = if cfg!(debug_assertions) { 20.0 } else { 2.0 };
    assert!(elapsed.as_secs_f64() < most, "{elapsed:?}");
}

#[test]
fn the_schema_of_the_export_is_the_committed_one() {
    let schema = serde_json::to_string_pretty(&schemars::schema_for!(Report)).expect("a schema");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/report.schema.json");
    if std::env::var_os("UPDATE_SCHEMAS").is_some() {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("the folder can be made");
        std::fs::write(&path, format!("{schema}\n")).expect("the schema can be written");
    }
    let committed = std::fs::read_to_string(&path).expect("the schema is committed");
    assert!(
        committed.trim_end() == schema,
        "schemas/report.schema.json is stale: run the test with UPDATE_SCHEMAS=1"
    );
}

#[test]
fn reviews_of_unknown_outputs_are_left_out_with_a_warning() {
    let mut collected = notebook();
    let unknown = CellId::parse("00000000000000ff").expect("an id");
    let review = Review {
        output: review::blind::name(7, &unknown),
        reviewer: "Ana".into(),
        stars: [("correctness".to_owned(), 5)].into(),
        ..Review::default()
    };
    let reviews = Reviews { sweep: "notebook".into(), seed: 7, reviews: vec![review] };
    collected.reviews = Some(review::file::render(&reviews, &BTreeMap::new()));
    let report = build(&collected, &[]);
    assert!(
        report
            .warnings
            .iter()
            .any(|w| w.kind == WarningKind::BadReviews && w.text.contains("unknown output"))
    );
    assert_eq!(report.measure, Measure::Evidence);
}

#[test]
fn random_weights_and_mismatches_are_warned_of_once_a_model() {
    let plan = sweep(
        "name = \"d\"\n[generation]\nruns = 3\n[engine]\nload_format = \"dummy\"\n[[prompts]]\nid \
        = \"p\"\ntext = \"x\"\n[[models]]\nid = \"org/a\"\n",
    );
    let mut collected = collected(plan, |_, _, _| Some(Made::new(GOOD)));
    for record in collected.records.values_mut() {
        record.mismatches = vec![format!("weights: 1 bytes planned, {} bytes seen", record.run)];
    }
    let report = build(&collected, GpuTable::shipped().as_slice());
    let of = |kind: WarningKind| -> Vec<&str> {
        report.warnings.iter().filter(|w| w.kind == kind).map(|w| w.text.as_str()).collect()
    };
    assert_eq!(of(WarningKind::Mismatch).len(), 1, "{:?}", of(WarningKind::Mismatch));
    assert!(
        of(WarningKind::Mismatch)[0].starts_with("org/a: weights: 1 bytes planned, 1 bytes seen")
    );
    assert!(of(WarningKind::Mismatch)[0].ends_with("(first of 3 cells)"));
    assert_eq!(of(WarningKind::DummyWeights).len(), 1);
    assert!(of(WarningKind::DummyWeights)[0].starts_with("org/a: random weights"));
    assert!(build(&notebook(), &[]).warnings.iter().all(|w| w.kind != WarningKind::DummyWeights));
}

#[test]
fn what_compiles_is_not_thereby_good() {
    let of = |checks: &str, verdicts: &[(&str, &str)]| {
        let text = format!(
            "name = \"c\"\n[generation]\nruns = 2\n{checks}[[prompts]]\nid = \"p\"\ntext = \
            \"x\"\nrubric = \"python-service\"\n[[models]]\nid = \"org/a\"\n"
        );
        let mut made = collected(sweep(&text), |_, _, _| Some(Made::new(GOOD)));
        let checks: Vec<_> = verdicts
            .iter()
            .map(|(name, verdict)| serde_json::json!({"name": name, "verdict": verdict, "detail": ""}))
            .collect();
        for row in &made.rows {
            let report = serde_json::json!({
                "schema_version": 1, "cell": row.cell, "document_sha256": "0".repeat(64),
                "sandboxed": true, "checks": checks,
            });
            made.checks.insert(row.cell.clone(), report.to_string());
        }
        made
    };
    let syntax = "[checks]\ncompile = true\nimport = true\n";
    let tested = "[checks]\ncompile = true\nimport = true\ncommand = \"python test.py\"\n";
    let passed = of(syntax, &[("compile", "pass"), ("import", "pass")]);
    let report = build(&passed, &[]);
    assert_eq!(report.measure, Measure::Evidence);
    let evidence = report.variants[0].quality.expect("evidence").mean;
    assert!(evidence > 0.0 && evidence < 1.0, "{evidence}");
    // A failed precondition leaves nothing.
    let report = build(&of(syntax, &[("compile", "pass"), ("import", "fail")]), &[]);
    assert_eq!((report.measure, report.variants[0].passing), (Measure::Evidence, 0));
    assert_eq!(report.variants[0].quality.map(|q| q.mean), Some(0.0));
    // Behaviour stands above what people say, and what does not compile fails its test.
    let mut both = of(tested, &[("compile", "pass"), ("command", "pass")]);
    review_all(&mut both, |_| 2);
    let report = build(&both, &[]);
    assert_eq!((report.measure, report.variants[0].passing), (Measure::PassRate, 2));
    let report = build(&of(tested, &[("compile", "fail")]), &[]);
    assert_eq!(report.measure, Measure::PassRate);
    assert_eq!(report.variants[0].quality.map(|q| q.mean), Some(0.0));
    let mut reviewed = passed;
    review_all(&mut reviewed, |_| 4);
    assert_eq!(build(&reviewed, &[]).measure, Measure::Stars);
}
