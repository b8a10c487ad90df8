//! From time stamps to figures. Definitions: ARCHITECTURE.md, "Metrics".

use std::time::Instant;

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

/// The value below which `share` of the values lie (nearest rank). `None` of nothing.
pub fn percentile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
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
        assert_eq!(percentile(&three.inter_token_ms, 0.5), Some(10.0));
        assert_eq!(percentile(&three.inter_token_ms, 0.99), Some(20.0));
        assert_eq!(percentile(&[], 0.5), None);
    }
}
