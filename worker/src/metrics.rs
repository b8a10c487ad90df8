//! From time stamps to figures. Definitions: ARCHITECTURE.md, "Metrics".

use std::time::Instant;

use bakeoff_engine::{Footprint, Generation};
use bakeoff_model::percentile::percentiles;
use bakeoff_proto::Metrics;

/// Speed of one generation.
#[derive(Debug, Clone, PartialEq)]
pub struct Timing {
    pub time_s: f64,
    pub ttft_ms: f64,
    pub tok_per_s: f64,
    pub prefill_tok_s: f64,
    /// Undefined for a single token, as is everything made from the gaps.
    pub tpot_ms: Option<f64>,
    pub decode_tok_s: Option<f64>,
    /// Gaps between tokens, in order.
    pub inter_token_ms: Vec<f64>,
}

/// What a loaded model brings to the figures of every generation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Opened {
    pub footprint: Footprint,
    /// Bytes of weights as stored.
    pub stored_bytes: u64,
    pub load_s: f64,
    pub download_s: Option<f64>,
    /// Read bandwidth of the memory that holds the weights, measured in this process, GB/s.
    pub read_bandwidth_gb_s: Option<f64>,
}

/// The figures of one generation; those that only telemetry knows are left open.
pub fn figures(
    generation: &Generation,
    timing: &Timing,
    prompt_tokens: u32,
    opened: &Opened,
) -> Metrics {
    let gb = |bytes: u64| bytes as f64 / 1e9;
    let tokens = generation.token_ids.len();
    let mean_length = f64::from(prompt_tokens) + tokens as f64 / 2.0;
    let bytes_per_token = generation.weight_bytes_per_token
        + opened.footprint.kv_bytes_per_token as f64 * mean_length;
    let bytes_per_token = Some(bytes_per_token).filter(|bytes| *bytes > 0.0);
    let bound_tok_s =
        opened.read_bandwidth_gb_s.zip(bytes_per_token).map(|(gb_s, bytes)| gb_s * 1e9 / bytes);
    let itl = percentiles(&timing.inter_token_ms, [50.0, 95.0, 99.0]);
    Metrics {
        flash_attn: generation.flash_attn,
        tokens_generated: u32::try_from(tokens).unwrap_or(u32::MAX),
        tok_per_s: timing.tok_per_s,
        time_s: timing.time_s,
        model_memory_gb: gb(opened.footprint.weight_bytes),
        prompt_tokens,
        ttft_ms: timing.ttft_ms,
        tpot_ms: timing.tpot_ms,
        decode_tok_s: timing.decode_tok_s,
        prefill_tok_s: timing.prefill_tok_s,
        itl_p50_ms: itl.map(|[p50, _, _]| p50),
        itl_p95_ms: itl.map(|[_, p95, _]| p95),
        itl_p99_ms: itl.map(|[_, _, p99]| p99),
        roofline_pct: timing.decode_tok_s.zip(bound_tok_s).map(|(seen, most)| 100.0 * seen / most),
        read_bandwidth_gb_s: opened.read_bandwidth_gb_s,
        bytes_per_token,
        download_s: opened.download_s,
        load_s: opened.load_s,
        load_gb_s: rate(gb(opened.stored_bytes), opened.load_s).unwrap_or(0.0),
        kv_memory_gb: gb(generation.kv_bytes),
        ..Metrics::default()
    }
}

/// Timing of a generation, from the ids handed over to the last token on the host. `None` without tokens.
pub fn timing(started: Instant, token_times: &[Instant], prompt_tokens: u32) -> Option<Timing> {
    let (first, last) = (token_times.first()?, token_times.last()?);
    let seconds = |at: &Instant| at.duration_since(started).as_secs_f64();
    let (ttft_s, time_s) = (seconds(first), seconds(last));
    let tokens = token_times.len() as f64;
    let tpot_s = (token_times.len() > 1).then(|| (time_s - ttft_s) / (tokens - 1.0));
    let gap = |pair: &[Instant]| pair[1].duration_since(pair[0]).as_secs_f64() * 1e3;
    Some(Timing {
        time_s,
        ttft_ms: ttft_s * 1e3,
        tok_per_s: rate(tokens, time_s).unwrap_or(0.0),
        prefill_tok_s: rate(f64::from(prompt_tokens), ttft_s).unwrap_or(0.0),
        tpot_ms: tpot_s.map(|s| s * 1e3),
        decode_tok_s: tpot_s.and_then(|s| rate(1.0, s)),
        inter_token_ms: token_times.windows(2).map(gap).map(|ms| round(ms, 1e3)).collect(),
    })
}

fn rate(amount: f64, seconds: f64) -> Option<f64> {
    (seconds > 0.0).then(|| amount / seconds)
}

fn round(value: f64, per_unit: f64) -> f64 {
    (value * per_unit).round() / per_unit
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_single_token_has_no_time_per_output_token() {
        let started = Instant::now();
        let one = timing(started, &[started + Duration::from_millis(200)], 10).unwrap();
        assert_eq!((one.tpot_ms, one.decode_tok_s), (None, None));
        assert_eq!((one.ttft_ms, one.tok_per_s, one.prefill_tok_s), (200.0, 5.0, 50.0));
        assert!(timing(started, &[], 10).is_none());
    }

    #[test]
    fn decode_is_counted_from_the_first_token() {
        let started = Instant::now();
        let at = |ms| started + Duration::from_millis(ms);
        let three = timing(started, &[at(100), at(110), at(130)], 4).unwrap();
        assert!((three.tpot_ms.unwrap() - 15.0).abs() < 1e-9);
        assert_eq!(three.inter_token_ms, [10.0, 20.0]);
    }

    #[test]
    fn figures_follow_their_definitions() {
        let started = Instant::now();
        let at = |ms| started + Duration::from_millis(ms);
        let generation = Generation {
            token_ids: vec![1, 2, 3],
            finish_reason: None,
            started,
            token_times: vec![at(100), at(110), at(120)],
            flash_attn: true,
            kv_bytes: 5_000_000,
            weight_bytes_per_token: 1e9,
        };
        let footprint = Footprint {
            weight_bytes: 2_000_000_000,
            workspace_bytes: 0,
            kv_bytes_per_token: 1_000_000,
        };
        let mut opened = Opened {
            footprint,
            stored_bytes: 2_000_000_000,
            load_s: 4.0,
            download_s: Some(7.0),
            read_bandwidth_gb_s: Some(202.3),
        };
        let timing = timing(started, &generation.token_times, 10).unwrap();
        let found = figures(&generation, &timing, 10, &opened);
        // 10 tokens of the prompt and half of the 3 that followed.
        assert_eq!(found.bytes_per_token, Some(1e9 + 11.5e6));
        // 100 tok/s of the 200 that 202.3 GB/s allow.
        assert!((found.roofline_pct.unwrap() - 50.0).abs() < 1e-6, "{found:?}");
        assert_eq!((found.load_gb_s, found.download_s), (0.5, Some(7.0)));
        assert_eq!((found.itl_p50_ms, found.itl_p99_ms), (Some(10.0), Some(10.0)));
        assert_eq!((found.model_memory_gb, found.kv_memory_gb), (2.0, 0.005));
        assert!(found.flash_attn && found.tokens_generated == 3 && found.gpu_free_gb.is_none());
        opened.read_bandwidth_gb_s = None;
        opened.load_s = 0.0;
        let found = figures(&generation, &timing, 10, &opened);
        assert_eq!((found.roofline_pct, found.load_gb_s), (None, 0.0));
    }
}
