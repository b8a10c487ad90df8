//! The real Qwen3 tokenizer and template against what transformers made of them, and every bad file a
//! model may come with.

use std::io::Read;
use std::path::PathBuf;

use bakeoff_engine::format::tokenizer::{TextTokenizer, TokenizerConfig};
use bakeoff_engine::format::{Formatter, Prompt};
use bakeoff_engine::source::{ModelFiles, WeightFiles};
use bakeoff_model::{Format, Thinking};
use bakeoff_proto::{FailureKind, FinishReason};
use proptest::prelude::*;

fn goldens(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("goldens").join(path)
}

fn qwen3_files() -> ModelFiles {
    let packed =
        std::fs::File::open(goldens("tokenizers/qwen3/tokenizer.json.gz")).expect("golden");
    let mut tokenizer = Vec::new();
    flate2::read::GzDecoder::new(packed).read_to_end(&mut tokenizer).expect("gzip");
    let config = std::fs::read(goldens("tokenizers/qwen3/tokenizer_config.json")).expect("golden");
    ModelFiles {
        id: "Qwen/Qwen3-32B".to_owned(),
        revision: None,
        config: br#"{"eos_token_id": 151645}"#.to_vec(),
        generation_config: Some(br#"{"eos_token_id": [151645, 151643]}"#.to_vec()),
        tokenizer: Some(tokenizer),
        tokenizer_config: Some(config),
        chat_template: None,
        weights: WeightFiles::Absent,
        download_s: None,
    }
}

fn formatter(files: &ModelFiles, format: Format, thinking: Thinking) -> Formatter {
    Formatter::new(files, format, thinking).expect("a formatter")
}

/// Loading takes seconds: one tokenizer serves all tests of this file.
fn qwen3() -> &'static Formatter {
    static FORMATTER: std::sync::LazyLock<Formatter> =
        std::sync::LazyLock::new(|| formatter(&qwen3_files(), Format::Auto, Thinking::Auto));
    &FORMATTER
}

fn golden_json() -> serde_json::Value {
    let text = std::fs::read(goldens("templates/qwen3.json")).expect("golden");
    serde_json::from_slice(&text).expect("JSON")
}

fn ids(value: &serde_json::Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).expect("ids")
}

#[test]
fn prompts_and_ids_are_those_of_transformers() {
    let files = qwen3_files();
    let golden = golden_json();
    let mut compared = 0;
    for chat in golden["chats"].as_array().expect("chats") {
        let options = chat["options"].as_object().expect("options");
        let messages = chat["messages"].as_array().expect("messages");
        let content = |role: &str| {
            let found = messages.iter().find(|m| m["role"] == role)?;
            found["content"].as_str()
        };
        // A sweep's prompt is one user message, with a system message or without.
        let one_turn = messages.len() == 1 || messages.len() == 2 && content("system").is_some();
        if !one_turn || options.get("add_generation_prompt") != Some(&true.into()) {
            continue;
        }
        let thinking = match options.get("enable_thinking").and_then(|flag| flag.as_bool()) {
            Some(true) => Thinking::On,
            Some(false) => Thinking::Off,
            None => Thinking::Auto,
        };
        let ours = formatter(&files, Format::Instruct, thinking);
        let prompt = Prompt {
            text: content("user").expect("a user message"),
            system: content("system"),
            code_hint: Some("never used with a template"),
        };
        let rendered = ours.render(&prompt).expect("rendered");
        assert_eq!(rendered.text, chat["prompt"].as_str().expect("prompt"), "{}", chat["name"]);
        assert_eq!(rendered.ids, ids(&chat["ids"]), "{}", chat["name"]);
        compared += 1;
    }
    assert!(compared >= 9, "only {compared} conversations compared");
}

#[test]
fn decoding_is_that_of_transformers_and_streams_alike() {
    for chat in golden_json()["chats"].as_array().expect("chats") {
        let ids = ids(&chat["ids"]);
        let expected = chat["decoded"].as_str().expect("decoded");
        assert_eq!(qwen3().decode(&ids), expected, "{}", chat["name"]);
        let mut stream = qwen3().stream();
        let mut text: String = ids.iter().map(|id| stream.push(*id)).collect();
        text.push_str(&stream.finish());
        assert_eq!(text, expected, "{}", chat["name"]);
    }
}

#[test]
fn plain_texts_become_the_ids_of_transformers_and_come_back() {
    let base = formatter(&qwen3_files(), Format::Base, Thinking::Auto);
    for case in golden_json()["texts"].as_array().expect("texts") {
        let text = case["text"].as_str().expect("text");
        let prompt = Prompt { text, system: Some("no place for it"), code_hint: None };
        assert_eq!(base.render(&prompt).expect("rendered").ids, ids(&case["ids"]), "{text:?}");
    }
}

#[test]
fn stop_ids_and_digests_are_told() {
    assert_eq!(qwen3().stop_ids(), [151_643, 151_645]);
    assert_eq!(qwen3().tokenizer_sha256().len(), 64);
    assert_eq!(qwen3().template_sha256().len(), 64);
    let base = formatter(&qwen3_files(), Format::Base, Thinking::Auto);
    assert_eq!(base.template_sha256(), "");
}

#[test]
fn thinking_resolves_to_what_the_template_does() {
    let mut files = qwen3_files();
    assert_eq!(qwen3().thinking(), Thinking::On);
    assert_eq!(formatter(&files, Format::Auto, Thinking::Off).thinking(), Thinking::Off);
    assert_eq!(formatter(&files, Format::Base, Thinking::Off).thinking(), Thinking::Auto);
    files.chat_template = Some("{{ messages[0].content }}".to_owned());
    assert_eq!(formatter(&files, Format::Auto, Thinking::Off).thinking(), Thinking::Auto);
}

#[test]
fn auto_takes_the_template_then_the_name() {
    let mut files = qwen3_files();
    assert_eq!(qwen3().format(), Format::Instruct);
    files.chat_template = None;
    files.tokenizer_config = None;
    for (id, format) in [
        ("Qwen/Qwen2.5-Coder-7B", Format::Code),
        ("bigcode/starcoder2-3b", Format::Code),
        ("Qwen/Qwen3-8B-Base", Format::Base),
        ("/home/code/models/llama", Format::Base),
        ("./models/My-Code-Model/", Format::Code),
    ] {
        files.id = id.to_owned();
        assert_eq!(formatter(&files, Format::Auto, Thinking::Auto).format(), format, "{id}");
    }
}

#[test]
fn a_code_model_gets_the_hint_on_a_line_of_its_own() {
    let code = formatter(&qwen3_files(), Format::Code, Thinking::Auto);
    let prompt = Prompt { text: "def f():", system: None, code_hint: Some("# Language: Python") };
    assert_eq!(code.render(&prompt).expect("rendered").text, "# Language: Python\ndef f():");
    let broken = Prompt { code_hint: Some("# Python\n"), ..prompt };
    assert_eq!(code.render(&broken).expect("rendered").text, "# Python\ndef f():");
}

#[test]
fn a_template_file_wins_over_the_configuration_and_a_list_gives_its_default() {
    let mut files = qwen3_files();
    files.tokenizer_config = Some(
        br#"{"eos_token": {"content": "<|im_end|>"}, "chat_template": [
            {"name": "tool_use", "template": "tools"},
            {"name": "default", "template": "{{ messages[0].content }}{{ eos_token }}"}]}"#
            .to_vec(),
    );
    let prompt = Prompt { text: "hi", ..Prompt::default() };
    let listed = formatter(&files, Format::Auto, Thinking::Auto);
    assert_eq!(listed.render(&prompt).expect("rendered").text, "hi<|im_end|>");
    files.chat_template = Some("file: {{ messages[0].content }}".to_owned());
    let file = formatter(&files, Format::Auto, Thinking::Auto);
    assert_eq!(file.render(&prompt).expect("rendered").text, "file: hi");
}

/// The error of a model whose files were spoiled.
fn error_of(spoil: impl FnOnce(&mut ModelFiles), format: Format) -> bakeoff_engine::EngineError {
    let mut files = qwen3_files();
    spoil(&mut files);
    let prompt = Prompt { text: "hi", ..Prompt::default() };
    Formatter::new(&files, format, Thinking::Auto)
        .and_then(|formatter| formatter.render(&prompt))
        .expect_err("must fail")
}

#[test]
fn bad_tokenizers_are_named() {
    let missing = error_of(|files| files.tokenizer = None, Format::Auto);
    assert_eq!(missing.kind, FailureKind::BadTokenizer);
    assert!(missing.message.contains("Qwen/Qwen3-32B has no tokenizer.json"), "{missing}");
    assert!(missing.message.contains("save_pretrained"), "{missing}");
    let cut =
        error_of(|files| files.tokenizer.as_mut().expect("some").truncate(5000), Format::Auto);
    assert_eq!(cut.kind, FailureKind::BadTokenizer);
    assert!(cut.message.contains("tokenizer.json of Qwen/Qwen3-32B"), "{cut}");
    let config = error_of(|files| files.tokenizer_config = Some(b"[1]".to_vec()), Format::Auto);
    assert_eq!(config.kind, FailureKind::BadTokenizer);
    assert!(config.message.contains("tokenizer_config.json of Qwen/Qwen3-32B"), "{config}");
}

#[test]
fn bad_templates_are_named_with_the_way_out() {
    let cases = [
        ("{% if %}", "does not parse"),
        ("{{ raise_exception('only tools please') }}", "only tools please"),
        (
            "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
            "loops",
        ),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
        (
            "{% set ns = namespace(x='x') %}{% for i in range(100) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
            "loops",
        ),
        ("{% for i in range(90000) %}{{ 'y' * 1000 }}{% endfor %}", "loops"),
        ("{{ messages | nosuchfilter }}", "nosuchfilter"),
    ];
    for (template, reason) in cases {
        let started = std::time::Instant::now();
        let error = error_of(|files| files.chat_template = Some(template.to_owned()), Format::Auto);
        assert_eq!(error.kind, FailureKind::BadTemplate, "{template}");
        assert!(error.message.contains("chat template of Qwen/Qwen3-32B"), "{error}");
        assert!(error.message.contains(reason), "{template}: {error}");
        assert!(error.message.contains("format = \"base\""), "{error}");
        assert!(started.elapsed().as_secs() < 30, "{template} took {:?}", started.elapsed());
    }
    let none = error_of(|files| files.tokenizer_config = None, Format::Instruct);
    assert_eq!(none.kind, FailureKind::BadTemplate);
    assert!(none.message.contains("has no chat template"), "{none}");
}

#[test]
fn a_malformed_generation_config_is_named() {
    let error = error_of(|files| files.generation_config = Some(b"{".to_vec()), Format::Auto);
    assert_eq!(error.kind, FailureKind::BadConfig);
    assert!(error.message.contains("generation_config.json of Qwen/Qwen3-32B"), "{error}");
}

fn tokens(text: &str) -> Vec<u32> {
    let files = qwen3_files();
    let config = TokenizerConfig::parse("m", files.tokenizer_config.as_deref().expect("some"));
    let config = config.expect("a configuration");
    static TOKENIZER: std::sync::OnceLock<TextTokenizer> = std::sync::OnceLock::new();
    let tokenizer = TOKENIZER.get_or_init(|| {
        TextTokenizer::load("m", files.tokenizer.as_deref(), &config).expect("a tokenizer")
    });
    tokenizer.encode(text, false).expect("ids")
}

#[test]
fn thinking_and_answer_are_told_apart_token_by_token() {
    let rendered = qwen3().render(&Prompt { text: "hi", ..Prompt::default() }).expect("rendered");
    assert!(!rendered.opens_thinking);
    let facts = |text: &str, reason| qwen3().output_facts(&rendered, &tokens(text), reason);

    let thought = "<think>\nlet me see\n```python\nx\n```\n</think>";
    let answer = "\n\n```python\nprint(1)\n```<|im_end|>";
    let whole = facts(&format!("{thought}{answer}"), FinishReason::Stop);
    assert_eq!(whole.thinking_tokens as usize, tokens(thought).len());
    assert_eq!(whole.answer_tokens as usize, tokens(answer).len());
    assert_eq!((whole.think_closed, whole.has_code), (Some(true), true));

    let cut = facts("<think>\nlet me see\n```python\nx = 1\n```", FinishReason::Length);
    assert_eq!((cut.think_closed, cut.has_code, cut.answer_tokens), (Some(false), false, 0));

    let plain = facts("It is x = 1.<|im_end|>", FinishReason::Stop);
    assert_eq!((plain.think_closed, plain.has_code, plain.thinking_tokens), (None, false, 0));

    let empty = qwen3().output_facts(&rendered, &[], FinishReason::Length);
    assert_eq!((empty.thinking_tokens, empty.answer_tokens, empty.has_code), (0, 0, false));
}

#[test]
fn a_template_that_opens_thinking_makes_the_output_start_inside() {
    let mut files = qwen3_files();
    files.chat_template = Some("{{ messages[0].content }}<think>\n".to_owned());
    let formatter = formatter(&files, Format::Auto, Thinking::Auto);
    let rendered = formatter.render(&Prompt { text: "hi", ..Prompt::default() }).expect("rendered");
    assert!(rendered.opens_thinking);
    let facts =
        formatter.output_facts(&rendered, &tokens("so\n</think>\n\nyes"), FinishReason::Stop);
    assert_eq!(facts.think_closed, Some(true));
    assert_eq!(facts.thinking_tokens as usize, tokens("so\n</think>").len());
    let open = formatter.output_facts(&rendered, &tokens("so"), FinishReason::Length);
    assert_eq!((open.think_closed, open.answer_tokens), (Some(false), 0));
}

fn streamed(ids: &[u32]) -> String {
    let mut stream = qwen3().stream();
    let mut text: String = ids.iter().map(|id| stream.push(*id)).collect();
    text.push_str(&stream.finish());
    text
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Any ids at all: broken characters, special tokens, ids beyond the vocabulary.
    #[test]
    fn streamed_pieces_make_the_whole_text(ids in prop::collection::vec(0_u32..152_000, 0..60)) {
        prop_assert_eq!(streamed(&ids), qwen3().decode(&ids));
    }

    /// The first 256 ids are single bytes: most sequences of them are no UTF-8.
    #[test]
    fn streamed_bytes_make_the_whole_text(ids in prop::collection::vec(0_u32..256, 0..40)) {
        prop_assert_eq!(streamed(&ids), qwen3().decode(&ids));
    }

    #[test]
    fn any_text_comes_back_whole(text in "\\PC{0,40}") {
        let ids = tokens(&text);
        // The tokenizer normalises to NFC, so composed characters come back composed.
        prop_assert_eq!(streamed(&ids), qwen3().decode(&ids));
        prop_assert_eq!(tokens(&qwen3().decode(&ids)).is_empty(), ids.is_empty());
    }

    #[test]
    fn facts_count_every_token(ids in prop::collection::vec(151_640_u32..151_680, 0..40)) {
        let rendered = qwen3().render(&Prompt { text: "hi", ..Prompt::default() }).expect("rendered");
        let facts = qwen3().output_facts(&rendered, &ids, FinishReason::Length);
        prop_assert_eq!((facts.thinking_tokens + facts.answer_tokens) as usize, ids.len());
    }
}
