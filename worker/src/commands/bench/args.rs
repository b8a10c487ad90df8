//! The command line of `worker bench`, and the plan it makes.

use bakeoff_engine::load::DeviceChoice;
use bakeoff_model::{Dtype, EngineKind, EngineSettings, LoadFormat};
use clap::Args;

use super::subject::Subject;
use crate::commands::device::DeviceArgs;
use crate::error::CommandError;

const AFTER_HELP: &str = "\
Examples:
  worker bench --model Qwen/Qwen3-32B=deploy/models/Qwen3-32B.json --depth 0,8192
  worker bench --model ./my-model --engine fused,stock --json";

/// Measure the engine alone, every speed beside this machine's bound
#[derive(Debug, Clone, Args)]
#[command(after_help = AFTER_HELP)]
pub struct BenchArgs {
    /// Folders with a model, or `config.json` files (for random weights); `ID=PATH` names the model
    #[arg(long, value_name = "DIR_OR_CONFIG", required = true, value_delimiter = ',')]
    model: Vec<String>,
    /// Tokens of the prompt that is timed
    #[arg(long, value_delimiter = ',', default_value = "100,2048")]
    prompt_tokens: Vec<usize>,
    /// Tokens to generate
    #[arg(long, default_value_t = 128)]
    gen_tokens: usize,
    /// Tokens that precede the prompt; they count in its time to the first token
    #[arg(long, value_delimiter = ',', default_value = "0")]
    depth: Vec<usize>,
    /// Sequences at once
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// Generations that are measured, after one that is not
    #[arg(long, default_value_t = 5)]
    repeats: usize,
    /// Engines to compare
    #[arg(long, value_enum, value_delimiter = ',', default_value = "auto")]
    engine: Vec<EngineKind>,
    /// Where weights come from [default: safetensors, or dummy where a lone configuration is given]
    #[arg(long, value_enum)]
    load_format: Option<LoadFormat>,
    /// Number format of weights and activations
    #[arg(long, value_enum, default_value = "bf16")]
    dtype: Dtype,
    #[command(flatten)]
    device: DeviceArgs,
    /// Sample with temperature 0.7 and top-p 0.9 instead of taking the most likely token
    #[arg(long)]
    sample: bool,
    /// Cap on device memory, GB (10^9 bytes)
    #[arg(long, default_value_t = 85.0)]
    max_memory_gb: f64,
    /// Launch each kernel instead of replaying one CUDA graph
    #[arg(long)]
    no_cuda_graph: bool,
    /// Attend without FlashAttention
    #[arg(long)]
    no_flash_attn: bool,
    /// FP32 products in full FP32
    #[arg(long)]
    no_tf32: bool,
    /// cuBLAS reduces BF16 products in FP32 only
    #[arg(long)]
    no_reduced_precision_reduction: bool,
    /// Print one array of objects instead of the table
    #[arg(long)]
    pub(super) json: bool,
}

/// What is measured: checked, every model with every engine and every shape.
#[derive(Debug)]
pub struct BenchPlan {
    pub subjects: Vec<Subject>,
    pub engines: Vec<EngineKind>,
    pub shapes: Vec<Shape>,
    pub gen_tokens: usize,
    pub repeats: usize,
    pub sample: bool,
    pub device: DeviceChoice,
    settings: EngineSettings,
}

/// A length of prompt behind a depth, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub prompt_tokens: usize,
    pub depth: usize,
}

impl Shape {
    /// Tokens before the first generated one.
    pub fn tokens(self) -> usize {
        self.depth + self.prompt_tokens
    }
}

impl BenchPlan {
    /// # Errors
    /// Numbers that make no sense, naming the option; a model that cannot be read.
    pub fn new(args: &BenchArgs) -> Result<Self, CommandError> {
        check(args)?;
        let subjects = args.model.iter().map(|model| Subject::read(model, args.load_format));
        let shapes = args.depth.iter().flat_map(|&depth| {
            args.prompt_tokens.iter().map(move |&prompt_tokens| Shape { prompt_tokens, depth })
        });
        Ok(Self {
            subjects: subjects.collect::<Result<_, _>>()?,
            engines: args.engine.clone(),
            shapes: shapes.collect(),
            gen_tokens: args.gen_tokens,
            repeats: args.repeats,
            sample: args.sample,
            device: args.device.device,
            settings: EngineSettings {
                dtype: args.dtype,
                max_memory_gb: args.max_memory_gb,
                flash_attn: !args.no_flash_attn,
                tf32: !args.no_tf32,
                reduced_precision_reduction: !args.no_reduced_precision_reduction,
                cuda_graph: !args.no_cuda_graph,
                ..EngineSettings::default()
            },
        })
    }

    /// The settings for one load.
    pub fn settings(&self, engine: EngineKind, load_format: LoadFormat) -> EngineSettings {
        EngineSettings { engine, load_format, ..self.settings.clone() }
    }

    /// Tokens of the longest sequence.
    pub fn context(&self) -> usize {
        let longest = self.shapes.iter().map(|shape| shape.tokens()).max();
        longest.unwrap_or(0) + self.gen_tokens
    }
}

fn check(args: &BenchArgs) -> Result<(), CommandError> {
    let usage = |text: String| Err(CommandError::Usage(text));
    if args.prompt_tokens.contains(&0) {
        return usage("--prompt-tokens 0: expected at least 1".into());
    }
    if args.gen_tokens < 2 {
        let found = args.gen_tokens;
        return usage(format!("--gen-tokens {found}: the decode speed needs at least 2"));
    }
    if args.repeats == 0 {
        return usage("--repeats 0: expected at least 1".into());
    }
    if args.batch != 1 {
        let found = args.batch;
        return usage(format!("--batch {found}: the engines generate one sequence at a time"));
    }
    Ok(())
}
