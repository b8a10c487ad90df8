use std::path::Path;

use super::*;

const SMALL: &str = r#"
name = "s"
[[prompts]]
id = "p"
text = "Write code."
[[models]]
id = "Qwen/Qwen3-32B"
"#;

fn read(text: &str) -> Result<Sweep, SweepError> {
    parse(text, "sweep.toml", Path::new("/nowhere"))
}

fn message(text: &str) -> String {
    read(text).expect_err("the sweep should be refused").to_string()
}

#[test]
fn defaults_are_filled_in() {
    let sweep = read(SMALL).unwrap();
    assert_eq!(sweep.summary, "s_summary.csv");
    assert_eq!(sweep.runs, 3);
    assert_eq!(sweep.cells_per_job, None);
    let model = &sweep.models[0];
    assert_eq!(model.generation.temperature, Some(0.7));
    assert_eq!(model.generation.top_p, Some(0.9));
    assert_eq!(model.generation.max_new_tokens, 4096);
    assert_eq!(model.engines, [EngineSettings::default()]);
    assert_eq!(model.gpu_class, "any");
    assert_eq!(
        model.source,
        ModelSource::Hub { id: "Qwen/Qwen3-32B".into(), revision: "main".into() }
    );
}

#[test]
fn the_demo_is_three_models_by_two_prompts_by_two_runs() {
    let sweep = demo();
    assert_eq!((sweep.models.len(), sweep.prompts.len(), sweep.runs), (3, 2, 2));
    assert_eq!(sweep.cell_count(), 12);
}

#[test]
fn overrides_apply_to_one_model_only() {
    let sweep = read(
        r#"
name = "s"
[generation]
temperature = 0.5
[engine]
engine = ["fused", "stock"]
[[prompts]]
id = "p"
text = "x"
[[models]]
id = "a/b"
[[models]]
id = "a/c"
thinking = false
gpu_class = "NVIDIA H100 80GB HBM3"
[models.generation]
greedy = true
max_new_tokens = 7
[models.engine]
dtype = "f32"
[[models]]
id = "a/d"
generation = { sampling = "model", top_p = 1 }
engine = { engine = "reference" }
"#,
    )
    .unwrap();
    let [first, second, third] = sweep.models.as_slice() else { panic!("three models") };
    assert_eq!(first.generation.temperature, Some(0.5));
    assert_eq!(first.engines.len(), 2);
    assert_eq!(second.generation.temperature, None, "greedy ignores the temperature");
    assert_eq!(second.generation.max_new_tokens, 7);
    assert_eq!(second.thinking, Thinking::Off);
    assert_eq!(second.gpu_class, "nvidia-h100-80gb-hbm3");
    assert!(second.engines.iter().all(|e| e.dtype == bakeoff_model::Dtype::F32));
    assert_eq!(second.engines.len(), 2);
    assert_eq!(third.engines.len(), 1);
    assert_eq!(third.generation.top_p, Some(1.0));
    assert_eq!(third.generation.top_k, None, "left to the model's generation_config.json");
}

/// Every bad sweep with the message a person gets.
#[test]
fn bad_sweeps_are_refused_with_the_line_the_value_and_the_next_step() {
    let with = |line: &str| format!("{line}\n{SMALL}");
    let generation =
        |line: &str| SMALL.replace("[[prompts]]", &format!("[generation]\n{line}\n[[prompts]]"));
    let engine =
        |line: &str| SMALL.replace("[[prompts]]", &format!("[engine]\n{line}\n[[prompts]]"));
    let queue = |line: &str| SMALL.replace("[[prompts]]", &format!("[queue]\n{line}\n[[prompts]]"));
    let model = |line: &str| format!("{SMALL}{line}\n");
    let cases = [
        with("sumary = \"x.csv\""),
        generation("temprature = 0.7"),
        generation("zzz = 1"),
        generation("temperature = 0"),
        generation("temperature = \"hot\""),
        generation("top_p = 1.5"),
        generation("max_new_tokens = 0"),
        generation("max_new_tokens = 99999999"),
        generation("runs = -1"),
        generation("temperature = nan"),
        engine("dtype = \"fp16\""),
        engine("engine = \"fuse\""),
        engine("engine = [\"fused\", \"fused\"]"),
        engine("tf32 = 1"),
        queue("cells_per_job = \"some\""),
        queue("gpu_class = \"**\""),
        model("revison = \"main\""),
        model("[[models]]\nid = \"Qwen/Qwen3-32B\""),
        model("[[models]]\nid = \"../../etc\""),
        model("[[models]]\nid = \"builtin:tiny-qwen\""),
        model("[[models]]\nformat = \"auto\""),
        model("[[models]]\npath = \"/m\"\nrevision = \"main\""),
        model("[[prompts]]\nid = \"p\"\ntext = \"again\""),
        model("[[prompts]]\nid = \"a b\"\ntext = \"x\""),
        model("[[prompts]]\nid = \"q\"\ntext = \"  \""),
        model("[[prompts]]\nid = \"q\"\nfile = \"missing.txt\""),
        model("[[prompts]]\nid = \"q\""),
        SMALL.replace("\"s\"", "\"../s\""),
        SMALL.replace("\"s\"", "\"\""),
        SMALL.replace("\"s\"", &format!("\"{}\"", "n".repeat(129))),
        SMALL.replace("name = \"s\"", "name = 5"),
        SMALL.replace("name = \"s\"", ""),
        with("summary = \"../x.csv\""),
        with("name = \"twice\""),
        "name = \"s\"\n[[models]]\nid = \"a/b\"\n".to_owned(),
        "name = \"s\"\n[[prompts]]\nid = \"p\"\ntext = \"x\"\n".to_owned(),
        "name = ".to_owned(),
    ];
    let messages: Vec<_> = cases.iter().map(|case| message(case)).collect();
    insta::assert_snapshot!(messages.join("\n"));
}

#[test]
fn a_prompt_file_is_taken_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let body = "line one\r\n\tline two  \n\n";
    std::fs::write(folder.path().join("p.txt"), body).unwrap();
    let text = SMALL.replace("text = \"Write code.\"", "file = \"p.txt\"");
    let sweep = parse(&text, "sweep.toml", folder.path()).unwrap();
    assert_eq!(sweep.prompts[0].text, body);

    std::fs::write(folder.path().join("p.txt"), [0xff, 0xfe]).unwrap();
    let error = parse(&text, "sweep.toml", folder.path()).unwrap_err().to_string();
    assert!(error.contains("not UTF-8"), "{error}");
}
