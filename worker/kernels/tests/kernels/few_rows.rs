//! What short prompts need: the MLP, and attention.

use bakeoff_kernels::few_rows::{AttendRows, DownRows, GateUpRows};

use crate::tools::{Check, Outcome, dot, matvec, silu_mul};

pub fn mlp(c: &mut Check, tokens: u32, hidden: u32, inter: u32) -> Outcome {
    let (n, k, i) = (tokens as usize, hidden as usize, inter as usize);
    let x = c.numbers(n * k, 0.0, 1.0);
    let (gate_up, down) = (c.numbers(2 * i * k, 0.0, 0.02), c.numbers(i * k, 0.0, 0.02));
    let (x_d, gate_up_d, down_d) = (c.halves(&x), c.halves(&gate_up), c.halves(&down));
    let act_d = c.poisoned_halves(n * i);
    c.launch(&GateUpRows {
        x: x_d.at,
        weight: gate_up_d.at,
        act: act_d.at,
        tokens,
        hidden,
        inter,
    })?;
    let before = c.numbers(n * k, 0.0, 1.0);
    let h_d = c.floats(&before);
    c.launch(&DownRows { act: act_d.at, weight: down_d.at, h: h_d.at, tokens, hidden, inter })?;
    let (act, h) = (c.read_halves(&act_d), c.read_floats(&h_d));
    let name = format!("few rows {tokens}, {hidden}x{inter}");
    let finite = act.iter().chain(&h).all(|v| v.is_finite());
    c.report(&format!("{name}, all"), finite, "written");
    for row in [0, n / 2, n - 1] {
        let want = silu_mul(&matvec(&gate_up, &x[row * k..][..k]));
        let act = &act[row * i..][..i];
        c.close(&format!("{name}, gate_up_rows {row}"), act, &want, 4e-3);
        let delta: Vec<f64> = (row * k..(row + 1) * k).map(|at| h[at] - before[at]).collect();
        c.close(&format!("{name}, down_rows {row}"), &delta, &matvec(&down, act), 1e-4);
    }
    Ok(())
}

/// Queries and result share a buffer, as they do in the engine.
pub fn attend(
    c: &mut Check,
    tokens: u32,
    position: u32,
    (heads, kv_heads): (u32, u32),
    head_dim: u32,
) -> Outcome {
    let (n, nh, nkv, d) = (tokens as usize, heads as usize, kv_heads as usize, head_dim as usize);
    let keys = position as usize + n;
    let (q, scale) = (c.numbers(n * nh * d, 0.0, 2.0), 1.0 / f64::from(head_dim).sqrt());
    let (k, v) = (c.numbers(keys * nkv * d, 0.0, 1.0), c.numbers(keys * nkv * d, 0.1, 1.0));
    let poison = vec![f64::NAN; nkv * d];
    let (k_d, v_d) =
        (c.halves(&[k.clone(), poison.clone()].concat()), c.halves(&[v.clone(), poison].concat()));
    let q_d = c.halves(&q);
    c.launch(&AttendRows {
        q: q_d.at,
        k_cache: k_d.at,
        v_cache: v_d.at,
        out: q_d.at,
        position,
        tokens,
        heads,
        kv_heads,
        head_dim,
        scale: scale as f32,
    })?;
    let got = c.read_halves(&q_d);
    let mut want = Vec::with_capacity(got.len());
    for token in 0..n {
        for head in 0..nh {
            let at = |key: usize| (key * nkv + head / (nh / nkv)) * d;
            let query = &q[(token * nh + head) * d..][..d];
            let scores: Vec<f64> = (0..=position as usize + token)
                .map(|key| dot(query, &k[at(key)..][..d]) * scale)
                .collect();
            let largest = scores.iter().copied().fold(f64::MIN, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
            let total: f64 = weights.iter().sum();
            want.extend((0..d).map(|i| {
                weights.iter().enumerate().map(|(key, w)| w * v[at(key) + i]).sum::<f64>() / total
            }));
        }
    }
    let name = format!("attend_rows {tokens} at {position}, {heads}/{kv_heads}x{head_dim}");
    c.close(&name, &got, &want, 5e-3);
    Ok(())
}
