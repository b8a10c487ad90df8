//! From time stamps to figures. Definitions: ARCHITECTURE.md, "Metrics".

use std::time::Instant;

use bakeoff_engine::{Footprint, Generation};
use bakeoff_model::percentile::percentiles;
use bakeoff_proto::Metrics;

/// What a loaded model brings to the figures of every generation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoadFacts {
    pub footprint: Footprint,
    /// Bytes of weights as stored.
    pub stored_bytes: u64,
    /// Weights from storage to ready, download excluded.
    pub load_s: f64,
    /// `None` if nothing was downloaded.
    pub download_s: Option<f64>,
    /// Read bandwidth of the memory that holds the weights, measured in this process, GB/s.
    pub read_bandwidth_gb_s: Option<f64>,
}

/// The figures of one generation.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// Those that only telemetry knows are left open.
    pub metrics: Metrics,
    /// Gaps between tokens in milliseconds, in order, rounded to microseconds.
    pub inter_token_ms: Vec<f64>,
}

/// The figures of one generation after a prompt of `prompt_tokens`. `None` without tokens.
pub fn measure(
    generation: &Generation,
    prompt_tokens: usize,
    load: &LoadFacts,
) -> Option<Measured> {
    let timing = Timing::of(generation.started, &generation.token_times)?;
    let gb = |bytes: u64| bytes as f64 / 1e9;
    let tokens = generation.token_ids.len();
    let bytes_per_token = bytes_per_token(generation, prompt_tokens, load);
    let roofline_pct = timing
        .decode_tok_s
        .zip(bytes_per_token)
        .zip(load.read_bandwidth_gb_s)
        .map(|((tok_s, bytes), gb_s)| roofline_pct(tok_s, bytes, gb_s));
    let itl = percentiles(&timing.inter_token_ms, [50.0, 95.0, 99.0]);
    let metrics = Metrics {
        flash_attn: generation.flash_attn,
        tokens_generated: u32::try_from(tokens).unwrap_or(u32::MAX),
        tok_per_s: rate(tokens as f64, timing.time_s).unwrap_or(0.0),
        time_s: timing.time_s,
        model_memory_gb: gb(load.footprint.weight_bytes),
        prompt_tokens: u32::try_from(prompt_tokens).unwrap_or(u32::MAX),
        ttft_ms: timing.ttft_s * 1e3,
        tpot_ms: timing.tpot_s.map(|s| s * 1e3),
        decode_tok_s: timing.decode_tok_s,
        prefill_tok_s: rate(prompt_tokens as f64, timing.ttft_s).unwrap_or(0.0),
        itl_p50_ms: itl.map(|[p50, _, _]| p50),
        itl_p95_ms: itl.map(|[_, p95, _]| p95),
        itl_p99_ms: itl.map(|[_, _, p99]| p99),
        roofline_pct,
        read_bandwidth_gb_s: load.read_bandwidth_gb_s,
        bytes_per_token,
        download_s: load.download_s,
        load_s: load.load_s,
        load_gb_s: rate(gb(load.stored_bytes), load.load_s).unwrap_or(0.0),
        kv_memory_gb: gb(generation.kv_bytes),
        ..Metrics::default()
    };
    Some(Measured { metrics, inter_token_ms: timing.inter_token_ms })
}

/// Decode speed over its bound: how often the memory could be read in a second.
pub fn roofline_pct(decode_tok_s: f64, bytes_per_token: f64, read_bandwidth_gb_s: f64) -> f64 {
    100.0 * decode_tok_s * bytes_per_token / (read_bandwidth_gb_s * 1e9)
}

/// Bytes read per decoded token at the mean length: weights, and the cache of the prompt and half
/// of what followed.
fn bytes_per_token(generation: &Generation, prompt_tokens: usize, load: &LoadFacts) -> Option<f64> {
    let mean_length = prompt_tokens as f64 + generation.token_ids.len() as f64 / 2.0;
    let cache = load.footprint.kv_bytes_per_token as f64 * mean_length;
    Some(generation.weight_bytes_per_token + cache).filter(|bytes| *bytes > 0.0)
}

/// From the ids handed over to the last token on the host.
struct Timing {
    time_s: f64,
    ttft_s: f64,
    /// Undefined for a single token, as is everything made from the gaps.
    tpot_s: Option<f64>,
    decode_tok_s: Option<f64>,
    inter_token_ms: Vec<f64>,
}

impl Timing {
    fn of(started: Instant, token_times: &[Instant]) -> Option<Self> {
        let (first, last) = (token_times.first()?, token_times.last()?);
        let seconds = |at: &Instant| at.duration_since(started).as_secs_f64();
        let (ttft_s, time_s) = (seconds(first), seconds(last));
        let gaps = token_times.len() - 1;
        let tpot_s = (gaps > 0).then(|| (time_s - ttft_s) / gaps as f64);
        let gap_ms = |pair: &[Instant]| {
            let ms = pair[1].duration_since(pair[0]).as_secs_f64() * 1e3;
            (ms * 1e3).round() / 1e3
        };
        Some(Self {
            time_s,
            ttft_s,
            tpot_s,
            decode_tok_s: tpot_s.and_then(|s| rate(1.0, s)),
            inter_token_ms: token_times.windows(2).map(gap_ms).collect(),
        })
    }
}

fn rate(amount: f64, seconds: f64) -> Option<f64> {
    (seconds > 0.0).then(|| amount / seconds)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn generation(token_ms: &[u64]) -> Generation {
        let started = Instant::now();
        Generation {
            token_ids: (0..token_ms.len() as u32).collect(),
            finish_reason: None,
            started,
            token_times: token_ms.iter().map(|ms| started + Duration::from_millis(*ms)).collect(),
            flash_attn: true,
            kv_bytes: 5_000_000,
            weight_bytes_per_token: 1e9,
        }
    }

    fn load() -> LoadFacts {
        LoadFacts {
            footprint: Footprint {
                weight_bytes: 2_000_000_000,
                workspace_bytes: 0,
                kv_bytes_per_token: 1_000_000,
            },
            stored_bytes: 2_000_000_000,
            load_s: 4.0,
            download_s: Some(7.0),
            read_bandwidth_gb_s: Some(202.3),
        }
    }

    #[test]
    fn a_single_token_has_no_time_per_output_token() {
        let one = measure(&generation(&[200]), 10, &load()).unwrap().metrics;
        assert_eq!((one.tpot_ms, one.decode_tok_s, one.itl_p50_ms), (None, None, None));
        assert_eq!((one.ttft_ms, one.tok_per_s, one.prefill_tok_s), (200.0, 5.0, 50.0));
        assert!(measure(&generation(&[]), 10, &load()).is_none());
    }

    #[test]
    fn decode_is_counted_from_the_first_token() {
        let three = measure(&generation(&[100, 110, 130]), 4, &load()).unwrap();
        assert!((three.metrics.tpot_ms.unwrap() - 15.0).abs() < 1e-9);
        assert_eq!(three.inter_token_ms, [10.0, 20.0]);
    }

    #[test]
    fn figures_follow_their_definitions() {
        let found = measure(&generation(&[100, 110, 120]), 10, &load()).unwrap().metrics;
        // 10 tokens of the prompt and half of the 3 that followed.
        assert_eq!(found.bytes_per_token, Some(1e9 + 11.5e6));
        // 100 tok/s of the 200 that 202.3 GB/s allow.
        assert!((found.roofline_pct.unwrap() - 50.0).abs() < 1e-6, "{found:?}");
        assert_eq!((found.load_gb_s, found.download_s), (0.5, Some(7.0)));
        assert_eq!((found.itl_p50_ms, found.itl_p99_ms), (Some(10.0), Some(10.0)));
        assert_eq!((found.model_memory_gb, found.kv_memory_gb), (2.0, 0.005));
        assert!(found.flash_attn && found.tokens_generated == 3 && found.gpu_free_gb.is_none());
        let unknown = LoadFacts { read_bandwidth_gb_s: None, load_s: 0.0, ..load() };
        let found = measure(&generation(&[100, 110, 120]), 10, &unknown).unwrap().metrics;
        assert_eq!((found.roofline_pct, found.load_gb_s), (None, 0.0));
    }
}
