//! `worker generate`: one generation without a queue. The text goes to stdout as it comes, figures
//! to stderr.

mod args;

pub use args::GenerateArgs;

use std::io::{self, Write};
use std::ops::ControlFlow;

use bakeoff_engine::config::ModelConfig;
use bakeoff_engine::format::{Formatter, Prompt, Rendered};
use bakeoff_engine::load::{LoadOptions, Loaded, load};
use bakeoff_engine::request::Limits;
use bakeoff_engine::source::{ModelFiles, SourceOptions, resolve};
use bakeoff_engine::{EngineError, Generation, Request, TokenEvent};
use bakeoff_model::{Format, LoadFormat};
use bakeoff_proto::exit::Exit;
use bakeoff_proto::{FailureKind, FinishReason, Metrics};
use serde::Serialize;

use crate::error::CommandError;
use crate::metrics::{LoadFacts, Measured, measure};

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
