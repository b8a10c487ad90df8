//! Decoding on this machine's CPU against what its memory can read.
//!
//! `cargo run --release -p bakeoff-engine --example decode_speed [f32|bf16] [new tokens] [folder]`
//!
//! Without a folder the weights are random, in the shape of SmolLM2-135M.

use std::{ops::ControlFlow, path::PathBuf};

use anyhow::{Context, Result, bail};
use bakeoff_engine::{
    Request, Sampling, bandwidth,
    load::{DeviceChoice, LoadOptions, load},
    source::{ModelFiles, WeightFiles},
};
use bakeoff_model::{Dtype, EngineKind, EngineSettings, settings::LoadFormat};

/// HuggingFaceTB/SmolLM2-135M-Instruct, as its page on the hub gives it.
const SMOLLM2_135M: &str = r#"{"architectures": ["LlamaForCausalLM"], "hidden_size": 576,
    "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
    "num_key_value_heads": 3, "vocab_size": 49152, "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5, "rope_theta": 100000, "tie_word_embeddings": true, "hidden_act": "silu"}"#;

const PROMPT_TOKENS: usize = 100;
const REPEATS: usize = 5;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let dtype = match args.next().as_deref() {
        None | Some("f32") => Dtype::F32,
        Some("bf16") => Dtype::Bf16,
        Some(other) => bail!("the dtype is {other}, expected f32 or bf16"),
    };
    let new = args.next().map_or(Ok(64), |n| n.parse().context("the number of new tokens"))?;
    let folder = args.next().map(PathBuf::from);

    println!("{} tokens after a prompt of {PROMPT_TOKENS}, {REPEATS} times, {:?}", new, dtype);
    for engine in [EngineKind::Reference, EngineKind::Stock] {
        let settings = EngineSettings {
            engine,
            dtype,
            load_format: if folder.is_some() { LoadFormat::Safetensors } else { LoadFormat::Dummy },
            ..EngineSettings::default()
        };
        let options =
            LoadOptions { settings, device: DeviceChoice::Cpu, context: PROMPT_TOKENS + new };
        let mut loaded =
            load(&files(folder.as_ref())?, &options, &mut |_| ControlFlow::Continue(()))?;
        println!("{}: loaded in {:.2} s", loaded.engine.name(), loaded.load_s);
        let (mut tok_s, mut gb_s, mut memory, mut shares) = (vec![], vec![], vec![], vec![]);
        // The memory is read before and after each generation: what disturbs one disturbs the other.
        let mut before = bandwidth::measure_host().gb_s;
        for _ in 0..REPEATS {
            let done =
                loaded.engine.generate(&[request(new)], &mut |_| ControlFlow::Continue(()))?;
            let after = bandwidth::measure_host().gb_s;
            let done = &done[0];
            let (first, last) = (done.token_times[0], done.token_times[new - 1]);
            let decode_tok_s = (new - 1) as f64 / (last - first).as_secs_f64();
            let ttft_ms = (first - done.started).as_secs_f64() * 1e3;
            let kv = loaded.engine.footprint().kv_bytes_per_token as f64;
            let mean_length = PROMPT_TOKENS as f64 + new as f64 / 2.0;
            let read = decode_tok_s * (done.weight_bytes_per_token + kv * mean_length) / 1e9;
            let share = 100.0 * read / (0.5 * (before + after));
            println!(
                "  {decode_tok_s:6.2} tok/s, {read:5.2} GB/s; memory {before:5.2} and {after:5.2} GB/s: {share:3.0} %; first token after {ttft_ms:.0} ms"
            );
            tok_s.push(decode_tok_s);
            gb_s.push(read);
            memory.push(after);
            shares.push(share);
            before = after;
        }
        println!(
            "  median {:.2} tok/s, {:.0} % of the bandwidth; best {:.2} of {:.2} GB/s: {:.0} %",
            median(&mut tok_s),
            median(&mut shares),
            best(&gb_s),
            best(&memory),
            100.0 * best(&gb_s) / best(&memory)
        );
    }
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn best(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

fn files(folder: Option<&PathBuf>) -> Result<ModelFiles> {
    let (config, weights) = match folder {
        None => (SMOLLM2_135M.as_bytes().to_vec(), WeightFiles::Absent),
        Some(folder) => {
            let config = std::fs::read(folder.join("config.json")).context("config.json")?;
            (config, WeightFiles::Paths(vec![folder.join("model.safetensors")]))
        }
    };
    Ok(ModelFiles {
        id: folder.map_or("SmolLM2-135M".to_owned(), |folder| folder.display().to_string()),
        revision: None,
        config,
        generation_config: None,
        tokenizer: None,
        tokenizer_config: None,
        chat_template: None,
        weights,
        download_s: None,
    })
}

fn request(new: usize) -> Request {
    let sampling = Sampling {
        greedy: true,
        temperature: 1.0,
        top_p: 1.0,
        top_k: None,
        min_p: None,
        repetition_penalty: 1.0,
        seed: 0,
    };
    Request {
        prompt_ids: (0..PROMPT_TOKENS as u32).collect(),
        max_new_tokens: new,
        sampling,
        stop_ids: vec![],
    }
}
