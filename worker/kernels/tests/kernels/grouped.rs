//! Experts over many tokens: choice, sorting, products on the tensor cores, weighted sum.

use bakeoff_kernels::grouped::{
    CombineRows, ExpertPlan, GroupedDown, GroupedGateUp, RouterRows, SortByExpert,
};

use crate::tools::{Check, Outcome, chosen, matvec, silu_mul};

pub fn experts(
    c: &mut Check,
    hidden: u32,
    inter: u32,
    experts: u32,
    top_k: u32,
    renormalise: bool,
) -> Outcome {
    let (k, i, e, t) = (hidden as usize, inter as usize, experts as usize, top_k as usize);
    let router = c.numbers(e * k, 0.0, 0.02);
    let (gate_up, down) = (c.numbers(e * 2 * i * k, 0.0, 0.02), c.numbers(e * k * i, 0.0, 0.02));
    let (router_d, gate_up_d, down_d) = (c.halves(&router), c.halves(&gate_up), c.halves(&down));
    let loads_d = c.upload(&[0u64]);
    let name = format!("experts {top_k}/{experts} {hidden}x{inter}");
    let mlp = |x: &[f64], ids: &[usize], weights: &[f64]| {
        let mut sum = vec![0.0; k];
        for (&id, weight) in ids.iter().zip(weights) {
            let act = silu_mul(&matvec(&gate_up[id * 2 * i * k..][..2 * i * k], x));
            let y = matvec(&down[id * k * i..][..k * i], &act);
            sum.iter_mut().zip(y).for_each(|(s, y)| *s += weight * y);
        }
        sum
    };
    let tokens = 77u32;
    let n = tokens as usize;
    let x = c.numbers(n * k, 0.0, 1.0);
    let residual = c.numbers(n * k, 0.0, 0.001);
    let (x_d, residual_d, logits_d) = (c.halves(&x), c.floats(&residual), c.poisoned_floats(n * e));
    let slots = n * t;
    let (plan_ids, plan_weights) = (c.upload(&vec![u32::MAX; slots]), c.poisoned_floats(slots));
    let (offsets, token_of) = (c.upload(&vec![u32::MAX; e + 1]), c.upload(&vec![u32::MAX; slots]));
    let slot_of = c.upload(&vec![u32::MAX; slots]);
    let tiles =
        c.upload(&vec![u32::MAX; 2 * ExpertPlan::tiles_len(tokens, experts, top_k) as usize]);
    let counts = c.upload(&[u32::MAX; 2]);
    let plan = ExpertPlan {
        ids: plan_ids.at,
        weights: plan_weights.at,
        offsets: offsets.at,
        token_of: token_of.at,
        slot_of: slot_of.at,
        tiles: tiles.at,
        counts: counts.at,
        expert_loads: Some(loads_d.at),
        tokens,
        experts,
        top_k,
        renormalise: renormalise.into(),
    };
    let (act, out) = (c.poisoned_halves(slots * i), c.poisoned_halves(slots * k));
    c.launch(&RouterRows { x: x_d.at, weight: router_d.at, logits: logits_d.at, plan, hidden })?;
    c.launch(&SortByExpert { plan })?;
    c.launch(&GroupedGateUp { x: x_d.at, weight: gate_up_d.at, act: act.at, plan, hidden, inter })?;
    c.launch(&GroupedDown { act: act.at, weight: down_d.at, out: out.at, plan, hidden, inter })?;
    c.launch(&CombineRows { out: out.at, h: residual_d.at, plan, hidden })?;
    let logits = c.read_floats(&logits_d);
    let got = c.read_floats(&residual_d);
    let mut distinct = vec![false; e];
    for token in 0..n {
        chosen(&logits[token * e..][..e], t, renormalise)
            .0
            .iter()
            .for_each(|&id| distinct[id] = true);
    }
    let distinct = distinct.iter().filter(|&&used| used).count() as u64;
    let loads = c.read(&loads_d)[0];
    c.report(&format!("{name}, loads"), loads == distinct, &format!("{loads}"));
    for token in [0, n / 2, n - 1] {
        let (x, logits) = (&x[token * k..][..k], &logits[token * e..][..e]);
        c.close(&format!("{name}, router_rows {token}"), logits, &matvec(&router, x), 1e-5);
        let (ids, weights) = chosen(logits, t, renormalise);
        let delta: Vec<f64> =
            (0..k).map(|j| got[token * k + j] - residual[token * k + j]).collect();
        c.close(&format!("{name}, grouped {token}"), &delta, &mlp(x, &ids, &weights), 8e-3);
    }
    Ok(())
}
