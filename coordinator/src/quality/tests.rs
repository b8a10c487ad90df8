use std::collections::BTreeMap;

use super::*;

#[derive(serde::Deserialize)]
struct Samples {
    positive: Vec<String>,
    negative: Vec<String>,
}

fn analyse(rubric: Option<&Compiled>, output: &str) -> Analysis {
    Analyser::new(rubric).analyse(output, "python", FinishReason::Stop)
}

/// Each item on hand-written samples; and each sample that proves it, turned into a comment and
/// into a string, must prove nothing.
fn check_samples(rubric: &str, samples: &str) {
    let compiled = Compiled::new(Rubric::shipped(rubric).expect("it ships")).expect("it compiles");
    let samples: BTreeMap<String, Samples> = toml::from_str(samples).expect("samples parse");
    let mut wrong = Vec::new();
    for item in &compiled.rubric.items {
        let sample = samples.get(&item.id).unwrap_or_else(|| panic!("no samples of {}", item.id));
        let (positive, negative) = (&sample.positive, &sample.negative);
        assert!(positive.len() >= 2 && negative.len() >= 3, "more samples of {}", item.id);
        let bare = positive.iter().filter(|text| !text.contains('`'));
        let hidden: Vec<String> = bare.flat_map(|text| [commented(text), quoted(text)]).collect();
        for (texts, expected) in [(positive, true), (negative, false), (&hidden, false)] {
            for text in texts {
                let output = if text.contains('`') {
                    text.clone()
                } else {
                    format!("```python\n{text}\n```\n")
                };
                let analysis = analyse(Some(&compiled), &output);
                let finding = analysis.findings.iter().find(|f| f.item == item.id).unwrap();
                if finding.evidence.is_empty() == expected {
                    wrong.push(format!("{}, expected {expected}:\n{text}", item.id));
                }
            }
        }
    }
    assert_eq!(samples.len(), compiled.rubric.items.len(), "samples of an unknown item");
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

fn commented(code: &str) -> String {
    code.lines().map(|line| format!("# {line}\n")).collect()
}

fn quoted(code: &str) -> String {
    let quote = if code.contains("\"\"\"") { "'''" } else { "\"\"\"" };
    assert!(!code.contains(quote), "both kinds of quotes in a sample: {code}");
    format!("text = {quote}\n{code}\n{quote}\n")
}

#[test]
fn the_service_rubric_tells_its_samples_apart() {
    check_samples("python-service", include_str!("rubrics/python-service.samples.toml"));
}

#[test]
fn the_code_rubric_tells_its_samples_apart() {
    check_samples("python-code", include_str!("rubrics/python-code.samples.toml"));
}

#[test]
fn the_function_rubric_tells_its_samples_apart() {
    check_samples("python-function", include_str!("rubrics/python-function.samples.toml"));
}

#[test]
fn evidence_names_the_line_of_the_output() {
    let compiled = Compiled::new(Rubric::shipped("python-service").unwrap()).unwrap();
    let output = "<think>\nlet me see\n</think>\nHere:\n\n```python\nimport x\napp = \
    FastAPI()\n```\n\nRun `uvicorn a:app`.\n";
    let analysis = analyse(Some(&compiled), output);
    let evidence =
        |id: &str| analysis.findings.iter().find(|f| f.item == id).unwrap().evidence.clone();
    assert_eq!(evidence("app"), [Evidence { line: 8, text: "app = FastAPI()".into() }]);
    assert_eq!(evidence("run")[0].line, 11);
    let line = output.lines().nth(7).unwrap();
    assert_eq!(line, "app = FastAPI()");
    assert_eq!((analysis.code_lines, analysis.prose_lines), (2, 2));
    assert!(analysis.complete && analysis.has_code && analysis.parses == Some(true));
}

#[test]
fn what_is_cut_off_is_reported_with_its_reason() {
    let reasons = |output: &str| analyse(None, output).incomplete_because.join("; ");
    assert_eq!(reasons("```python\nx = 1\n```"), "");
    assert!(reasons("```python\nx = 1\n").contains("not closed"));
    assert!(reasons("```python\ndef f(x):\n    return g(\n```").contains("cut off"));
    assert!(reasons("```python\nx = 1\n\ndef f(x):\n```").contains("cut off"));
    assert!(reasons("<think> and so on").contains("never ends"));
    assert!(reasons("  \n").contains("empty"));
    let analysis = Analyser::new(None).analyse("x", "python", FinishReason::Length);
    assert!(analysis.incomplete_because[0].contains("token limit"));
}

#[test]
fn odd_outputs_are_analysed_all_the_same() {
    let compiled = Compiled::new(Rubric::shipped("python-service").unwrap()).unwrap();
    let long_line = format!("```python\n{}\n```", "x = 1; ".repeat(30_000));
    let garbage: String = (0..20_000u32)
        .filter_map(|i| char::from_u32(i.wrapping_mul(2_654_435_761) % 0x11_0000))
        .collect();
    for output in
        ["", "\u{0}\u{1}\u{fffd}", &long_line, &garbage, "```", "~~~\n```\n", &"`".repeat(9)]
    {
        let analysis = analyse(Some(&compiled), output);
        let longest =
            analysis.findings.iter().flat_map(|f| &f.evidence).map(|e| e.text.len()).max();
        assert!(longest.unwrap_or(0) <= 4 * (EVIDENCE_CHARS + 1));
    }
    let rust = analyse(Some(&compiled), "```rust\nfn main() { let app = FastAPI(); }\n```");
    assert_eq!((rust.parses, rust.has_code, rust.coverage), (None, true, Some(0.0)));
    let bare = analyse(Some(&compiled), "import os\n\ndef f(x: int) -> int:\n    return x\n");
    assert!(bare.has_code && bare.parses == Some(true));
    assert!(!analyse(None, "I am sorry, I cannot do that.").has_code);
}

#[test]
fn code_inside_the_thinking_is_no_answer() {
    let analysis = analyse(None, "<think>\n```python\nx = 1\n```\n</think>\nNo.");
    assert!(!analysis.has_code && analysis.parses.is_none());
}

/// 1,000 outputs of 4,096 tokens (16 KB each) must take under 5 s on one core in release. An
/// unoptimised build is allowed its handicap, but not a change of the order of growth.
#[test]
fn a_thousand_long_outputs_take_seconds() {
    let compiled = Compiled::new(Rubric::shipped("python-service").unwrap()).unwrap();
    let unit = "@app.post(\"/predict\")\nasync def predict(file: UploadFile = File(...)) -> \
    Result:\n    \"\"\"Classify.\"\"\"\n    if file.content_type not in ALLOWED:\n        raise \
    HTTPException(status_code=415, detail=f\"no {file.content_type}\")\n    with \
    torch.inference_mode():\n        logits = model(**inputs.to(device)).logits  # scores\n    return Result(label=labels[int(logits.argmax())], score=0.5)\n\n";
    let body = unit.repeat(16_384 / unit.len() + 1);
    let output = format!("Here it is:\n\n```python\n{body}```\n\nRun `uvicorn main:app`.\n");
    let outputs = if cfg!(debug_assertions) { 100 } else { 1000 };
    let mut analyser = Analyser::new(Some(&compiled));
    let start = std::time::Instant::now();
    for _ in 0..outputs {
        let analysis = analyser.analyse(&output, "python", FinishReason::Stop);
        assert_eq!(analysis.parses, Some(true));
    }
    let elapsed = start.elapsed();
    println!("{outputs} outputs of {} bytes: {elapsed:?}", output.len());
    assert!(elapsed.as_secs_f64() < 5.0, "{outputs} outputs took {elapsed:?}");
}
