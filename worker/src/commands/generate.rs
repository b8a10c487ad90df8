//! `worker generate`: one generation without a queue. The text goes to stdout as it comes, figures
//! to stderr.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use bakeoff_engine::config::ModelConfig;
use bakeoff_engine::format::{Formatter, Prompt, Rendered};
use bakeoff_engine::load::{LoadOptions, Loaded, load};
use bakeoff_engine::request::Limits;
use bakeoff_engine::source::{ModelFiles, SourceOptions, resolve};
use bakeoff_engine::{EngineError, Generation, Request, TokenEvent};
use bakeoff_model::{
    Dtype, EngineKind, EngineSettings, Format, GenerationSettings, LoadFormat, ModelSource,
    SamplingSource, Thinking,
};
use bakeoff_proto::exit::Exit;
use bakeoff_proto::{FailureKind, FinishReason, Metrics};
use clap::Args;
use serde::Serialize;

use super::device::DeviceArgs;
use crate::error::CommandError;
use crate::metrics::{LoadFacts, Measured, measure};

const AFTER_HELP: &str = "\
Examples:
  worker generate --model builtin:tiny-qwen3 --prompt 'def is_palindrome(text):'
  worker generate --model Qwen/Qwen3-32B --prompt-file task.txt --thinking off --device cuda:0
  worker generate --model ./model --prompt-file f --greedy --dtype f32 --json

Exit code 2 for input that cannot work, 1 for any other failure.";

/// One generation without a queue: text to stdout, figures to stderr
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct GenerateArgs {
    /// Folder, hub id (owner/name) or builtin:NAME
    #[arg(long, value_name = "DIR_OR_ID")]
    model: String,
    /// Branch, tag or commit of a hub model
    #[arg(long, default_value = "main")]
    revision: String,
    #[command(flatten)]
    input: Input,
    /// System message of the chat template
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Let a model that can think do so, or not [default: as its template has it]
    #[arg(long, value_enum)]
    thinking: Option<Thinking>,
    /// Send the prompt as it is, without a chat template
    #[arg(long, conflicts_with = "system")]
    raw_prompt: bool,
    /// Always take the most likely token
    #[arg(long)]
    greedy: bool,
    /// Tokens after which the text is cut off [default: 4096, or what the model's context leaves]
    #[arg(long, value_name = "N")]
    max_new_tokens: Option<u32>,
    /// The same seed gives the same text
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Temperature [default: 0.7]
    #[arg(long)]
    temperature: Option<f64>,
    /// Share of the probability that is sampled from [default: 0.9]
    #[arg(long)]
    top_p: Option<f64>,
    /// Number of tokens that are sampled from [default: all]
    #[arg(long)]
    top_k: Option<u32>,
    /// Smallest probability sampled, relative to the most likely token's [default: 0]
    #[arg(long)]
    min_p: Option<f64>,
    /// Above 1: tokens that were there already become less likely [default: 1]
    #[arg(long)]
    repetition_penalty: Option<f64>,
    /// Where open settings come from: these defaults, or the model's generation_config.json
    #[arg(long, value_enum, default_value = "sweep")]
    sampling: SamplingSource,
    /// Where weights come from
    #[arg(long, value_enum, default_value = "safetensors")]
    load_format: LoadFormat,
    /// Implementation of the forward pass
    #[arg(long, value_enum, default_value = "auto")]
    engine: EngineKind,
    /// Number format of weights and activations
    #[arg(long, value_enum, default_value = "bf16")]
    dtype: Dtype,
    #[command(flatten)]
    device: DeviceArgs,
    /// Print one JSON object when done: rendered_prompt, prompt_token_ids, token_ids, text,
    /// finish_reason, metrics
    #[arg(long)]
    json: bool,
}

/// The prompt, given in one of two ways.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Input {
    /// The prompt
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// File whose bytes are the prompt, nothing trimmed
    #[arg(long, value_name = "FILE")]
    prompt_file: Option<PathBuf>,
}

impl Input {
    fn text(&self) -> Result<String, CommandError> {
        let Some(path) = &self.prompt_file else {
            return Ok(self.prompt.clone().unwrap_or_default());
        };
        let bytes = std::fs::read(path)
            .map_err(|source| CommandError::PromptFile { path: path.clone(), source })?;
        String::from_utf8(bytes).map_err(|error| CommandError::PromptEncoding {
            path: path.clone(),
            source: error.utf8_error(),
        })
    }
}

impl GenerateArgs {
    fn generation_settings(&self) -> GenerationSettings {
        GenerationSettings {
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            greedy: self.greedy,
            sampling: self.sampling,
            ..GenerationSettings::default()
        }
    }

    fn engine_settings(&self) -> EngineSettings {
        EngineSettings {
            engine: self.engine,
            dtype: self.dtype,
            load_format: self.load_format,
            ..EngineSettings::default()
        }
    }

    /// A folder that exists, or is written like a path, is a folder; the rest are hub ids.
    fn model_source(&self) -> ModelSource {
        let model = &self.model;
        if let Some(name) = model.strip_prefix("builtin:") {
            return ModelSource::Builtin { name: name.to_owned() };
        }
        if Path::new(model).is_dir() || model.starts_with(['/', '.', '~']) {
            return ModelSource::Path { path: model.clone() };
        }
        ModelSource::Hub { id: model.clone(), revision: self.revision.clone() }
    }

    /// As many as asked for, or else as many as usual and the context allows.
    fn new_tokens(&self, prompt_tokens: usize, context: usize) -> usize {
        let usual = GenerationSettings::DEFAULT_MAX_NEW_TOKENS as usize;
        let open = usual.min(context.saturating_sub(prompt_tokens)).max(1);
        self.max_new_tokens.map_or(open, |tokens| tokens as usize)
    }
}

/// What `--json` prints.
#[derive(Serialize)]
struct Answer<'a> {
    rendered_prompt: &'a str,
    prompt_token_ids: &'a [u32],
    token_ids: &'a [u32],
    text: &'a str,
    finish_reason: FinishReason,
    metrics: Metrics,
}

/// Blocks; needs no runtime.
pub(super) fn execute(args: GenerateArgs) -> Result<Exit, CommandError> {
    let prompt = args.input.text()?;
    let files = files(&args)?;
    let (formatter, rendered, request) = prepare(&args, &files, &prompt)?;
    let options = LoadOptions {
        settings: args.engine_settings(),
        device: args.device.device,
        context: rendered.ids.len().saturating_add(request.max_new_tokens),
    };
    // Before the load: the measurement wants memory of its own.
    let read_bandwidth_gb_s = options.device.read_bandwidth_gb_s(&options.settings);
    let mut loaded = load(&files, &options, &mut |_| ControlFlow::Continue(()))?;
    let generation = stream(&mut loaded, &formatter, request, !args.json)?;
    let load_facts = LoadFacts {
        footprint: loaded.engine.footprint(),
        stored_bytes: loaded.stored_bytes,
        load_s: loaded.load_s,
        download_s: files.download_s,
        read_bandwidth_gb_s,
    };
    if let Some(measured) = measure(&generation, rendered.ids.len(), &load_facts) {
        report(args.json, &formatter, &rendered, &generation, measured);
    }
    Ok(Exit::Success)
}

fn files(args: &GenerateArgs) -> Result<ModelFiles, EngineError> {
    let options = SourceOptions::from_env(args.load_format == LoadFormat::Safetensors);
    let files = resolve(&args.model_source(), &options, &mut |progress| {
        let mb = |bytes: u64| bytes / 1_000_000;
        eprint!("\rdownloaded {} of {} MB", mb(progress.bytes), mb(progress.total_bytes));
        ControlFlow::Continue(())
    })?;
    if files.download_s.is_some() {
        eprintln!();
    }
    Ok(files)
}

/// The request, checked: what the model can never do fails before its weights are read.
fn prepare(
    args: &GenerateArgs,
    files: &ModelFiles,
    prompt: &str,
) -> Result<(Formatter, Rendered, Request), EngineError> {
    let format = if args.raw_prompt { Format::Base } else { Format::Auto };
    let formatter = Formatter::new(files, format, args.thinking.unwrap_or_default())?;
    let rendered = formatter.render(&Prompt {
        text: prompt,
        system: args.system.as_deref(),
        code_hint: None,
    })?;
    let shape = ModelConfig::parse(&files.config)?.shape;
    let request = Request {
        prompt_ids: rendered.ids.clone(),
        max_new_tokens: args.new_tokens(rendered.ids.len(), shape.max_context),
        sampling: formatter.resolve_sampling(&args.generation_settings(), args.seed)?,
        stop_ids: formatter.stop_ids().to_vec(),
    };
    let limits = Limits {
        context: shape.max_context,
        model_context: shape.max_context,
        vocab: shape.vocab_size,
    };
    limits.check(&request)?;
    Ok((formatter, rendered, request))
}

/// Generates, writing the text as it comes. A reader that went away ends the generation.
fn stream(
    loaded: &mut Loaded,
    formatter: &Formatter,
    request: Request,
    print: bool,
) -> Result<Generation, EngineError> {
    let mut text = formatter.stream();
    let mut out = io::stdout();
    let mut write = |piece: &str| {
        let written = out.write_all(piece.as_bytes()).and_then(|()| out.flush());
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    let generated = loaded.engine.generate(&[request], &mut |event| match event {
        TokenEvent::Token { id, .. } if print => write(&text.push(id)),
        _ => ControlFlow::Continue(()),
    })?;
    if print {
        let _ = write(&text.finish());
        let _ = write("\n");
    }
    generated.into_iter().next().ok_or_else(|| {
        EngineError::new(FailureKind::Device, "the engine returned no generation for one request")
    })
}

fn report(
    json: bool,
    formatter: &Formatter,
    rendered: &Rendered,
    generation: &Generation,
    measured: Measured,
) {
    let Some(finish_reason) = generation.finish_reason else { return };
    let metrics = measured.metrics;
    if json {
        let answer = Answer {
            rendered_prompt: &rendered.text,
            prompt_token_ids: &rendered.ids,
            token_ids: &generation.token_ids,
            text: &formatter.decode(&generation.token_ids),
            finish_reason,
            metrics,
        };
        let json = serde_json::to_string(&answer).expect("strings and finite numbers become JSON");
        // A reader that went away wants no more of it.
        let _ = writeln!(io::stdout(), "{json}");
        return;
    }
    let facts = formatter.output_facts(rendered, &generation.token_ids, finish_reason);
    let optional =
        |value: Option<f64>| value.map_or("n/a".to_owned(), |value| format!("{value:.1}"));
    eprintln!(
        "{} prompt tokens, {} tokens ({}; {} thinking), {:.2} s, {:.1} tok/s; \
         first token {:.0} ms, decode {} tok/s ({} % of the memory's bound); loaded in {:.2} s",
        metrics.prompt_tokens,
        metrics.tokens_generated,
        finish_reason.as_str(),
        facts.thinking_tokens,
        metrics.time_s,
        metrics.tok_per_s,
        metrics.ttft_ms,
        optional(metrics.decode_tok_s),
        optional(metrics.roofline_pct),
        metrics.load_s,
    );
}
