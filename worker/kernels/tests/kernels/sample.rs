//! Sampling: what the filters keep, the distribution, penalties, faults.

use bakeoff_kernels::{
    DecodeState, RingEntry, SampleSettings, StopReason,
    sample::{MarkSeen, SampleStep},
};

use crate::tools::{Buffer, Check, Outcome, words};

/// What the filters keep: the lowest adjusted logit among the kept.
fn cut(adjusted: &[f64], s: &SampleSettings) -> f64 {
    let mut sorted = adjusted.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let largest = sorted[0];
    let mut cut = f64::NEG_INFINITY;
    if s.top_k > 0 {
        cut = sorted[(s.top_k as usize).min(sorted.len()) - 1];
    }
    if s.top_p < 1.0 {
        let kept: Vec<f64> = sorted.iter().copied().filter(|&v| v >= cut).collect();
        let total: f64 = kept.iter().map(|v| (v - largest).exp()).sum();
        let mut above = 0.0;
        for value in kept {
            cut = value;
            above += (value - largest).exp();
            if above >= f64::from(s.top_p) * total {
                break;
            }
        }
    }
    if s.min_p > 0.0 { cut.max(largest + f64::from(s.min_p).ln()) } else { cut }
}

pub fn sampling(c: &mut Check, rows: u32, draws: u32) -> Outcome {
    let (n, hidden) = (rows as usize, 64u32);
    let (logits, embedding) = (c.numbers(n, 0.0, 2.0), c.numbers(n * hidden as usize, 0.0, 1.0));
    let (mut logits_d, embedding_d) = (c.floats(&logits), c.halves(&embedding));
    let h_d = c.poisoned_floats(hidden as usize);
    // Device memory does for a ring that the host reads only after synchronising.
    let ring = c.upload(&vec![0u64; 64]);
    let seen_tokens: Vec<u32> = (0..n as u32).step_by(3).collect();
    let tokens_d = c.upload(&seen_tokens);
    let vocab = rows - rows / 50;
    let base = SampleSettings {
        temperature: 0.7,
        top_p: 1.0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        top_k: 0,
        vocab,
        eos_count: 0,
        forced_count: 0,
        eos: [0; SampleSettings::MAX_EOS],
    };
    let run =
        |c: &Check, settings: &SampleSettings, step: u32, logits: &Buffer<f32>, eos_after: u32| {
            let state = DecodeState {
                seed: 7,
                position: step + 9,
                step,
                cache_len: 1 << 20,
                max_steps: eos_after,
                ..Default::default()
            };
            // Each draw starts from the same tokens seen, and adds its own.
            let seen = c.upload(&vec![0u32; n.div_ceil(32)]);
            let count = seen_tokens.len() as u32;
            c.launch(&MarkSeen { tokens: tokens_d.at, seen: seen.at, count, rows })?;
            let (state_d, settings_d) = (c.upload(&words(&state)), c.upload(&words(settings)));
            c.launch(&SampleStep {
                logits: logits.at,
                state: state_d.at.cast(),
                settings: settings_d.at.cast(),
                seen: seen.at,
                forced: None,
                ring: ring.at.cast(),
                control: None,
                embedding: embedding_d.at,
                h: h_d.at,
                rows,
                hidden,
                ring_capacity: 64,
            })
            .map(|()| RingEntry(c.read(&ring)[step as usize % 64]))
        };
    let adjusted = |s: &SampleSettings| -> Vec<f64> {
        let by = if s.temperature > 0.0 { f64::from(s.temperature) } else { 1.0 };
        let penalty = f64::from(s.repetition_penalty);
        (0..vocab as usize)
            .map(|t| match (t % 3 == 0, logits[t] > 0.0) {
                (true, true) => logits[t] / penalty / by,
                (true, false) => logits[t] * penalty / by,
                _ => logits[t] / by,
            })
            .collect()
    };
    for penalty in [1.0, 1.3] {
        let greedy = SampleSettings { temperature: 0.0, repetition_penalty: penalty, ..base };
        let entry = run(c, &greedy, 5, &logits_d, 6)?;
        let values = adjusted(&greedy);
        let best = (0..values.len())
            .rev()
            .max_by(|&a, &b| values[a].total_cmp(&values[b]))
            .expect("a vocabulary");
        let holds = entry.token() as usize == best
            && entry.step() == Some(5)
            && entry.stop() == Some(StopReason::Length);
        c.report(
            &format!("greedy of {rows}, penalty {penalty}"),
            holds,
            &format!("{entry:?}, want {best}"),
        );
        let row = &embedding[best * hidden as usize..][..hidden as usize];
        c.close("   next embedding", &c.read_floats(&h_d), row, 1e-9);
    }
    for settings in [
        SampleSettings { top_p: 0.9, ..base },
        SampleSettings { top_p: 0.9, top_k: 50, ..base },
        SampleSettings { temperature: 1.0, top_p: 0.5, ..base },
        SampleSettings { temperature: 1.0, min_p: 0.1, ..base },
        SampleSettings { temperature: 1.0, top_k: 20, repetition_penalty: 1.2, ..base },
        SampleSettings { temperature: 0.05, top_p: 0.9, ..base },
        base,
    ] {
        let values = adjusted(&settings);
        let cut = cut(&values, &settings);
        let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let (mut total, mut mean, mut square) = (0.0, 0.0, 0.0);
        for value in values.iter().filter(|&&v| v >= cut) {
            let weight = (value - largest).exp();
            total += weight;
            mean += weight * value;
            square += weight * value * value;
        }
        mean /= total;
        let deviation = (square / total - mean * mean).max(0.0).sqrt();
        let (mut drawn, mut below) = (0.0, 0);
        for step in 0..draws {
            let token = run(c, &settings, step, &logits_d, 1 << 20)?.token() as usize;
            below += usize::from(token >= values.len() || values[token] < cut - 1e-4);
            drawn += values.get(token).copied().unwrap_or(f64::NAN);
        }
        drawn /= f64::from(draws);
        // Five standard errors: one false alarm in a million.
        let slack = 5.0 * deviation / f64::from(draws).sqrt() + 1e-3;
        let name = format!(
            "sample T{} p{} k{} m{}",
            settings.temperature, settings.top_p, settings.top_k, settings.min_p
        );
        let seen = format!("{below} outside, mean {drawn:.3}, want {mean:.3} within {slack:.3}");
        c.report(&name, below == 0 && (drawn - mean).abs() < slack, &seen);
    }
    let again = (run(c, &base, 3, &logits_d, 100)?, run(c, &base, 3, &logits_d, 100)?);
    c.report(
        "the same seed and step draw the same token",
        again.0 == again.1,
        &format!("{again:?}"),
    );
    for (value, what) in [(f32::NAN, "NaN"), (f32::INFINITY, "infinity")] {
        let mut broken: Vec<f32> = logits.iter().map(|&v| v as f32).collect();
        broken[n / 2] = value;
        logits_d = c.upload(&broken);
        let entry = run(c, &base, 2, &logits_d, 100)?;
        c.report(
            &format!("{what} stops"),
            entry.stop() == Some(StopReason::Error),
            &format!("{entry:?}"),
        );
    }
    Ok(())
}
