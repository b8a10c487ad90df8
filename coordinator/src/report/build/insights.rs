//! Key insights: sentences that the numbers support. One that does not hold is not said.

use super::warnings::ABOVE_BOUND_PCT;
use crate::report::model::{Insight, Measure, Variant};

/// `variants`: those about which something may be concluded.
pub fn find(variants: &[&Variant], measure: Measure) -> Vec<Insight> {
    [
        specialised_or_general(variants, measure),
        size_or_speed(variants),
        experts_or_dense(variants),
        truncation(variants, measure),
        near_the_bound(variants),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn insight(title: &str, text: String, rests_on: &[&Variant]) -> Insight {
    Insight {
        title: title.to_owned(),
        text,
        rests_on: rests_on.iter().map(|v| (v.name.clone(), v.anchor.clone())).collect(),
    }
}

fn mean_of(variants: &[&Variant], of: fn(&Variant) -> Option<f64>) -> Option<f64> {
    let values: Vec<f64> = variants.iter().filter_map(|v| of(v)).collect();
    (!values.is_empty()).then(|| crate::stats::mean(&values))
}

fn specialised_or_general(variants: &[&Variant], measure: Measure) -> Option<Insight> {
    let quality = |v: &Variant| v.quality.map(|q| q.mean);
    let (special, general): (Vec<&Variant>, Vec<&Variant>) =
        variants.iter().copied().filter(|v| quality(v).is_some()).partition(|v| v.specialised);
    let (s, g) = (mean_of(&special, quality)?, mean_of(&general, quality)?);
    let least = if measure == Measure::Stars { 0.5 } else { 0.1 };
    if (s - g).abs() < least {
        return None;
    }
    let (winner, loser, high, low) = if s > g {
        ("Models made for code", "general ones", s, g)
    } else {
        ("General models", "those made for code", g, s)
    };
    let cut = if general.iter().chain(&special).any(|v| v.truncated > 0) {
        " Truncated outputs are among them: see the warnings."
    } else {
        ""
    };
    let all: Vec<&Variant> = special.iter().chain(&general).copied().collect();
    let text = format!(
        "{winner} score {} on average, {loser} {}.{cut}",
        measure.show(high),
        measure.show(low)
    );
    Some(insight("Specialised or general", text, &all))
}

fn size_or_speed(variants: &[&Variant]) -> Option<Insight> {
    let mut dense: Vec<(&Variant, f64, f64)> = variants
        .iter()
        .copied()
        .filter(|v| !v.mixture_of_experts)
        .filter_map(|v| Some((v, v.model_memory_gb.filter(|gb| *gb > 0.0)?, v.tok_per_s?.mean)))
        .collect();
    dense.sort_by(|a, b| a.1.total_cmp(&b.1));
    let ((small, small_gb, fast), (large, large_gb, slow)) = (dense.first()?, dense.last()?);
    let (more, times) = (large_gb / small_gb, fast / slow);
    if more < 1.5 || times < 1.1 {
        return None;
    }
    let text = format!(
        "{} holds {more:.1} times the bytes of {} and runs at 1/{times:.1} of its speed \
        ({slow:.1} against {fast:.1} tok/s): decoding reads every weight for each token.",
        large.name, small.name
    );
    Some(insight("Size costs speed", text, &[small, large]))
}

fn experts_or_dense(variants: &[&Variant]) -> Option<Insight> {
    let speed = |v: &Variant| v.tok_per_s.map(|s| s.mean);
    let (experts, dense): (Vec<&Variant>, Vec<&Variant>) =
        variants.iter().copied().filter(|v| speed(v).is_some()).partition(|v| v.mixture_of_experts);
    let expert = experts
        .iter()
        .copied()
        .max_by(|a, b| speed(a).unwrap_or(0.0).total_cmp(&speed(b).unwrap_or(0.0)))?;
    // The dense model of the nearest size is the fair one to compare with.
    let gb = |v: &Variant| v.model_memory_gb.unwrap_or(0.0);
    let peer = dense
        .iter()
        .copied()
        .min_by(|a, b| (gb(a) - gb(expert)).abs().total_cmp(&(gb(b) - gb(expert)).abs()))?;
    let (e, d) = (speed(expert)?, speed(peer)?);
    let less = expert.size.and_then(|size| {
        let read = size.read_bytes_per_token?;
        Some(size.weight_bytes as f64 / read as f64)
    });
    let reads = less.map_or_else(String::new, |less| {
        format!(" although it reads only 1/{less:.0} of its weights for a token")
    });
    if e < d * 0.95 {
        let text = format!(
            "{} generates {e:.1} tok/s, the dense {} {d:.1},{reads}. A slow engine, not a slow \
            model: its routing is not worth its savings here.",
            expert.name, peer.name
        );
        return Some(insight("Experts slower than dense", text, &[expert, peer]));
    }
    if e > d * 1.05 {
        let text = format!(
            "{} generates {e:.1} tok/s, the dense {} of similar size {d:.1}: {:.1} times as fast, \
            since few experts are read for a token.",
            expert.name,
            peer.name,
            e / d
        );
        return Some(insight("Experts pay off", text, &[expert, peer]));
    }
    None
}

fn truncation(variants: &[&Variant], measure: Measure) -> Option<Insight> {
    let cut: Vec<&Variant> = variants.iter().copied().filter(|v| v.truncated > 0).collect();
    if cut.is_empty() {
        return None;
    }
    let names: Vec<_> = cut.iter().map(|v| v.name.as_str()).collect();
    let outputs: usize = cut.iter().map(|v| v.truncated).sum();
    let thinking = cut.iter().filter(|v| v.thinking_share > 0.0).count();
    let spent = if thinking > 0 {
        let share = cut.iter().map(|v| v.thinking_share).fold(0.0, f64::max);
        format!(" Up to {:.0} % of their tokens went into thinking.", share * 100.0)
    } else {
        String::new()
    };
    let whole: Vec<&Variant> = variants.iter().copied().filter(|v| v.truncated == 0).collect();
    let quality = |v: &Variant| v.quality.map(|q| q.mean);
    let verdict = match (mean_of(&cut, quality), mean_of(&whole, quality)) {
        (Some(cut), Some(whole)) if cut < whole => format!(
            " They score {}, the others {}: part of that is the limit, not the model.",
            measure.show(cut),
            measure.show(whole)
        ),
        _ => String::new(),
    };
    let text = format!(
        "{outputs} of {} outputs hit the token limit: those of {}.{spent}{verdict}",
        variants.iter().map(|v| v.done).sum::<usize>(),
        names.join(", ")
    );
    Some(insight("Cut off by the limit", text, &cut))
}

fn near_the_bound(variants: &[&Variant]) -> Option<Insight> {
    // Above its bound a model is read from a cache: the warnings say so.
    let mut known: Vec<(&Variant, f64)> = variants
        .iter()
        .copied()
        .filter_map(|v| Some((v, v.roofline_pct?)))
        .filter(|(_, percent)| *percent <= ABOVE_BOUND_PCT)
        .collect();
    known.sort_by(|a, b| a.1.total_cmp(&b.1));
    let ((low, least), (high, most)) = (known.first()?, known.last()?);
    let text = if known.len() == 1 || most - least < 1.0 {
        format!("{} reaches {most:.0} % of what this memory bandwidth allows.", high.name)
    } else {
        format!(
            "{} reaches {most:.0} % of what the memory bandwidth allows, {} {least:.0} %: what is \
            missing to 100 % is the engine's, not the model's.",
            high.name, low.name
        )
    };
    Some(insight("Distance to the bound", text, &[low, high]))
}
