use std::collections::BTreeMap;
use std::path::Path;

use bakeoff_proto::record::{
    DeviceFacts, DocumentRef, Fingerprint, MemoryFacts, OutputFacts, Resolved,
};
use bakeoff_model::{Format, Thinking};
use bakeoff_proto::{AttemptId, CellId, FinishReason, Metrics, MetricsRecord, SCHEMA_VERSION};

use super::model::Measure;
use super::*;
use crate::collect;
use crate::plan::{Plan, Revisions};
use crate::review::{self, Review, Reviews};

/// A generation to be put into a sweep.
#[derive(Clone)]
struct Made {
    output: String,
    tokens: u32,
    tok_per_s: f64,
    time_s: f64,
    memory_gb: f64,
    finish: FinishReason,
}

impl Made {
    fn new(output: &str) -> Self {
        Self {
            output: output.to_owned(),
            tokens: 100,
            tok_per_s: 10.0,
            time_s: 10.0,
            memory_gb: 1.0,
            finish: FinishReason::Stop,
        }
    }
}

fn sweep(text: &str) -> Plan {
    let sweep = crate::sweep::parse(text, "sweep.toml", Path::new("")).expect("a valid sweep");
    Plan::build(sweep, Revisions::new()).expect("a plan")
}

/// A sweep in which each cell came out as `made` says; `None` leaves it pending.
fn collected(plan: Plan, made: impl Fn(&str, &str, u32) -> Option<Made>) -> Collected {
    let mut records = BTreeMap::new();
    let mut outputs = BTreeMap::new();
    for planned in plan.cells() {
        let cell = planned.cell;
        let Some(made) = made(planned.model_name, &cell.prompt_id, cell.run) else { continue };
        records.insert(cell.id.clone(), record(&plan, planned, &made));
        outputs.insert(cell.id.clone(), made.output);
    }
    let failures = BTreeMap::new();
    let rows = collect::rows(&plan, &records, &failures);
    Collected {
        plan,
        rows,
        records,
        failures,
        outputs,
        telemetry: BTreeMap::new(),
        checks: BTreeMap::new(),
        reviews: None,
        orphans: Vec::new(),
        problems: Vec::new(),
    }
}

fn record(plan: &Plan, planned: crate::plan::PlannedCell<'_>, made: &Made) -> MetricsRecord {
    let cell = planned.cell;
    MetricsRecord {
        schema_version: SCHEMA_VERSION,
        sweep: plan.sweep.name.clone(),
        cell: cell.id.clone(),
        job: planned.job.id.clone(),
        generation: 1,
        attempt: serde_json::from_str::<AttemptId>("\"0123456789abcdef\"").expect("an id"),
        worker: "w".into(),
        model: planned.job.model.display_id(),
        source: planned.job.model.source.clone(),
        prompt_id: cell.prompt_id.clone(),
        run: cell.run,
        seed: cell.seed,
        started_at: "2026-11-24T00:00:00Z".parse().expect("a time"),
        document: DocumentRef {
            key: format!("{}/{}.md", plan.sweep.name, cell.id),
            sha256: "0".repeat(64),
            output_bytes: made.output.len() as u64,
        },
        resolved: Resolved {
            format: Format::Instruct,
            thinking: Thinking::Auto,
            engine: "reference".into(),
            temperature: 0.7,
            top_p: 0.9,
            top_k: None,
            min_p: None,
            repetition_penalty: 1.0,
            greedy: false,
        },
        generation_settings: cell.generation.clone(),
        engine_settings: planned.job.engine.clone(),
        fingerprint: Fingerprint {
            weights_sha256: String::new(),
            tokenizer_sha256: String::new(),
            template_sha256: String::new(),
            build: "0.1.0".into(),
            engine: "reference".into(),
            dtype: "bf16".into(),
            device: "NVIDIA H100 NVL".into(),
            driver: "550".into(),
            flash_attn: "on".into(),
            tf32: "on".into(),
            reduced_precision_reduction: "on".into(),
            cuda_graph: "on".into(),
        },
        metrics: Metrics {
            flash_attn: true,
            tokens_generated: made.tokens,
            tok_per_s: made.tok_per_s,
            time_s: made.time_s,
            model_memory_gb: made.memory_gb,
            ..Metrics::default()
        },
        output: OutputFacts {
            finish_reason: made.finish,
            thinking_tokens: 0,
            answer_tokens: made.tokens,
            think_closed: None,
            has_code: true,
        },
        memory: MemoryFacts::default(),
        device: DeviceFacts::default(),
        inter_token_ms: Vec::new(),
        mismatches: Vec::new(),
    }
}

/// Gives every output of a model the same stars.
fn review_all(collected: &mut Collected, stars: impl Fn(&str) -> u8) {
    let seed = 7;
    let reviews = collected
        .rows
        .iter()
        .filter(|row| collected.outputs.contains_key(&row.cell))
        .map(|row| Review {
            output: review::blind::name(seed, &row.cell),
            reviewer: "Ana".into(),
            stars: review::CRITERIA
                .iter()
                .map(|(criterion, _)| ((*criterion).to_owned(), stars(&row.model)))
                .collect(),
            best_use: format!("use of {}", row.model),
            ..Review::default()
        })
        .collect();
    let sweep = collected.plan.sweep.name.to_string();
    let reviews = Reviews { sweep, seed, reviews };
    collected.reviews = Some(review::file::render(&reviews, &BTreeMap::new()));
}

const GOOD: &str = "```python\nfrom fastapi import FastAPI\n\napp = FastAPI()\n```\n";

/// The published outcome of the notebook that this product grew from.
fn notebook() -> Collected {
    let models = [
        ("Qwen/Qwen2.5-Coder-7B-Instruct", 53.1, 550, 10.3, 15.2, 4),
        ("Qwen/Qwen2.5-Coder-32B-Instruct", 25.5, 800, 31.4, 65.5, 5),
        ("Qwen/Qwen3-32B", 21.7, 4096, 189.1, 65.5, 2),
        ("Qwen/Qwen3-30B-A3B", 10.6, 4096, 385.8, 61.1, 3),
        ("Qwen/Qwen3-Coder-30B-A3B-Instruct", 10.3, 2275, 221.6, 61.1, 5),
    ];
    let mut text = String::from(
        "name = \"notebook\"\n[generation]\nruns = 1\n[[prompts]]\nid = \"vit\"\ntext = \"Serve it.\"\nrubric = \"python-service\"\n",
    );
    for model in &models {
        text.push_str(&format!("[[models]]\nid = \"{}\"\n", model.0));
    }
    let of = |name: &str| *models.iter().find(|m| m.0 == name).expect("one of the five");
    let mut collected = collected(sweep(&text), |name, _, _| {
        let (_, tok_per_s, tokens, time_s, memory_gb, _) = of(name);
        let finish = if tokens == 4096 { FinishReason::Length } else { FinishReason::Stop };
        Some(Made { output: GOOD.into(), tokens, tok_per_s, time_s, memory_gb, finish })
    });
    review_all(&mut collected, |name| of(name).5);
    collected
}

#[test]
fn the_notebooks_outcome_leads_to_its_conclusions() {
    let collected = notebook();
    let report = build(&collected, &crate::sizing::shipped_gpus());
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
    let single = report.warnings.iter().find(|w| w.kind == "single_run").expect("a warning");
    assert!(single.text.starts_with("Every model: a single run"), "{}", single.text);
    let truncated: Vec<_> =
        report.warnings.iter().filter(|w| w.kind == "truncated").map(|w| &w.text).collect();
    assert_eq!(truncated.len(), 2);
    assert!(truncated[0].starts_with("Qwen/Qwen3-32B:"));
    assert!(truncated[1].starts_with("Qwen/Qwen3-30B-A3B:"));
    let titles: Vec<_> = report.insights.iter().map(|i| i.title.as_str()).collect();
    assert_eq!(
        titles,
        [
            "Specialised or general",
            "Size costs speed",
            "Experts slower than dense",
            "Cut off by the limit"
        ]
    );
    // The notebook's last question: an L4 holds the 7B, at about 21 tokens a second.
    let l4 =
        report.variants[0].sizing.iter().find(|fit| fit.gpu == "L4").expect("in the data file");
    assert!(l4.fits && l4.decode_tok_s.map(f64::round) == Some(21.0));

    let documents = documents(&collected);
    // The matrix: stars, speed, whether it can be used as it is, best use.
    for row in [
        "| Qwen/Qwen2.5-Coder-7B-Instruct | 4.0 ★ | 53.1 | 1 of 1 | – | use of Qwen/Qwen2.5-Coder-7B-Instruct |",
        "| Qwen/Qwen2.5-Coder-32B-Instruct | 5.0 ★ | 25.5 | 1 of 1 | – | use of Qwen/Qwen2.5-Coder-32B-Instruct |",
        "| Qwen/Qwen3-32B | 2.0 ★ | 21.7 | 0 of 1 | – | use of Qwen/Qwen3-32B |",
        "| Qwen/Qwen3-30B-A3B | 3.0 ★ | 10.6 | 0 of 1 | – | use of Qwen/Qwen3-30B-A3B |",
        "| Qwen/Qwen3-Coder-30B-A3B-Instruct | 5.0 ★ | 10.3 | 1 of 1 | – | use of Qwen/Qwen3-Coder-30B-A3B-Instruct |",
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
    let attack = "</pre></script><script>alert(1)</script><img src=x onerror=alert(1)>\n```python\n# </pre><svg onload=alert(1)>\nx = \"<iframe src='https://x.example'>\"\n```\n{{ 7*7 }} [x](javascript:alert(1))";
    let text = "name = \"hostile\"\n[generation]\nruns = 1\n[[prompts]]\nid = \"p\"\ntext = \"<script>alert(2)</script>\"\n[[models]]\nid = \"builtin:tiny-qwen2\"\n";
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
    let text = "name = \"small\"\n[generation]\nruns = 1\n[[prompts]]\nid = \"p\"\ntext = \"x\"\n[[models]]\nid = \"builtin:tiny-qwen2\"\n";
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
    let kinds: Vec<_> = report.warnings.iter().map(|w| w.kind.as_str()).collect();
    assert!(kinds.contains(&"bad_reviews") && kinds.contains(&"bad_checks"), "{kinds:?}");
    assert!(documents(&one).markdown.contains("single run"));
}

#[test]
fn no_rank_where_the_difference_is_noise() {
    let text = "name = \"noise\"\n[generation]\nruns = 4\n[[prompts]]\nid = \"p\"\ntext = \"x\"\n[[models]]\nid = \"builtin:tiny-qwen2\"\n[[models]]\nid = \"builtin:tiny-qwen3\"\n";
    let speeds = [[30.0, 31.0, 29.0, 30.5], [30.4, 29.6, 31.0, 29.9]];
    let mut noisy = collected(sweep(text), |name, _, run| {
        let model = usize::from(name.ends_with("qwen3"));
        Some(Made { tok_per_s: speeds[model][run as usize - 1], ..Made::new(GOOD) })
    });
    review_all(&mut noisy, |_| 4);
    let report = build(&noisy, &[]);
    assert!(report.recommendations[0].variant.is_none());
    assert!(report.recommendations[0].because.contains("not significant"));
    assert!(report.variants[0].tok_per_s.is_some_and(|s| s.low.is_some()));
}

#[test]
fn a_hundred_long_cells_are_fast_and_small() {
    let text = "name = \"long\"\n[generation]\nruns = 50\n[[prompts]]\nid = \"p\"\ntext = \"x\"\nrubric = \"python-service\"\n[[models]]\nid = \"builtin:tiny-qwen2\"\n[[models]]\nid = \"builtin:tiny-qwen3\"\n";
    let unit = "    if file.content_type not in ALLOWED:\n        raise HTTPException(status_code=415, detail=f\"<{x}>\")\n";
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
        report.warnings.iter().any(|w| w.kind == "bad_reviews" && w.text.contains("no output"))
    );
    assert_eq!(report.measure, Measure::Evidence);
}

#[test]
fn two_sweeps_are_compared_pair_by_pair() {
    let text = "name = \"NAME\"\n[generation]\nruns = 4\n[[prompts]]\nid = \"p\"\ntext = \"x\"\n[[models]]\nid = \"builtin:tiny-qwen2\"\n";
    let of = |name: &str, factor: f64| {
        collected(sweep(&text.replace("NAME", name)), |_, _, run| {
            Some(Made { tok_per_s: (30.0 + f64::from(run)) * factor, ..Made::new(GOOD) })
        })
    };
    let none: &[String] = &[];
    let (a, same, slow) = (of("a", 1.0), of("same", 1.0), of("slow", 0.8));
    let equal = crate::compare::compare(&a, &same, none, 3.0).expect("alike");
    assert!(!equal.regressed() && equal.pairs == 4 && equal.missing.is_empty());
    let worse = crate::compare::compare(&a, &slow, none, 3.0).expect("alike");
    assert!(worse.regressed());
    let speed = worse.differences.iter().find(|d| d.metric == "tok/s").expect("measured");
    assert!((speed.change + 20.0).abs() < 1e-6);
    assert!(crate::compare::render(&worse).contains("**regression**"));
    assert!(!crate::compare::compare(&slow, &a, none, 3.0).expect("alike").regressed());

    let mut other = of("other", 1.0);
    for record in other.records.values_mut() {
        record.fingerprint.device = "NVIDIA L4".into();
    }
    let refused = crate::compare::compare(&a, &other, none, 3.0).expect_err("unlike").to_string();
    assert!(refused.contains("device") && refused.contains("--across device"), "{refused}");
    assert!(crate::compare::compare(&a, &other, &["device".to_owned()], 3.0).is_ok());
    let unknown = crate::compare::compare(&a, &other, &["devise".to_owned()], 3.0);
    assert!(unknown.expect_err("unknown").to_string().contains("devise"));
    let empty = collected(sweep(&text.replace("NAME", "empty")), |_, _, _| None);
    assert!(crate::compare::compare(&a, &empty, none, 3.0).is_err());
}

/// One request over a plain socket: status and body.
async fn request(
    address: std::net::SocketAddr,
    host: &str,
    head: &str,
    body: &str,
) -> (u16, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut socket = tokio::net::TcpStream::connect(address).await.expect("it listens");
    let text = format!(
        "{head} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(text.as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("it answers");
    let status = answer.get(9..12).and_then(|code| code.parse().ok()).expect("a status");
    (status, answer)
}

#[tokio::test]
async fn a_review_given_on_the_page_is_saved_and_reaches_the_matrix() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("reviews.toml");
    let mut collected = notebook();
    collected.reviews = None;
    let serve = |reviews: Reviews| {
        let (collected, path) = (std::sync::Arc::new(collected.clone()), path.clone());
        async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("an address");
            let page = review::web::Page::new(collected, reviews, "Ana".into(), path, address);
            let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
            let server = tokio::spawn(page.serve(listener, async {
                let _ = stopped.await;
            }));
            (address, stop, server)
        }
    };
    let mut reviews = Reviews { sweep: "notebook".into(), seed: 7, reviews: Vec::new() };
    review::add_blanks(&mut reviews, &collected, "Ana");
    let cell = collected.rows[0].cell.clone();
    let name = review::blind::name(7, &cell);
    let (address, stop, server) = serve(reviews).await;
    let host = address.to_string();

    let (status, page) = request(address, &host, &format!("GET /api/outputs/{name}"), "").await;
    assert_eq!(status, 200);
    assert!(page.contains("\"model\":null") && !page.contains("Qwen2.5-Coder-7B"), "blinded");
    let put = format!("PUT /api/reviews/{name}");
    let full = "{\"stars\":{\"correctness\":4,\"completeness\":4,\"robustness\":4,\"readability\":4,\"operations\":4}}";
    let (status, answer) = request(address, &host, &put, full).await;
    assert_eq!(status, 200);
    assert!(answer.contains("Qwen2.5-Coder-7B"), "the name is told once all stars are given");
    for bad in ["{\"stars\":{\"correctness\":6}}", "{\"stars\":{\"beauty\":3}}", "{"] {
        assert!(request(address, &host, &put, bad).await.0 >= 400, "{bad}");
    }
    assert_eq!(request(address, "evil.example", &put, full).await.0, 403);
    assert_eq!(request(address, &host, "PUT /api/reviews/nothing", full).await.0, 404);
    let _ = stop.send(());
    server.await.expect("no panic").expect("it served");

    // A restart goes on from the file, and the report takes it.
    let saved = std::fs::read_to_string(&path).expect("saved at once");
    let read = review::parse(&saved, "reviews.toml", &collected).expect("valid");
    let (address, stop, _server) = serve(read).await;
    let (_, list) = request(address, &address.to_string(), "GET /api/outputs", "").await;
    assert!(list.contains("\"given\":5"), "{list}");
    let _ = stop.send(());
    collected.reviews = Some(saved);
    let report = build(&collected, &[]);
    assert_eq!(report.variants[0].stars.map(|s| s.mean), Some(4.0));
}

#[tokio::test]
async fn pushes_of_two_reviewers_are_merged() {
    let store = object_store::memory::InMemory::new();
    let collected = notebook();
    let name = review::blind::name(7, &collected.rows[0].cell);
    let by = |reviewer: &str, stars: u8| Reviews {
        sweep: "notebook".into(),
        seed: 7,
        reviews: vec![Review {
            output: name.clone(),
            reviewer: reviewer.into(),
            stars: [("correctness".to_owned(), stars)].into(),
            ..Review::default()
        }],
    };
    let key = "notebook/reviews.toml";
    let push = async |reviews: &Reviews| review::push::push(&store, key, reviews, &collected).await;
    assert_eq!(push(&by("Ana", 3)).await.expect("created"), 1);
    assert_eq!(push(&by("Ben", 5)).await.expect("added"), 2);
    assert_eq!(push(&by("ana", 4)).await.expect("replaced"), 2);
    let other = Reviews { seed: 8, ..by("Cyd", 1) };
    assert!(push(&other).await.expect_err("another seed").to_string().contains("seed"));
}

#[test]
fn random_weights_and_mismatches_are_told_once_a_model() {
    let plan = sweep(
        "name = \"d\"\n[generation]\nruns = 3\n[engine]\nload_format = \"dummy\"\n[[prompts]]\nid = \"p\"\ntext = \"x\"\n[[models]]\nid = \"org/a\"\n",
    );
    let mut collected = collected(plan, |_, _, _| Some(Made::new(GOOD)));
    for record in collected.records.values_mut() {
        record.mismatches = vec![format!("weights: 1 bytes planned, {} bytes seen", record.run)];
    }
    let report = build(&collected, &crate::sizing::shipped_gpus());
    let of = |kind: &str| -> Vec<&str> {
        report.warnings.iter().filter(|w| w.kind == kind).map(|w| w.text.as_str()).collect()
    };
    assert_eq!(of("mismatch").len(), 1, "{:?}", of("mismatch"));
    assert!(of("mismatch")[0].starts_with("org/a: weights: 1 bytes planned, 1 bytes seen"));
    assert!(of("mismatch")[0].ends_with("(first of 3 cells)"));
    assert_eq!(of("dummy_weights").len(), 1);
    assert!(of("dummy_weights")[0].starts_with("org/a: random weights"));
    assert!(build(&notebook(), &[]).warnings.iter().all(|w| w.kind != "dummy_weights"));
}
