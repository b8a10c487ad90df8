use std::path::Path;

use bakeoff_model::{ModelSource, Thinking};

use super::*;

const SMALL: &str = r#"
name = "s"
[[prompts]]
id = "p"
text = "Write code."
[[models]]
id = "Qwen/Qwen3-32B"
"#;

fn read(text: &str) -> Result<Sweep, FileError> {
    parse(text, "sweep.toml", Path::new("/nowhere"))
}

fn message(text: &str) -> String {
    crate::error::chain(&read(text).expect_err("the sweep should be refused"))
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
    let report = |line: &str| format!("{SMALL}[report]\n{line}\n");
    let checks = |line: &str| format!("{SMALL}[checks]\n{line}\n");
    let cases = [
        // Keys and types.
        with("sumary = \"x.csv\""),
        generation("temprature = 0.7"),
        generation("zzz = 1"),
        model("revison = \"main\""),
        report("min_star = 3"),
        checks("cpu = 3"),
        generation("temperature = \"hot\""),
        generation("temperature = [0.2, 0.8]"),
        engine("tf32 = 1"),
        SMALL.replace("name = \"s\"", "name = 5"),
        SMALL.replace("name = \"s\"", "name = 2026-11-24"),
        SMALL.replace("name = \"s\"", ""),
        with("name = \"twice\""),
        "name = ".to_owned(),
        "name = \"s\"\n[prompts]\nid = \"p\"\n".to_owned(),
        with("generation = 5"),
        // Numbers and words.
        generation("temperature = -1"),
        generation("temperature = nan"),
        generation("top_p = 1.5"),
        generation("min_p = 1"),
        generation("top_k = -1"),
        generation("temperature = 6"),
        generation("repetition_penalty = 0"),
        generation("max_new_tokens = 0"),
        generation("max_new_tokens = 99999999"),
        generation("runs = -1"),
        generation("seed = -1"),
        generation("sampling = \"models\""),
        engine("dtype = \"fp16\""),
        engine("engine = \"fuse\""),
        engine("engine = 3"),
        engine("engine = []"),
        engine("engine = [\"fused\", \"fused\"]"),
        engine("load_format = \"gguf\""),
        engine("max_memory_gb = 0"),
        queue("cells_per_job = \"some\""),
        queue("cells_per_job = 0"),
        queue("gpu_class = \"**\""),
        report("min_stars = 9"),
        report("min_pass_rate = 2"),
        report("margin_pct = 100"),
        report("price_per_gpu_hour = 0"),
        report("currency = \"$\""),
        report("target_gpu = \"h10\""),
        report("target_gpu = \"mainframe\""),
        checks("cpu_s = 0"),
        checks("python = \"python3\""),
        checks("command = \" \""),
        checks("test_file = \"missing.py\""),
        // Models.
        model("[[models]]\nid = \"Qwen/Qwen3-32B\""),
        model("[[models]]\nid = \"a/b\"\nlabel = \"Qwen/Qwen3-32B\""),
        model("[[models]]\nid = \"../../etc\""),
        model("[[models]]\nid = \"builtin:tiny-qwen\""),
        model("[[models]]\nid = \"builtin:zzz\""),
        model("[[models]]\nformat = \"auto\""),
        model("[[models]]\nformat = \"chat\"\nid = \"a/b\""),
        model("[[models]]\nthinking = \"yes\"\nid = \"a/b\""),
        model("[[models]]\npath = \"\""),
        model("[[models]]\nid = \"a/b\"\npath = \"/m\""),
        model("[[models]]\npath = \"/m\"\nrevision = \"main\""),
        model("[[models]]\nid = \"a/b\"\nrevision = \"a b\""),
        model("[[models]]\nid = \"a/b\"\n[models.generation]\nruns = 2"),
        "name = \"s\"\n[[prompts]]\nid = \"p\"\ntext = \"x\"\n".to_owned(),
        // Prompts.
        model("[[prompts]]\nid = \"p\"\ntext = \"again\""),
        model("[[prompts]]\nid = \"a b\"\ntext = \"x\""),
        model("[[prompts]]\nid = \"q\"\ntext = \"  \""),
        model("[[prompts]]\nid = \"q\"\nfile = \"missing.txt\""),
        model("[[prompts]]\nid = \"q\"\nsuite = \"missing.jsonl\""),
        model("[[prompts]]\nid = \"q\""),
        model("[[prompts]]\nid = \"q\"\ntext = \"x\"\nfile = \"y\""),
        model("[[prompts]]\nid = \"q\"\ntext = \"x\"\nsuite = \"y\""),
        model("[[prompts]]\nid = \"q\"\nfile = \"x\"\nsuite = \"y\""),
        model("[[prompts]]\nid = \"q\"\ntext = \"x\"\ninstruction = \"y\""),
        model("[[prompts]]\nid = \"q\"\ntext = \"x\"\nrubric = \"python-servise\""),
        model("[[prompts]]\nid = \"q\"\ntext = \"x\"\nrubric = \"zzz\""),
        model("[[prompts]]\nid = \"q\"\ntext = \"x\"\nrubric = \"missing.toml\""),
        "name = \"s\"\n[[models]]\nid = \"a/b\"\n".to_owned(),
        // The whole sweep.
        SMALL.replace("\"s\"", "\"../s\""),
        SMALL.replace("\"s\"", "\"\""),
        SMALL.replace("\"s\"", &format!("\"{}\"", "n".repeat(129))),
        with("summary = \"../x.csv\""),
        with("summary = \"sweep.json\""),
        generation("runs = 10000")
            + &(0..10)
                .map(|n| format!("[[prompts]]\nid = \"p{n}\"\ntext = \"x\"\n"))
                .collect::<String>(),
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

/// Whoever adds a key describes it: the JSON Schema is what editors and the reference are made
/// from.
#[test]
fn every_key_of_the_sweep_file_is_described() {
    fn walk(path: &str, schema: &serde_json::Value, missing: &mut Vec<String>) {
        for (key, value) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{key}");
            if value.get("description").is_none() {
                missing.push(path);
            }
        }
    }
    let schema = serde_json::to_value(schemars::schema_for!(SweepFile)).expect("a schema");
    let mut missing = Vec::new();
    walk("", &schema, &mut missing);
    let tables = schema["$defs"].as_object().expect("tables");
    for (name, table) in tables {
        walk(name, table, &mut missing);
        let strict = table.get("properties").is_none() || table["additionalProperties"] == false;
        assert!(strict || name == "ReportRules", "{name} would take unknown keys");
    }
    assert_eq!(missing, Vec::<String>::new());
    assert_eq!(tables["GenerationSection"]["properties"]["temperature"]["default"], 0.7);
    assert_eq!(tables["ReportRules"]["properties"]["min_stars"]["maximum"], 5.0);
}
