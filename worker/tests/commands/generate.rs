//! What `worker generate` prints.

use std::fs;
use std::process::Stdio;

use serde_json::Value;

use crate::models::{golden_json, numbered, toy, words};
use crate::{Ran, path, ran, worker};

const TINY: [&str; 4] = ["--model", "builtin:tiny-qwen3", "--dtype", "f32"];

fn generate(args: &[&str]) -> Ran {
    let ran = ran(&mut worker(&[&["generate"], args].concat()));
    assert_eq!(ran.code, Some(0), "{args:?}: {}", ran.stderr);
    ran
}

fn answer(args: &[&str]) -> Value {
    let ran = generate(&[args, &["--json"]].concat());
    serde_json::from_str(&ran.stdout).expect("one JSON object")
}

fn tiny(args: &[&str]) -> Value {
    answer(&[&TINY, args].concat())
}

#[test]
fn the_text_goes_to_stdout_and_the_figures_to_stderr() {
    let args = ["--prompt", "Reverse a list.", "--greedy", "--max-new-tokens", "40"];
    let printed = generate(&[&TINY[..], &args].concat());
    let answer = tiny(&args);
    assert_eq!(printed.stdout, format!("{}\n", answer["text"].as_str().expect("a text")));
    let tokens = answer["metrics"]["tokens_generated"].as_u64().expect("a count");
    for figure in [&format!(", {tokens} tokens (")[..], " tok/s; first token ", "loaded in "] {
        assert!(printed.stderr.contains(figure), "{}", printed.stderr);
    }
}

#[test]
fn the_json_holds_what_it_promises_and_nothing_else() {
    let answer = tiny(&["--prompt", "x", "--max-new-tokens", "8"]);
    let keys: Vec<&String> = answer.as_object().expect("an object").keys().collect();
    let promised =
        ["rendered_prompt", "prompt_token_ids", "token_ids", "text", "finish_reason", "metrics"];
    assert_eq!(keys, promised);
    let metrics = &answer["metrics"];
    let length = |field: &str| answer[field].as_array().expect("a list").len() as u64;
    assert_eq!(metrics["tokens_generated"].as_u64(), Some(length("token_ids")));
    assert_eq!(metrics["prompt_tokens"].as_u64(), Some(length("prompt_token_ids")));
    for figure in
        ["tok_per_s", "ttft_ms", "decode_tok_s", "roofline_pct", "load_s", "model_memory_gb"]
    {
        assert!(metrics[figure].as_f64().is_some_and(|value| value > 0.0), "{figure}: {metrics}");
    }
    assert!(metrics["gpu_free_gb"].is_null());
}

#[test]
fn greedy_tokens_are_those_of_transformers_with_the_checkpoints_own_settings() {
    for case in [
        "qwen2-eos-list",
        "qwen2-yarn",
        "qwen3-repetition",
        "qwen3-tied-sharded",
        "qwen3-moe",
        "llama",
    ] {
        let (folder, golden) = (numbered(case), golden_json(case));
        let prompt = words(&golden["short_ids"]);
        let answer = answer(&[
            "--model",
            path(folder.path()),
            "--prompt",
            &prompt,
            "--raw-prompt",
            "--greedy",
            "--sampling",
            "model",
            "--dtype",
            "f32",
            "--max-new-tokens",
            "64",
        ]);
        let expected = &golden["greedy_generation_config"]["tokens"];
        assert_eq!(answer["prompt_token_ids"], golden["short_ids"], "{case}");
        assert_eq!(&answer["token_ids"], expected, "{case}");
        let stopped = expected.as_array().expect("tokens").len() < 64;
        assert_eq!(answer["finish_reason"], if stopped { "stop" } else { "length" }, "{case}");
    }
}

#[test]
fn the_stock_engine_and_bf16_are_there_too() {
    let (folder, golden) = (numbered("qwen2"), golden_json("qwen2"));
    let prompt = words(&golden["short_ids"]);
    let args = [
        "--model",
        path(folder.path()),
        "--prompt",
        &prompt,
        "--raw-prompt",
        "--greedy",
        "--max-new-tokens",
        "64",
    ];
    let stock = answer(&[&args[..], &["--engine", "stock", "--dtype", "f32"]].concat());
    assert_eq!(stock["token_ids"], golden["greedy_generation_config"]["tokens"]);
    let memory = |answer: &Value| answer["metrics"]["model_memory_gb"].as_f64().expect("a figure");
    let narrow = answer(&args);
    assert!((memory(&stock) / memory(&narrow) - 2.0).abs() < 0.01, "BF16 is the default");
}

#[test]
fn a_seed_gives_the_same_text_again_and_another_seed_another() {
    let sampled = |seed| {
        let args = [
            "--prompt",
            "Sort a list of words.",
            "--temperature",
            "1.5",
            "--top-p",
            "1",
            "--seed",
            seed,
        ];
        tiny(&[&args[..], &["--max-new-tokens", "48"]].concat())["token_ids"].clone()
    };
    assert_eq!(sampled("1"), sampled("1"));
    assert_ne!(sampled("1"), sampled("2"));
    let greedy = |args: &[&str]| {
        let asked = ["--prompt", "Sort a list of words.", "--max-new-tokens", "48"];
        tiny(&[&asked[..], args].concat())["token_ids"].clone()
    };
    let first = greedy(&["--greedy", "--seed", "1"]);
    assert_eq!(first, greedy(&["--greedy", "--seed", "2"]));
    assert_eq!(first, greedy(&["--temperature", "0"]), "no temperature is greedy");
    assert_eq!(first, greedy(&["--top-k", "1"]), "one candidate leaves no choice");
}

#[test]
fn a_prompt_file_is_used_byte_for_byte() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("prompt");
    for text in [
        "one\r\ntwo\r\n\n",
        "  \ttabs and spaces  \n",
        "no newline at the end",
        "\u{feff}größer — 日本語\n",
    ] {
        fs::write(&file, text).expect("a file");
        let raw = tiny(&["--prompt-file", path(&file), "--raw-prompt", "--max-new-tokens", "1"]);
        assert_eq!(raw["rendered_prompt"], text);
        let chat = tiny(&["--prompt-file", path(&file), "--max-new-tokens", "1"]);
        let turn = format!("<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n");
        assert_eq!(chat["rendered_prompt"], turn);
    }
}

#[test]
fn system_message_and_thinking_reach_the_template() {
    let system = tiny(&["--prompt", "Hi", "--system", "Be brief.", "--max-new-tokens", "1"]);
    let start = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n";
    assert!(system["rendered_prompt"].as_str().expect("a text").starts_with(start));

    let thinker = toy("{{ messages[-1].content }}{% if enable_thinking is defined %}\
                       {{ ' on' if enable_thinking else ' off' }}{% endif %}");
    let rendered = |args: &[&str]| {
        let asked = ["--model", path(thinker.path()), "--prompt", "Hi", "--max-new-tokens", "1"];
        answer(&[&asked[..], args].concat())["rendered_prompt"].clone()
    };
    assert_eq!(rendered(&["--thinking", "on"]), "Hi on");
    assert_eq!(rendered(&["--thinking", "off"]), "Hi off");
    assert_eq!(rendered(&[]), "Hi");
}

#[test]
fn dummy_weights_need_no_weights() {
    let folder = numbered("qwen3-moe");
    fs::remove_file(folder.path().join("model.safetensors")).expect("removed");
    let args =
        ["--model", path(folder.path()), "--prompt", "1 2 3", "--greedy", "--load-format", "dummy"];
    let run = || answer(&[&args[..], &["--max-new-tokens", "12"]].concat())["token_ids"].clone();
    let tokens = run();
    assert_eq!(tokens, run());
    assert!(!tokens.as_array().expect("tokens").is_empty());
}

#[test]
fn without_a_limit_the_context_is_the_limit() {
    // The first example of the help text: this model's context is shorter than the usual 4096
    // tokens.
    let args = ["--model", "builtin:tiny-qwen3", "--prompt", "def is_palindrome(text):"];
    assert!(!generate(&args).stdout.is_empty());
    let (folder, ids) = (numbered("qwen2"), words(&golden_json("qwen2")["short_ids"]));
    let answer = answer(&[
        "--model",
        path(folder.path()),
        "--prompt",
        &ids,
        "--greedy",
        "--sampling",
        "model",
    ]);
    let metrics = &answer["metrics"];
    let tokens = |field: &str| metrics[field].as_u64().expect("a count");
    assert_eq!(answer["finish_reason"], "length");
    assert_eq!(tokens("prompt_tokens") + tokens("tokens_generated"), 1024);
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    for json in [&[][..], &["--json"]] {
        let args =
            [&["generate", "--prompt", "x", "--max-new-tokens", "60"], &TINY[..], json].concat();
        let mut child = worker(&args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the worker starts");
        drop(child.stdout.take());
        let ended = child.wait_with_output().expect("it ends");
        let stderr = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success() && !stderr.contains("panicked"), "{stderr}");
    }
}
