//! `report.html`.

use bakeoff_proto::FinishReason;
use serde_json::{Value, json};

use super::chromium::Page;
use super::common::Made;
use super::{FOREIGN, Stage, hostile, url};

/// Opens whatever is folded, so that all of the page is looked at.
const UNFOLD: &str = "document.querySelectorAll('details').forEach(d => d.open = true)";

/// Windows and paper that the pages must fit: medium, colours, width.
const VIEWS: [(&str, &str, u32); 5] = [
    ("screen", "light", 1280),
    ("screen", "dark", 1280),
    ("screen", "light", 700),
    ("screen", "dark", 360),
    // A4 across, less its margins.
    ("print", "light", 1032),
];

/// Nothing is cut off or inaccessible in any of these views.
fn looks_right(page: &mut Page, what: &str, views: &[(&str, &str, u32)]) {
    page.eval(UNFOLD);
    for (media, scheme, width) in views {
        page.media(media, scheme);
        page.size(*width, 900);
        let faults = page.layout_faults();
        assert!(faults.is_empty(), "{what}, {media} {scheme} {width}:\n{}", faults.join("\n"));
        if *width == 1280 {
            let faults = page.accessibility();
            assert!(faults.is_empty(), "{what}, {scheme}:\n{}", faults.join("\n"));
        }
    }
    page.media("screen", "light");
    page.size(1280, 900);
}

#[test]
fn the_demo_has_its_charts_and_the_page_asks_for_nothing() {
    let stage = Stage::new();
    // The real thing: three models on this machine's CPU.
    stage.must(&["run"]);
    let address = url(&stage.report("demo"));
    let mut page = Page::open();
    page.goto(&address);
    let charts = page.eval(
        "[...document.querySelectorAll('#charts figure')].map(f => [f.id, \
         f.querySelectorAll('svg rect,svg circle,svg path').length, \
         f.querySelector('svg[role=img] > title').textContent.length > 0])",
    );
    let charts: Vec<Value> = charts.as_array().expect("a list").clone();
    let ids: Vec<_> = charts.iter().map(|chart| chart[0].as_str().expect("an id")).collect();
    assert_eq!(
        ids,
        ["chart-speed", "chart-quality", "chart-latency", "chart-memory", "chart-timeline"]
    );
    for chart in &charts {
        assert!(chart[1].as_u64() >= Some(3) && chart[2] == json!(true), "{chart}");
    }
    // The first screen holds what is decided by.
    let seen = page.eval(
        "[...document.querySelectorAll('.card.pick .name, .card .sure, .card .rule')]\
         .every(e => e.getBoundingClientRect().bottom < innerHeight)",
    );
    assert_eq!(seen, json!(true));
    let light = page.eval("getComputedStyle(document.body).backgroundColor");
    looks_right(&mut page, "demo", &VIEWS);
    page.media("screen", "dark");
    assert_ne!(page.eval("getComputedStyle(document.body).backgroundColor"), light);
    assert_eq!(page.eval("document.scripts.length"), json!(0));
    assert_eq!(page.eval("document.documentElement.lang"), json!("en"));
    let paper = page.call("Page.printToPDF", json!({"preferCSSPageSize": true}));
    assert!(paper["data"].as_str().is_some_and(|pdf| pdf.starts_with("JVBERi")), "a PDF");
    assert_eq!(page.requests(), [address]);
    assert_eq!(page.complaints(), Vec::<String>::new());
}

#[tokio::test]
async fn long_names_many_models_and_every_warning_fit_the_page() {
    let stage = Stage::new();
    let mut text = String::from(
        "name = \"wide\"\n[generation]\nruns = 2\n[report]\nprice_per_gpu_hour = 2.99\n\
         [[prompts]]\nid = \"vit\"\ntext = \"Serve it.\"\nrubric = \"python-service\"\n",
    );
    for (id, label) in [
        ("Qwen/Qwen2.5-Coder-7B-Instruct", None),
        ("Qwen/Qwen2.5-Coder-32B-Instruct", None),
        ("Qwen/Qwen3-Coder-30B-A3B-Instruct", None),
        ("Qwen/Qwen3-30B-A3B", Some("a-label-of-someone-who-writes-everything-into-the-name_v2")),
    ] {
        text.push_str(&format!("[[models]]\nid = \"{id}\"\nrevision = \"{}\"\n", "a".repeat(40)));
        if let Some(label) = label {
            text.push_str(&format!("label = \"{label}\"\n"));
        }
    }
    let code = "```python\nfrom fastapi import FastAPI\n\napp = FastAPI()\n```\n";
    stage
        .store(&text, |model, cell| {
            let slow = model.contains("30B");
            Some(Made {
                tokens: 4096,
                tok_per_s: if slow { 10.0 } else { 53.0 } + f64::from(cell.run),
                time_s: if slow { 385.8 } else { 77.3 },
                memory_gb: 61.1,
                finish: if slow { FinishReason::Length } else { FinishReason::Stop },
                ..Made::new(code.repeat(3) + &"long_word".repeat(40))
            })
        })
        .await;
    let address = stage.collect("wide");
    let mut page = Page::open();
    page.goto(&address);
    looks_right(&mut page, "wide", &VIEWS);
    assert_eq!(page.complaints(), Vec::<String>::new());
}

#[tokio::test]
async fn odd_sweeps_have_a_sound_page() {
    let stage = Stage::new();
    let sweep = |name: &str| {
        format!(
            "name = \"{name}\"\n[generation]\nruns = 1\n[[prompts]]\nid = \"p\"\ntext = \
            \"x\"\n[[models]]\nid = \"builtin:tiny-qwen2\"\n"
        )
    };
    let garbage: String = (0..20_000u32)
        .filter_map(|i| char::from_u32(i.wrapping_mul(2_654_435_761) >> 12))
        .collect();
    let outputs = [
        ("empty", String::new()),
        ("garbage", garbage),
        ("line", "x = 1; ".repeat(30_000)),
        ("unclosed", "```python\ndef f(".to_owned()),
        ("nested", "````markdown\n```bash\nls\n```\n````\n```rust\nfn main() {}\n```\n".to_owned()),
    ];
    for (name, output) in &outputs {
        stage.store(&sweep(name), |_, _| Some(Made::new(output))).await;
    }
    stage.store(&sweep("failed"), |_, _| None).await;
    let mut page = Page::open();
    for name in outputs.iter().map(|(name, _)| *name).chain(["failed"]) {
        let address = stage.collect(name);
        page.goto(&address);
        looks_right(&mut page, name, &VIEWS[..1]);
        assert_eq!(page.complaints(), Vec::<String>::new(), "{name}");
        assert_eq!(page.requests(), [address], "{name}");
    }
    assert!(page.eval("document.body.textContent").as_str().unwrap().contains("<b>no"));
    // Without telemetry the timeline is not drawn, and nothing else is missing.
    std::fs::remove_dir_all(stage.path().join("results/line/telemetry")).expect("it was stored");
    page.goto(&stage.collect("line"));
    let ids = page.eval("[...document.querySelectorAll('#charts figure')].map(f => f.id)");
    assert!(!ids.to_string().contains("timeline") && ids.to_string().contains("speed"), "{ids}");
}

#[tokio::test]
async fn a_hostile_output_does_not_run() {
    let stage = Stage::new();
    let prompt = "<script>window.ran=1</script><img src=x onerror=window.ran=1>";
    let text = format!(
        "name = \"hostile\"\n[generation]\nruns = 2\n[[prompts]]\nid = \"p\"\ntext = \
        '''{prompt}'''\n[[models]]\nid = \"builtin:tiny-qwen2\"\n"
    );
    stage.store(&text, |_, cell| (cell.run == 1).then(|| Made::new(hostile()))).await;
    let address = stage.collect("hostile");
    let mut page = Page::open();
    page.goto(&address);
    page.eval(UNFOLD);
    assert!(page.eval("document.body.innerText").as_str().unwrap().contains("{{ 7 * 7 }}"));
    assert_eq!(page.eval(FOREIGN), json!([]));
    assert_eq!(page.eval("document.scripts.length"), json!(0));
    assert_eq!(page.eval("document.styleSheets.length"), json!(1));
    assert_eq!(page.eval("typeof window.ran"), json!("undefined"));
    assert_eq!(page.layout_faults(), Vec::<String>::new());
    assert_eq!(page.requests(), [address]);
    assert_eq!(page.complaints(), Vec::<String>::new());
}

/// Whatever the tests above look for, a page that has it is caught.
#[test]
fn what_the_tests_look_for_they_see() {
    let stage = Stage::new();
    let file = stage.path().join("bad.html");
    let html = "<!doctype html><html><head><title>t</title></head><body>\
        <p style=\"color:#999;background:#aaa\">pale</p><h1>a</h1><h4>b</h4>\
        <p style=\"width:2000px\">wide</p><p style=\"width:40px;overflow:hidden;white-space:nowrap\">cut off here</p>\
        <svg width=100 height=20><text x=0 y=10>one</text><text x=2 y=10>two</text><text x=90 y=10>outside</text></svg>\
        <img src=\"http://127.0.0.1:9/x.png\" \
        onerror=\"window.ran=1;console.error('x')\"></body></html>";
    std::fs::write(&file, html).expect("written");
    let mut page = Page::open();
    page.goto(&url(&file));
    page.wait_for("window.ran === 1");
    assert_eq!(page.eval(FOREIGN).as_array().map(Vec::len), Some(2), "the image, twice");
    assert_eq!(page.requests().len(), 2);
    assert!(page.complaints().len() >= 2, "a failed load and an error of the console");
    let layout = page.layout_faults().join("\n");
    for fault in [
        "the page is",
        "cut off: ",
        "out of the page: ",
        "out of the picture: ",
        "over each other: ",
    ] {
        assert!(layout.contains(fault), "{fault} not in\n{layout}");
    }
    let found = page.accessibility().join("\n");
    for rule in ["color-contrast", "html-has-lang", "heading-order", "image-alt"] {
        assert!(found.contains(rule), "{rule} not in\n{found}");
    }
}
