//! Checks every kernel against plain FP64 code on the host, on a GPU: fresh random inputs (another
//! seed as the first argument repeats a run), poisoned outputs, odd sizes, and the shapes of the
//! models this crate is tuned for. Prints a line a check; exits with 1 if one fails.
//!
//! It is an example, not a test, so that it can be built where there is no GPU and carried to one;
//! `compute-sanitizer` takes it with the argument `small`.

use std::{process::ExitCode, sync::Arc, time::SystemTime};

use bakeoff_kernels::{
    DecodeState, DevicePtr, Launcher, RingEntry, SampleSettings, StopReason,
    attention::DecodeAttention,
    grouped::{CombineRows, ExpertPlan, GroupedDown, GroupedGateUp, RouterRows, SortByExpert},
    linear::{LinearResidual, NormGateUp, NormLinear},
    moe::{ExpertDown, ExpertGateUp, Router},
    rows::{AddNormRows, EmbedRows, QkvRows, SiluMulRows},
    sample::{MarkSeen, SampleStep},
    util::{FillRandom, measure_read_bandwidth},
};
use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DevicePtr as _, DeviceRepr};
use half::bf16;

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// A device buffer and its address.
struct Buffer<T> {
    slice: CudaSlice<T>,
    at: DevicePtr<T>,
}

struct Check {
    stream: Arc<CudaStream>,
    launcher: Launcher,
    seed: u64,
    failed: usize,
}

impl Check {
    fn new(seed: u64) -> Result<Self, Box<dyn std::error::Error>> {
        let stream = CudaContext::new(0)?.new_stream()?;
        Ok(Self { launcher: Launcher::new(stream.clone())?, stream, seed, failed: 0 })
    }

    fn next(&mut self) -> u64 {
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.seed >> 11
    }

    /// Roughly normal numbers, rounded to BF16 so that either type holds them exactly.
    fn numbers(&mut self, count: usize, mean: f64, deviation: f64) -> Vec<f64> {
        (0..count)
            .map(|_| {
                let sum: f64 = (0..4).map(|_| (self.next() & 0xffff) as f64 / 65_536.0 - 0.5).sum();
                bf16::from_f64(mean + deviation * sum * 3f64.sqrt()).to_f64()
            })
            .collect()
    }

    fn upload<T: DeviceRepr + Clone>(&self, values: &[T]) -> Buffer<T> {
        let slice = self.stream.clone_htod(values).expect("device memory for a test");
        let at = slice.device_ptr(&self.stream).0;
        Buffer { slice, at: DevicePtr::new(at).expect("an allocation") }
    }

    fn halves(&self, values: &[f64]) -> Buffer<bf16> {
        self.upload(&values.iter().map(|&v| bf16::from_f64(v)).collect::<Vec<_>>())
    }

    fn floats(&self, values: &[f64]) -> Buffer<f32> {
        self.upload(&values.iter().map(|&v| v as f32).collect::<Vec<_>>())
    }

    fn poisoned_halves(&self, count: usize) -> Buffer<bf16> {
        self.upload(&vec![bf16::NAN; count])
    }

    fn poisoned_floats(&self, count: usize) -> Buffer<f32> {
        self.upload(&vec![f32::NAN; count])
    }

    fn read<T: DeviceRepr + Clone + Default>(&self, buffer: &Buffer<T>) -> Vec<T> {
        self.stream.clone_dtoh(&buffer.slice).expect("the kernel ran")
    }

    fn read_halves(&self, buffer: &Buffer<bf16>) -> Vec<f64> {
        self.read(buffer).into_iter().map(|v| v.to_f64()).collect()
    }

    fn read_floats(&self, buffer: &Buffer<f32>) -> Vec<f64> {
        self.read(buffer).into_iter().map(f64::from).collect()
    }

    fn report(&mut self, name: &str, holds: bool, seen: &str) {
        println!("{} {name}: {seen}", if holds { "ok  " } else { "FAIL" });
        self.failed += usize::from(!holds);
    }

    /// Relative error in the Euclidean norm; a NaN anywhere fails.
    fn close(&mut self, name: &str, got: &[f64], want: &[f64], tolerance: f64) {
        assert_eq!(got.len(), want.len(), "{name}");
        let norm: f64 = want.iter().map(|w| w * w).sum();
        let error: f64 = got.iter().zip(want).map(|(g, w)| (g - w) * (g - w)).sum();
        let relative = (error / norm).sqrt();
        self.report(
            name,
            relative < tolerance,
            &format!("relative error {relative:.2e} of {tolerance:.0e}"),
        );
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn matvec(weight: &[f64], x: &[f64]) -> Vec<f64> {
    weight.chunks_exact(x.len()).map(|row| dot(row, x)).collect()
}

fn normed(h: &[f64], gamma: &[f64], eps: f64) -> Vec<f64> {
    let scale = (dot(h, h) / h.len() as f64 + eps).sqrt().recip();
    h.iter().zip(gamma).map(|(h, g)| h * scale * g).collect()
}

fn silu_mul(pairs: &[f64]) -> Vec<f64> {
    pairs.chunks_exact(2).map(|p| p[0] / (1.0 + (-p[0]).exp()) * p[1]).collect()
}

fn rotated(x: &[f64], cos: &[f64], sin: &[f64]) -> Vec<f64> {
    let half = x.len() / 2;
    let low = (0..half).map(|i| x[i] * cos[i] - x[half + i] * sin[i]);
    low.chain((0..half).map(|i| x[half + i] * cos[i] + x[i] * sin[i])).collect()
}

/// (ids, weights), most likely first, lower id first among equals.
fn chosen(logits: &[f64], top_k: usize, renormalise: bool) -> (Vec<usize>, Vec<f64>) {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    let largest = logits[order[0]];
    let total: f64 = logits.iter().map(|l| (l - largest).exp()).sum();
    order.truncate(top_k);
    let mut weights: Vec<f64> = order.iter().map(|&e| (logits[e] - largest).exp()).collect();
    let by = if renormalise { weights.iter().sum() } else { total };
    weights.iter_mut().for_each(|w| *w /= by);
    (order, weights)
}

fn linear(c: &mut Check, rows: u32, inner: u32) -> Outcome {
    let (r, k) = (rows as usize, inner as usize);
    let (h, x) = (c.numbers(k, 0.0, 1.0), c.numbers(k, 0.0, 1.0));
    let (gamma, bias) = (c.numbers(k, 1.0, 0.1), c.numbers(r, 0.0, 0.5));
    let (weight, residual) = (c.numbers(r * k, 0.0, 0.02), c.numbers(r, 0.0, 1.0));
    let (h_d, x_d, gamma_d) = (c.floats(&h), c.halves(&x), c.halves(&gamma));
    let (bias_d, weight_d, residual_d) = (c.halves(&bias), c.halves(&weight), c.floats(&residual));
    let of_norm = matvec(&weight, &normed(&h, &gamma, 1e-6));
    if k <= 16_384 {
        let out = c.poisoned_floats(r);
        NormLinear {
            h: h_d.at,
            gamma: gamma_d.at,
            weight: weight_d.at,
            bias: Some(bias_d.at),
            out: out.at,
            state: None,
            hidden: inner,
            rows,
            eps: 1e-6,
        }
        .launch(&c.launcher)?;
        let want: Vec<f64> = of_norm.iter().zip(&bias).map(|(o, b)| o + b).collect();
        c.close(&format!("norm_linear {rows}x{inner}"), &c.read_floats(&out), &want, 1e-5);
        if rows.is_multiple_of(2) {
            let out = c.poisoned_halves(r / 2);
            NormGateUp {
                h: h_d.at,
                gamma: gamma_d.at,
                weight: weight_d.at,
                out: out.at,
                state: None,
                hidden: inner,
                inter: rows / 2,
                eps: 1e-6,
            }
            .launch(&c.launcher)?;
            let got = c.read_halves(&out);
            c.close(&format!("norm_gate_up {}x{inner}", rows / 2), &got, &silu_mul(&of_norm), 4e-3);
        }
    }
    LinearResidual {
        x: x_d.at,
        weight: weight_d.at,
        h: residual_d.at,
        state: None,
        inner,
        hidden: rows,
    }
    .launch(&c.launcher)?;
    let want: Vec<f64> = matvec(&weight, &x).iter().zip(&residual).map(|(o, h)| o + h).collect();
    c.close(&format!("linear_residual {rows}x{inner}"), &c.read_floats(&residual_d), &want, 1e-5);
    Ok(())
}

/// The decode kernel at `position`, and the prefill step that writes the same cache row.
fn attention(
    c: &mut Check,
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    position: u32,
    norms: bool,
) -> Outcome {
    let (nh, nkv, d, len) =
        (heads as usize, kv_heads as usize, head_dim as usize, position as usize + 4);
    let row = nkv * d;
    let qkv = c.numbers((nh + 2 * nkv) * d, 0.0, 2.0);
    let (q_norm, k_norm) = (c.numbers(d, 1.0, 0.1), c.numbers(d, 1.0, 0.1));
    let (mut keys, mut values) = (c.numbers(len * row, 0.0, 1.0), c.numbers(len * row, 0.0, 1.0));
    for cache in [&mut keys, &mut values] {
        cache[position as usize * row..].fill(f64::NAN);
    }
    let angle =
        |at: usize| (at / (d / 2)) as f64 * 1e6f64.powf(-2.0 * (at % (d / 2)) as f64 / d as f64);
    let (cos, sin): (Vec<f64>, Vec<f64>) = (0..len * d / 2)
        .map(|at| (f64::from(angle(at).cos() as f32), f64::from(angle(at).sin() as f32)))
        .unzip();
    let state = DecodeState { position, cache_len: len as u32, ..Default::default() };
    let (state_d, out) = (c.upload(&words(&state)), c.poisoned_halves(nh * d));
    let (qkv_d, q_norm_d, k_norm_d) = (c.floats(&qkv), c.halves(&q_norm), c.halves(&k_norm));
    let (cos_d, sin_d, keys_d, values_d) =
        (c.floats(&cos), c.floats(&sin), c.halves(&keys), c.halves(&values));
    let scale = (d as f64).sqrt().recip();
    DecodeAttention {
        qkv: qkv_d.at,
        q_norm: norms.then_some(q_norm_d.at),
        k_norm: norms.then_some(k_norm_d.at),
        cos: cos_d.at,
        sin: sin_d.at,
        k_cache: keys_d.at,
        v_cache: values_d.at,
        out: out.at,
        state: state_d.at.cast(),
        prefetch: None,
        prefetch_bytes: 0,
        heads,
        kv_heads,
        head_dim,
        eps: 1e-6,
        scale: scale as f32,
    }
    .launch(&c.launcher)?;
    let table = position as usize * d / 2..(position as usize + 1) * d / 2;
    let prepare = |x: &[f64], norm: &[f64]| {
        let x = if norms { normed(x, norm, 1e-6) } else { x.to_vec() };
        rotated(&x, &cos[table.clone()], &sin[table.clone()])
    };
    let (name, at) =
        (format!("attention {heads}/{kv_heads}x{head_dim} at {position}"), position as usize * row);
    let new_keys: Vec<f64> =
        qkv[nh * d..(nh + nkv) * d].chunks(d).flat_map(|k| prepare(k, &k_norm)).collect();
    let (keys, values) = (c.read_halves(&keys_d), c.read_halves(&values_d));
    c.close(&format!("{name}, key written"), &keys[at..at + row], &new_keys, 4e-3);
    c.close(&format!("{name}, value written"), &values[at..at + row], &qkv[(nh + nkv) * d..], 4e-3);
    let mut want = Vec::with_capacity(nh * d);
    for (head, q) in qkv[..nh * d].chunks(d).enumerate() {
        let (q, kv) = (prepare(q, &q_norm), head / (nh / nkv) * d);
        let scores: Vec<f64> =
            (0..=position as usize).map(|t| dot(&q, &keys[t * row + kv..][..d]) * scale).collect();
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
        let total: f64 = weights.iter().sum();
        want.extend((0..d).map(|i| {
            weights.iter().enumerate().map(|(t, w)| w * values[t * row + kv + i]).sum::<f64>()
                / total
        }));
    }
    c.close(&name, &c.read_halves(&out), &want, 8e-3);

    let tokens = (position + 1).min(3);
    let rows = c.numbers(tokens as usize * (nh + 2 * nkv) * d, 0.0, 2.0);
    let (rows_d, bias) = (c.halves(&rows), c.numbers((nh + 2 * nkv) * d, 0.0, 0.5));
    let (bias_d, q_out) = (c.halves(&bias), c.poisoned_halves(tokens as usize * nh * d));
    let (new_k, new_v) = (c.poisoned_halves(len * row), c.poisoned_halves(len * row));
    let first = position + 1 - tokens;
    QkvRows {
        qkv: rows_d.at,
        bias: Some(bias_d.at),
        q_norm: norms.then_some(q_norm_d.at),
        k_norm: norms.then_some(k_norm_d.at),
        cos: cos_d.at,
        sin: sin_d.at,
        q_out: q_out.at,
        k_cache: new_k.at,
        v_cache: new_v.at,
        position: first,
        tokens,
        cache_len: len as u32,
        heads,
        kv_heads,
        head_dim,
        eps: 1e-6,
    }
    .launch(&c.launcher)?;
    let last: Vec<f64> =
        rows[(tokens as usize - 1) * bias.len()..].iter().zip(&bias).map(|(r, b)| r + b).collect();
    let want_q: Vec<f64> = last[..nh * d].chunks(d).flat_map(|q| prepare(q, &q_norm)).collect();
    let want_k: Vec<f64> =
        last[nh * d..(nh + nkv) * d].chunks(d).flat_map(|k| prepare(k, &k_norm)).collect();
    c.close(
        "   qkv_rows, queries",
        &c.read_halves(&q_out)[(tokens as usize - 1) * nh * d..],
        &want_q,
        4e-3,
    );
    c.close("   qkv_rows, keys", &c.read_halves(&new_k)[at..at + row], &want_k, 4e-3);
    c.close(
        "   qkv_rows, values",
        &c.read_halves(&new_v)[at..at + row],
        &last[(nh + nkv) * d..],
        4e-3,
    );
    Ok(())
}

/// A struct as words, since only plain numbers are uploaded.
fn words<T: Copy>(value: &T) -> Vec<u64> {
    // SAFETY: both structs this is used for are `repr(C)` without padding, a multiple of 8 bytes
    // long and aligned to more than that.
    unsafe {
        std::slice::from_raw_parts(std::ptr::from_ref(value).cast::<u64>(), size_of::<T>() / 8)
    }
    .to_vec()
}

fn experts(
    c: &mut Check,
    hidden: u32,
    inter: u32,
    experts: u32,
    top_k: u32,
    renormalise: bool,
) -> Outcome {
    let (k, i, e, t) = (hidden as usize, inter as usize, experts as usize, top_k as usize);
    let (h, gamma) = (c.numbers(k, 0.0, 0.01), c.numbers(k, 1.0, 0.1));
    let router = c.numbers(e * k, 0.0, 0.02);
    let (gate_up, down) = (c.numbers(e * 2 * i * k, 0.0, 0.02), c.numbers(e * k * i, 0.0, 0.02));
    let (h_d, gamma_d, router_d) = (c.floats(&h), c.halves(&gamma), c.halves(&router));
    let (gate_up_d, down_d) = (c.halves(&gate_up), c.halves(&down));
    let (logits_d, act_d) = (c.poisoned_floats(e), c.poisoned_floats(t * i));
    let (ids_d, weights_d, loads_d) =
        (c.upload(&vec![u32::MAX; t]), c.poisoned_floats(t), c.upload(&[0u64]));
    Router {
        h: h_d.at,
        gamma: gamma_d.at,
        weight: router_d.at,
        logits: logits_d.at,
        state: None,
        prefetch: None,
        prefetch_bytes: 0,
        hidden,
        experts,
        eps: 1e-6,
    }
    .launch(&c.launcher)?;
    ExpertGateUp {
        h: h_d.at,
        gamma: gamma_d.at,
        logits: logits_d.at,
        weight: gate_up_d.at,
        out: act_d.at,
        state: None,
        hidden,
        inter,
        experts,
        top_k,
        eps: 1e-6,
    }
    .launch(&c.launcher)?;
    ExpertDown {
        act: act_d.at,
        logits: logits_d.at,
        weight: down_d.at,
        h: h_d.at,
        ids: Some(ids_d.at),
        weights: Some(weights_d.at),
        expert_loads: Some(loads_d.at),
        state: None,
        hidden,
        inter,
        experts,
        top_k,
        renormalise: renormalise.into(),
    }
    .launch(&c.launcher)?;
    let name = format!("experts {top_k}/{experts} {hidden}x{inter}");
    let x = normed(&h, &gamma, 1e-6);
    let logits = c.read_floats(&logits_d);
    c.close(&format!("{name}, router"), &logits, &matvec(&router, &x), 1e-5);
    let mlp = |x: &[f64], ids: &[usize], weights: &[f64]| {
        let mut sum = vec![0.0; k];
        let mut acts = Vec::new();
        for (&id, weight) in ids.iter().zip(weights) {
            let act = silu_mul(&matvec(&gate_up[id * 2 * i * k..][..2 * i * k], x));
            let y = matvec(&down[id * k * i..][..k * i], &act);
            sum.iter_mut().zip(y).for_each(|(s, y)| *s += weight * y);
            acts.extend(act);
        }
        (sum, acts)
    };
    let (ids, weights) = chosen(&logits, t, renormalise);
    let got_ids: Vec<usize> = c.read(&ids_d).into_iter().map(|id| id as usize).collect();
    c.report(&format!("{name}, choice"), got_ids == ids, &format!("{got_ids:?}"));
    c.close(&format!("{name}, weights"), &c.read_floats(&weights_d), &weights, 1e-5);
    let (sum, acts) = mlp(&x, &ids, &weights);
    c.close(&format!("{name}, gate_up"), &c.read_floats(&act_d), &acts, 1e-4);
    let want: Vec<f64> = h.iter().zip(&sum).map(|(h, s)| h + s).collect();
    c.close(&format!("{name}, down"), &c.read_floats(&h_d), &want, 1e-5);

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
    RouterRows { x: x_d.at, weight: router_d.at, logits: logits_d.at, plan, hidden }
        .launch(&c.launcher)?;
    SortByExpert { plan }.launch(&c.launcher)?;
    GroupedGateUp { x: x_d.at, weight: gate_up_d.at, act: act.at, plan, hidden, inter }
        .launch(&c.launcher)?;
    GroupedDown { act: act.at, weight: down_d.at, out: out.at, plan, hidden, inter }
        .launch(&c.launcher)?;
    CombineRows { out: out.at, h: residual_d.at, plan, hidden }.launch(&c.launcher)?;
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
    c.report(&format!("{name}, loads"), loads == t as u64 + distinct, &format!("{loads}"));
    for token in [0, n / 2, n - 1] {
        let (x, logits) = (&x[token * k..][..k], &logits[token * e..][..e]);
        c.close(&format!("{name}, router_rows {token}"), logits, &matvec(&router, x), 1e-5);
        let (ids, weights) = chosen(logits, t, renormalise);
        let delta: Vec<f64> =
            (0..k).map(|j| got[token * k + j] - residual[token * k + j]).collect();
        c.close(&format!("{name}, grouped {token}"), &delta, &mlp(x, &ids, &weights).0, 8e-3);
    }
    Ok(())
}

fn rows(c: &mut Check, tokens: u32, hidden: u32) -> Outcome {
    let (n, k) = (tokens as usize, hidden as usize);
    let vocab = 101usize;
    let (table, gamma, y) =
        (c.numbers(vocab * k, 0.0, 1.0), c.numbers(k, 1.0, 0.1), c.numbers(n * k, 0.0, 1.0));
    let ids: Vec<u32> = (0..n).map(|_| (c.next() % vocab as u64) as u32).collect();
    let (ids_d, table_d, gamma_d, y_d) =
        (c.upload(&ids), c.halves(&table), c.halves(&gamma), c.halves(&y));
    let (h_d, out) = (c.poisoned_floats(n * k), c.poisoned_halves(n * k));
    EmbedRows {
        tokens: ids_d.at,
        embedding: table_d.at,
        h: h_d.at,
        tokens_len: tokens,
        hidden,
        rows: vocab as u32,
    }
    .launch(&c.launcher)?;
    let h: Vec<f64> = ids.iter().flat_map(|&id| table[id as usize * k..][..k].to_vec()).collect();
    c.close(&format!("embed_rows {tokens}x{hidden}"), &c.read_floats(&h_d), &h, 1e-9);
    AddNormRows {
        h: h_d.at,
        y: Some(y_d.at),
        gamma: Some(gamma_d.at),
        out: Some(out.at),
        tokens,
        hidden,
        eps: 1e-6,
    }
    .launch(&c.launcher)?;
    let sum: Vec<f64> = h.iter().zip(&y).map(|(h, y)| h + y).collect();
    let want: Vec<f64> = sum.chunks(k).flat_map(|row| normed(row, &gamma, 1e-6)).collect();
    c.close("   add_norm_rows, sum", &c.read_floats(&h_d), &sum, 1e-6);
    c.close("   add_norm_rows, norm", &c.read_halves(&out), &want, 4e-3);
    let pairs = c.numbers(2 * n * k, 0.0, 1.0);
    let (pairs_d, out) = (c.halves(&pairs), c.poisoned_halves(n * k));
    SiluMulRows { gate_up: pairs_d.at, out: out.at, tokens, inter: hidden }.launch(&c.launcher)?;
    c.close("   silu_mul_rows", &c.read_halves(&out), &silu_mul(&pairs), 4e-3);
    Ok(())
}

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

fn sampling(c: &mut Check, rows: u32, draws: u32) -> Outcome {
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
            MarkSeen { tokens: tokens_d.at, seen: seen.at, count, rows }.launch(&c.launcher)?;
            let (state_d, settings_d) = (c.upload(&words(&state)), c.upload(&words(settings)));
            SampleStep {
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
            }
            .launch(&c.launcher)
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

fn fill(c: &mut Check) -> Outcome {
    let out = c.poisoned_halves(100_003);
    FillRandom { out: out.at, count: 100_003, first: 0, seed: 3, mean: 0.0, deviation: 0.02 }
        .launch(&c.launcher)?;
    let got = c.read_halves(&out);
    let mean = got.iter().sum::<f64>() / got.len() as f64;
    let deviation = (dot(&got, &got) / got.len() as f64).sqrt();
    let holds = mean.abs() < 5e-4 && (deviation - 0.02).abs() < 5e-4;
    c.report("fill_random", holds, &format!("mean {mean:.1e}, deviation {deviation:.5}"));
    Ok(())
}

fn all(c: &mut Check, small: bool) -> Outcome {
    for (rows, inner) in [(48, 64), (14, 104), (301, 1000)] {
        linear(c, rows, inner)?;
    }
    for head_dim in [16, 32, 64, 128] {
        for position in [0, 1, 15, 16, 99, 300] {
            attention(c, 8, 2, head_dim, position, position % 2 == 1)?;
        }
    }
    experts(c, 64, 32, 8, 2, true)?;
    experts(c, 72, 40, 60, 4, false)?;
    rows(c, 3, 200)?;
    sampling(c, 1003, if small { 4 } else { 200 })?;
    fill(c)?;
    if small {
        return Ok(());
    }
    // Projections of Qwen2.5 7B and 32B, Qwen3 32B and 30B-A3B (some with fewer rows).
    for (rows, inner) in [
        (4608, 3584),
        (3584, 3584),
        (1024, 18_944),
        (7168, 5120),
        (1024, 8192),
        (1024, 25_600),
        (1024, 27_648),
        (5120, 2048),
        (2048, 4096),
    ] {
        linear(c, rows, inner)?;
    }
    for (heads, kv_heads, norms) in [(28, 4, false), (40, 8, false), (64, 8, true), (32, 4, true)] {
        for position in [127, 228, 4099, 20_000] {
            attention(c, heads, kv_heads, 128, position, norms)?;
        }
    }
    attention(c, 14, 2, 64, 500, false)?;
    attention(c, 20, 2, 64, 500, true)?;
    experts(c, 2048, 768, 128, 8, true)?;
    rows(c, 5, 2048)?;
    rows(c, 2, 5120)?;
    sampling(c, 151_936, 300)?;
    let bandwidth = measure_read_bandwidth(&c.launcher, 8 << 30, 5)?;
    println!("read bandwidth, GB/s: {bandwidth:.0?}");
    Ok(())
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).peekable();
    let small = arguments.next_if(|a| a == "small").is_some();
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |d| d.as_secs());
    let seed = arguments.next().and_then(|a| a.parse().ok()).unwrap_or(clock);
    println!("seed {seed}");
    let outcome =
        Check::new(seed).and_then(|mut check| all(&mut check, small).map(|()| check.failed));
    match outcome {
        Ok(0) => ExitCode::SUCCESS,
        Ok(failed) => {
            println!("{failed} checks failed");
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}
