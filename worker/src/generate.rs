//! `worker generate`: one generation without a queue. The text goes to stdout as it comes, figures to stderr.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bakeoff_engine::config::ModelConfig;
use bakeoff_engine::format::{Formatter, Prompt, Rendered};
use bakeoff_engine::load::{DeviceChoice, LoadOptions, Loaded, load};
use bakeoff_engine::request::Limits;
use bakeoff_engine::source::{SourceOptions, resolve};
use bakeoff_engine::{EngineError, Generation, Request, TokenEvent};
use bakeoff_model::settings::LoadFormat;
use bakeoff_model::{Dtype, EngineKind, EngineSettings, Format, GenerationSettings, ModelSource, SamplingSource, Thinking};
use bakeoff_proto::{Disposition, FailureKind, FinishReason, Metrics};
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::cli::parse_device;
use crate::metrics::{Opened, figures, timing};

/// One generation, no queue.
#[derive(Debug, Args)]
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
    thinking: Option<Switch>,
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
    sampling: Sampling,
    /// dummy: random weights of the model's shape
    #[arg(long, value_enum, default_value = "safetensors")]
    load_format: Weights,
    #[arg(long, value_enum, default_value = "auto")]
    engine: Engine,
    #[arg(long, value_enum, default_value = "bf16")]
    dtype: Number,
    /// auto, cpu or cuda:N; auto is the first GPU, if this build can use one and one is there
    #[arg(long, env = "BAKEOFF_DEVICE", default_value = "auto", value_parser = parse_device)]
    device: DeviceChoice,
    /// Print one JSON object when done: rendered_prompt, prompt_token_ids, token_ids, text, finish_reason, metrics
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
    fn text(&self) -> Result<String, EngineError> {
        let invalid = |message| EngineError::new(FailureKind::InvalidRequest, message);
        let Some(path) = &self.prompt_file else {
            return Ok(self.prompt.clone().unwrap_or_default());
        };
        let bytes = std::fs::read(path).map_err(|e| {
            invalid(format!(
                "--prompt-file {} cannot be read ({e}): name a readable file",
                path.display()
            ))
        })?;
        String::from_utf8(bytes).map_err(|e| {
            invalid(format!(
                "--prompt-file {} is not UTF-8 (byte {}): save it as UTF-8",
                path.display(),
                e.utf8_error().valid_up_to()
            ))
        })
    }
}

/// Examples for the help text.
pub const EXAMPLES: &str = "Examples:\n  \
    worker generate --model builtin:tiny-qwen3 --prompt 'def is_palindrome(text):'\n  \
    worker generate --model Qwen/Qwen3-32B --prompt-file task.txt --thinking off --device cuda:0\n  \
    worker generate --model ./model --prompt-file f --greedy --dtype f32 --json\n\n\
    Exit code 2 for input that cannot work, 1 for any other failure.";

macro_rules! choices {
    ($name:ident => $target:ty { $($variant:ident = $value:expr),+ $(,)? }) => {
        #[derive(Debug, Clone, Copy, ValueEnum)]
        enum $name { $($variant),+ }
        impl From<$name> for $target {
            fn from(choice: $name) -> Self {
                match choice { $($name::$variant => $value),+ }
            }
        }
    };
}
choices!(Switch => Thinking { On = Self::On, Off = Self::Off });
choices!(Sampling => SamplingSource { Sweep = Self::Sweep, Model = Self::Model });
choices!(Weights => LoadFormat { Safetensors = Self::Safetensors, Dummy = Self::Dummy });
choices!(Engine => EngineKind { Auto = Self::Auto, Reference = Self::Reference, Fused = Self::Fused, Stock = Self::Stock });
choices!(Number => Dtype { Bf16 = Self::Bf16, F32 = Self::F32 });

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

/// Runs the command. Blocks; needs no runtime.
pub fn run(args: &GenerateArgs) -> ExitCode {
    match generate(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            exit_code(error.kind)
        }
    }
}

/// Input that can never work is the user's to mend; the rest is a failure.
fn exit_code(kind: FailureKind) -> ExitCode {
    match (kind, kind.disposition()) {
        (FailureKind::NonFiniteLogits, _) | (_, Disposition::Retry) => ExitCode::FAILURE,
        (_, Disposition::Final) => ExitCode::from(2),
    }
}

fn generate(args: &GenerateArgs) -> Result<(), EngineError> {
    let prompt = args.input.text()?;
    let settings = GenerationSettings {
        temperature: args.temperature,
        top_p: args.top_p,
        top_k: args.top_k,
        min_p: args.min_p,
        repetition_penalty: args.repetition_penalty,
        greedy: args.greedy,
        sampling: args.sampling.into(),
        ..GenerationSettings::default()
    };
    let source = model_source(&args.model, &args.revision);
    let load_format = LoadFormat::from(args.load_format);
    let options = SourceOptions::from_env(load_format == LoadFormat::Safetensors);
    let files = resolve(&source, &options, &mut |progress| {
        eprint!(
            "\rdownloaded {} of {} MB",
            progress.bytes / 1_000_000,
            progress.total_bytes / 1_000_000
        );
        ControlFlow::Continue(())
    })?;
    if files.download_s.is_some() {
        eprintln!();
    }
    let format = if args.raw_prompt { Format::Base } else { Format::Auto };
    let thinking = args.thinking.map_or(Thinking::Auto, Thinking::from);
    let formatter = Formatter::new(&files, format, thinking)?;
    let rendered = formatter.render(&Prompt {
        text: &prompt,
        system: args.system.as_deref(),
        code_hint: None,
    })?;
    let shape = ModelConfig::parse(&files.config)?.shape;
    let request = Request {
        prompt_ids: rendered.ids.clone(),
        max_new_tokens: new_tokens(args, rendered.ids.len(), shape.max_context),
        sampling: formatter.resolve_sampling(&settings, args.seed)?,
        stop_ids: formatter.stop_ids().to_vec(),
    };
    // What the model can never do is told before its weights are read.
    let limits = Limits {
        context: shape.max_context,
        model_context: shape.max_context,
        vocab: shape.vocab_size,
    };
    limits.check(&request)?;
    let options = LoadOptions {
        settings: EngineSettings {
            engine: args.engine.into(),
            dtype: args.dtype.into(),
            load_format,
            ..EngineSettings::default()
        },
        device: args.device,
        context: rendered.ids.len().saturating_add(request.max_new_tokens),
    };
    // Before the load: the measurement wants memory of its own.
    let bandwidth = args.device.read_bandwidth_gb_s(&options.settings);
    let mut loaded = load(&files, &options, &mut |_| ControlFlow::Continue(()))?;
    let generation = stream(&mut loaded, &formatter, request, !args.json)?;
    let opened = Opened {
        footprint: loaded.engine.footprint(),
        stored_bytes: loaded.stored_bytes,
        load_s: loaded.load_s,
        download_s: files.download_s,
        read_bandwidth_gb_s: bandwidth,
    };
    report(args, &formatter, &rendered, &opened, &generation)
}

/// As many as asked for, or else as many as usual and the context allows.
fn new_tokens(args: &GenerateArgs, prompt_tokens: usize, context: usize) -> usize {
    let usual = GenerationSettings::DEFAULT_MAX_NEW_TOKENS as usize;
    let open = usual.min(context.saturating_sub(prompt_tokens)).max(1);
    args.max_new_tokens.map_or(open, |tokens| tokens as usize)
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
    args: &GenerateArgs,
    formatter: &Formatter,
    rendered: &Rendered,
    opened: &Opened,
    generation: &Generation,
) -> Result<(), EngineError> {
    let prompt_tokens = u32::try_from(rendered.ids.len()).unwrap_or(u32::MAX);
    let timing = timing(generation.started, &generation.token_times, prompt_tokens);
    let (Some(finish_reason), Some(timing)) = (generation.finish_reason, timing) else {
        return Ok(());
    };
    let metrics = figures(generation, &timing, prompt_tokens, opened);
    let facts = formatter.output_facts(rendered, &generation.token_ids, finish_reason);
    if args.json {
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
        return Ok(());
    }
    let optional =
        |value: Option<f64>| value.map_or("n/a".to_owned(), |value| format!("{value:.1}"));
    eprintln!(
        "{} prompt tokens, {} tokens ({}; {} thinking), {:.2} s, {:.1} tok/s; first token {:.0} ms, decode {} tok/s ({} % of the memory's bound); loaded in {:.2} s",
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
    Ok(())
}

/// A folder that exists, or is written like a path, is a folder; the rest are hub ids.
fn model_source(model: &str, revision: &str) -> ModelSource {
    if let Some(name) = model.strip_prefix("builtin:") {
        return ModelSource::Builtin { name: name.to_owned() };
    }
    if Path::new(model).is_dir() || model.starts_with(['/', '.', '~']) {
        return ModelSource::Path { path: model.to_owned() };
    }
    ModelSource::Hub { id: model.to_owned(), revision: revision.to_owned() }
}
