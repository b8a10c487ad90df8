//! The command line of `worker bench`.

use std::{fs, path::Path};

use anyhow::{Context as _, bail};
use bakeoff_engine::{
    load::DeviceChoice,
    source::{ModelFiles, WeightFiles},
};
use bakeoff_model::{Dtype, EngineKind, EngineSettings, settings::LoadFormat};

/// Measures the engine alone on a model's shapes.
#[derive(Debug, Clone, clap::Args)]
pub struct BenchArgs {
    /// Folders with a model, or `config.json` files (for random weights); `ID=PATH` names the model.
    #[arg(long, value_name = "DIR_OR_CONFIG", required = true, value_delimiter = ',')]
    pub model: Vec<String>,
    /// Tokens of the prompt that is timed.
    #[arg(long, value_delimiter = ',', default_value = "100,2048")]
    pub prompt_tokens: Vec<usize>,
    /// Tokens to generate.
    #[arg(long, default_value_t = 128)]
    pub gen_tokens: usize,
    /// Tokens that precede the prompt; they count in its time to the first token.
    #[arg(long, value_delimiter = ',', default_value = "0")]
    pub depth: Vec<usize>,
    /// Sequences at once.
    #[arg(long, default_value_t = 1)]
    pub batch: usize,
    /// Generations that are measured, after one that is not.
    #[arg(long, default_value_t = 5)]
    pub repeats: usize,
    /// Engines to compare.
    #[arg(long, value_delimiter = ',', default_value = "auto", value_parser = engine)]
    pub engine: Vec<EngineKind>,
    /// Where weights come from; `dummy` where a lone configuration is given.
    #[arg(long, value_parser = load_format)]
    pub load_format: Option<LoadFormat>,
    /// Number format of weights and activations.
    #[arg(long, default_value = "bf16", value_parser = dtype)]
    pub dtype: Dtype,
    /// auto, cpu or cuda:N; auto is the first GPU, if this build can use one and one is there
    #[arg(long, env = "BAKEOFF_DEVICE", default_value = "auto", value_parser = crate::cli::parse_device)]
    pub device: DeviceChoice,
    /// Sample with temperature 0.7 and top-p 0.9 instead of taking the most likely token.
    #[arg(long)]
    pub sample: bool,
    /// Cap on device memory, GB.
    #[arg(long, default_value_t = 85.0)]
    pub max_memory_gb: f64,
    /// Launch each kernel instead of replaying one CUDA graph.
    #[arg(long)]
    pub no_cuda_graph: bool,
    /// Attend without FlashAttention.
    #[arg(long)]
    pub no_flash_attn: bool,
    /// FP32 products in full FP32.
    #[arg(long)]
    pub no_tf32: bool,
    /// cuBLAS reduces BF16 products in FP32 only.
    #[arg(long)]
    pub no_reduced_precision_reduction: bool,
    /// Print one array of objects instead of the table.
    #[arg(long)]
    pub json: bool,
}

/// A model to measure.
pub struct BenchModel {
    pub id: String,
    pub files: ModelFiles,
    pub load_format: LoadFormat,
}

impl BenchArgs {
    /// Numbers that make sense.
    ///
    /// # Errors
    /// The one that does not.
    pub fn check(&self) -> anyhow::Result<()> {
        if self.prompt_tokens.contains(&0) {
            bail!("--prompt-tokens 0: a prompt has at least one token");
        }
        if self.gen_tokens < 2 {
            bail!("--gen-tokens {}: the decode speed needs at least 2", self.gen_tokens);
        }
        if self.repeats == 0 {
            bail!("--repeats 0: ask for at least 1");
        }
        if self.batch != 1 {
            bail!("--batch {}: the engines generate one sequence at a time", self.batch);
        }
        Ok(())
    }

    pub fn settings(&self, engine: EngineKind, load_format: LoadFormat) -> EngineSettings {
        EngineSettings {
            engine,
            dtype: self.dtype,
            load_format,
            max_memory_gb: self.max_memory_gb,
            flash_attn: !self.no_flash_attn,
            tf32: !self.no_tf32,
            reduced_precision_reduction: !self.no_reduced_precision_reduction,
            cuda_graph: !self.no_cuda_graph,
        }
    }

    /// Longest sequence of all.
    pub fn context(&self) -> usize {
        let longest = |list: &[usize]| list.iter().copied().max().unwrap_or(0);
        longest(&self.prompt_tokens) + longest(&self.depth) + self.gen_tokens
    }

    /// # Errors
    /// A path that is no model.
    pub fn models(&self) -> anyhow::Result<Vec<BenchModel>> {
        self.model.iter().map(|model| self.read(model)).collect()
    }

    fn read(&self, model: &str) -> anyhow::Result<BenchModel> {
        let (id, path) = match model.split_once('=') {
            Some((id, path)) => (Some(id.to_owned()), Path::new(path)),
            None => (None, Path::new(model)),
        };
        let folder = path.is_dir();
        let config = if folder { path.join("config.json") } else { path.to_owned() };
        let config = fs::read(&config)
            .with_context(|| format!("--model {model}: {} cannot be read", config.display()))?;
        let stem = if folder { path.file_name() } else { path.file_stem() };
        let id = id.or_else(|| stem.map(|stem| stem.to_string_lossy().into_owned()));
        let id = id.unwrap_or_else(|| model.to_owned());
        let weights = if folder { weight_files(path)? } else { Vec::new() };
        let load_format = match (self.load_format, weights.is_empty()) {
            (Some(format), _) => format,
            (None, true) => LoadFormat::Dummy,
            (None, false) => LoadFormat::Safetensors,
        };
        let files = ModelFiles {
            id: id.clone(),
            revision: None,
            config,
            generation_config: None,
            tokenizer: None,
            tokenizer_config: None,
            chat_template: None,
            weights: match load_format {
                LoadFormat::Safetensors => WeightFiles::Paths(weights),
                LoadFormat::Dummy => WeightFiles::Absent,
            },
            download_s: None,
        };
        Ok(BenchModel { id, files, load_format })
    }
}

fn weight_files(folder: &Path) -> anyhow::Result<Vec<std::path::PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("model") && name.ends_with(".safetensors") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn engine(text: &str) -> Result<EngineKind, String> {
    let all = [EngineKind::Auto, EngineKind::Reference, EngineKind::Fused, EngineKind::Stock];
    all.into_iter()
        .find(|kind| kind.as_str() == text)
        .ok_or_else(|| format!("{text:?} is no engine: auto, reference, fused or stock"))
}

fn load_format(text: &str) -> Result<LoadFormat, String> {
    match text {
        "safetensors" => Ok(LoadFormat::Safetensors),
        "dummy" => Ok(LoadFormat::Dummy),
        _ => Err(format!("{text:?} is no load format: safetensors or dummy")),
    }
}

fn dtype(text: &str) -> Result<Dtype, String> {
    match text {
        "bf16" => Ok(Dtype::Bf16),
        "f32" => Ok(Dtype::F32),
        _ => Err(format!("{text:?} is no dtype: bf16 or f32")),
    }
}
