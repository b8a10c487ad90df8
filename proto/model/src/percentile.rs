//! Percentiles, by one definition for records, reports and benchmarks.
//!
//! Linear interpolation between the two nearest ranks, numpy's default: what vLLM's benchmark and
//! GuideLLM report, and the usual median of an even number of values.

/// The value below which `percent` of the values lie, 0 to 100. `None` of no values.
pub fn percentile(values: &[f64], percent: f64) -> Option<f64> {
    percentiles(values, [percent]).map(|[value]| value)
}

/// The middle value. `None` of no values.
pub fn median(values: &[f64]) -> Option<f64> {
    percentile(values, 50.0)
}

/// Several percentiles of the same values, which are sorted once. `None` of no values.
pub fn percentiles<const N: usize>(values: &[f64], percents: [f64; N]) -> Option<[f64; N]> {
    let last = values.len().checked_sub(1)?;
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    Some(percents.map(|percent| {
        let rank = (percent.clamp(0.0, 100.0) / 100.0) * last as f64;
        let (below, above) = (sorted[rank.floor() as usize], sorted[rank.ceil() as usize]);
        below + (above - below) * rank.fract()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_numpy() {
        // numpy.percentile([4, 1, 3, 2], [0, 25, 50, 95, 100])
        let found = percentiles(&[4.0, 1.0, 3.0, 2.0], [0.0, 25.0, 50.0, 95.0, 100.0]);
        let expected = [1.0, 1.75, 2.5, 3.85, 4.0];
        for (found, expected) in found.expect("values").into_iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
    }

    #[test]
    fn the_median_is_the_middle_and_nothing_has_none() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(percentile(&[7.0], 99.0), Some(7.0));
        assert_eq!(median(&[]), None);
    }
}
