//! The decode step against the same layers in FP64, with the roundings to BF16 that the kernel
//! makes.

use bakeoff_kernels::{
    DecodeState, KernelError,
    step::{DecodeStep, StepLayer},
};
use half::bf16;

use crate::tools::{
    Buffer, Check, Outcome, chosen, dot, matvec, normed, rope_tables, rotated, silu_mul, words,
};

/// Sizes of a model, and which of its layers choose experts.
#[derive(Clone)]
pub struct Model {
    pub hidden: u32,
    pub heads: u32,
    pub kv_heads: u32,
    pub head_dim: u32,
    pub inter: u32,
    pub experts: u32,
    pub top_k: u32,
    pub expert_inter: u32,
    pub renormalise: bool,
    pub vocab: u32,
    pub norms: bool,
    pub bias: bool,
    pub routed: Vec<bool>,
}

/// A layer's weights on the host.
struct Layer {
    attention_norm: Vec<f64>,
    qkv: Vec<f64>,
    bias: Option<Vec<f64>>,
    q_norm: Option<Vec<f64>>,
    k_norm: Option<Vec<f64>>,
    o: Vec<f64>,
    mlp_norm: Vec<f64>,
    router: Option<Vec<f64>>,
    gate_up: Vec<f64>,
    down: Vec<f64>,
    keys: Vec<f64>,
    values: Vec<f64>,
}

fn round(values: &[f64]) -> Vec<f64> {
    values.iter().map(|&v| bf16::from_f64(v).to_f64()).collect()
}

impl Layer {
    fn random(c: &mut Check, m: &Model, routed: bool, cached: usize) -> Self {
        let (hidden, d) = (m.hidden as usize, m.head_dim as usize);
        let (q, kv) = (m.heads as usize * d, m.kv_heads as usize * d);
        let inner = if routed { m.expert_inter } else { m.inter } as usize;
        let copies = if routed { m.experts as usize } else { 1 };
        // Large enough to matter beside the residual stream, so that an error in a layer shows.
        let spread = |width: usize| (width as f64).sqrt().recip();
        Self {
            attention_norm: c.numbers(hidden, 1.0, 0.1),
            qkv: c.numbers((q + 2 * kv) * hidden, 0.0, spread(hidden)),
            bias: m.bias.then(|| c.numbers(q + 2 * kv, 0.0, 0.5)),
            q_norm: m.norms.then(|| c.numbers(d, 1.0, 0.1)),
            k_norm: m.norms.then(|| c.numbers(d, 1.0, 0.1)),
            o: c.numbers(hidden * q, 0.0, spread(q)),
            mlp_norm: c.numbers(hidden, 1.0, 0.1),
            // Far apart logits: near ties would make the choice a matter of rounding.
            router: routed
                .then(|| c.numbers(m.experts as usize * hidden, 0.0, 4.0 * spread(hidden))),
            gate_up: c.numbers(copies * 2 * inner * hidden, 0.0, spread(hidden)),
            down: c.numbers(copies * hidden * inner, 0.0, spread(inner)),
            keys: c.numbers(cached * kv, 0.0, 1.0),
            values: c.numbers(cached * kv, 0.0, 1.0),
        }
    }

    /// One token through the layer; appends its key and value. `margin` becomes the least distance
    /// seen between a chosen and a rejected expert's logit.
    fn forward(
        &mut self,
        m: &Model,
        h: &mut [f64],
        cos: &[f64],
        sin: &[f64],
        cached: usize,
        margin: &mut f64,
    ) {
        let (d, nh, nkv) = (m.head_dim as usize, m.heads as usize, m.kv_heads as usize);
        let mut qkv = matvec(&self.qkv, &normed(h, &self.attention_norm, EPS));
        if let Some(bias) = &self.bias {
            qkv.iter_mut().zip(bias).for_each(|(v, b)| *v += b);
        }
        let prepare = |x: &[f64], norm: &Option<Vec<f64>>| match norm {
            Some(norm) => rotated(&normed(x, norm, EPS), cos, sin),
            None => rotated(x, cos, sin),
        };
        let new_keys: Vec<f64> =
            qkv[nh * d..(nh + nkv) * d].chunks(d).flat_map(|k| prepare(k, &self.k_norm)).collect();
        self.keys.extend(round(&new_keys));
        self.values.extend(round(&qkv[(nh + nkv) * d..]));
        let scale = (d as f64).sqrt().recip();
        let mut attention = Vec::with_capacity(nh * d);
        for (head, q) in qkv[..nh * d].chunks(d).enumerate() {
            let (q, kv) = (prepare(q, &self.q_norm), head / (nh / nkv) * d);
            let at = |t: usize| t * nkv * d + kv;
            let scores: Vec<f64> =
                (0..=cached).map(|t| dot(&q, &self.keys[at(t)..][..d]) * scale).collect();
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
            let total: f64 = weights.iter().sum();
            attention.extend((0..d).map(|i| {
                let sum: f64 =
                    weights.iter().enumerate().map(|(t, w)| w * self.values[at(t) + i]).sum();
                sum / total
            }));
        }
        add(h, &matvec(&self.o, &round(&attention)), 1.0);
        let x = normed(h, &self.mlp_norm, EPS);
        let Some(router) = &self.router else {
            let act = round(&silu_mul(&matvec(&self.gate_up, &x)));
            return add(h, &matvec(&self.down, &act), 1.0);
        };
        let logits = matvec(router, &x);
        let (ids, weights) = chosen(&logits, m.top_k as usize, m.renormalise);
        let least = ids.iter().map(|&id| logits[id]).fold(f64::INFINITY, f64::min);
        let rejected = (0..logits.len()).filter(|id| !ids.contains(id)).map(|id| logits[id]);
        *margin = rejected.map(|r| least - r).fold(*margin, f64::min);
        let (k, i) = (m.hidden as usize, m.expert_inter as usize);
        for (id, weight) in ids.into_iter().zip(weights) {
            let act = silu_mul(&matvec(&self.gate_up[id * 2 * i * k..][..2 * i * k], &x));
            add(h, &matvec(&self.down[id * k * i..][..k * i], &act), weight);
        }
    }
}

const EPS: f64 = 1e-6;

fn add(h: &mut [f64], delta: &[f64], weight: f64) {
    h.iter_mut().zip(delta).for_each(|(h, d)| *h += weight * d);
}

/// What a layer's [`StepLayer`] points to.
struct OnDevice {
    /// Keeps the weights alive.
    _weights: Vec<Buffer<bf16>>,
    keys: Buffer<bf16>,
    values: Buffer<bf16>,
    layer: StepLayer,
}

fn upload(c: &Check, layer: &Layer, cache_rows: usize, row: usize) -> OnDevice {
    let mut buffers = Vec::new();
    let mut put = |values: &[f64]| {
        buffers.push(c.halves(values));
        buffers[buffers.len() - 1].at
    };
    let mut given = |values: &Option<Vec<f64>>| values.as_ref().map(|values| put(values));
    let (qkv_bias, q_norm, k_norm, router) =
        (given(&layer.bias), given(&layer.q_norm), given(&layer.k_norm), given(&layer.router));
    let cache = |values: &[f64]| {
        let mut all = values.to_vec();
        all.resize(cache_rows * row, f64::NAN);
        c.halves(&all)
    };
    let (keys, values) = (cache(&layer.keys), cache(&layer.values));
    let layer = StepLayer {
        attention_norm: put(&layer.attention_norm),
        qkv: put(&layer.qkv),
        qkv_bias,
        q_norm,
        k_norm,
        o: put(&layer.o),
        mlp_norm: put(&layer.mlp_norm),
        router,
        gate_up: put(&layer.gate_up),
        down: put(&layer.down),
        k_cache: keys.at,
        v_cache: values.at,
    };
    OnDevice { _weights: buffers, keys, values, layer }
}

/// Two steps from `position` on: logits, residual stream, cache rows and counters; then the last
/// norm and `lm_head` alone; then a stopped sequence, which must change nothing.
pub fn step(c: &mut Check, m: &Model, position: u32) -> Outcome {
    let (hidden, d) = (m.hidden as usize, m.head_dim as usize);
    let (row, cached) = (m.kv_heads as usize * d, position as usize);
    let cache_rows = cached + 4;
    let mut layers: Vec<Layer> =
        m.routed.iter().map(|&routed| Layer::random(c, m, routed, cached)).collect();
    let on_device: Vec<OnDevice> =
        layers.iter().map(|layer| upload(c, layer, cache_rows, row)).collect();
    let (norm, lm_head) = (
        c.numbers(hidden, 1.0, 0.1),
        c.numbers(m.vocab as usize * hidden, 0.0, (hidden as f64).sqrt().recip()),
    );
    let (cos, sin) = rope_tables(cache_rows, d);
    let (norm_d, lm_head_d) = (c.halves(&norm), c.halves(&lm_head));
    let (cos_d, sin_d) = (c.floats(&cos), c.floats(&sin));
    let table: Vec<u64> = on_device.iter().flat_map(|l| words(&l.layer)).collect();
    let table_d = c.upload(&table);
    let q = (m.heads * m.head_dim) as usize;
    let (qkv, attention) = (c.poisoned_floats(q + 2 * row), c.poisoned_halves(q));
    let act = c.poisoned_halves(m.inter.max(1) as usize);
    let expert_act = c.poisoned_floats((m.top_k * m.expert_inter).max(1) as usize);
    let sums = c.upload(&vec![0i64; layers.len() * m.experts.max(1) as usize]);
    let parts = c.poisoned_floats(DecodeStep::parts_len(
        c.launcher.sm_count(),
        m.kv_heads,
        m.heads,
        m.head_dim,
    ));
    let counters = c.upload(&vec![0u32; DecodeStep::counters_len(m.kv_heads, m.heads)]);
    let loads = c.upload(&[0u64]);
    let mut h = c.numbers(hidden, 0.0, 1.0);
    let h_d = c.floats(&h);
    let run = |c: &Check,
               at: u32,
               stop: u32,
               layer_count: usize|
     -> Result<Buffer<f32>, KernelError> {
        let logits = c.poisoned_floats(m.vocab as usize);
        let state =
            DecodeState { position: at, stop, cache_len: cache_rows as u32, ..Default::default() };
        let state_d = c.upload(&words(&state));
        let has_dense = m.routed.contains(&false);
        c.launch(&DecodeStep {
            layers: Some(table_d.at.cast()),
            norm: norm_d.at,
            lm_head: lm_head_d.at,
            cos: Some(cos_d.at),
            sin: Some(sin_d.at),
            state: Some(state_d.at.cast()),
            h: h_d.at,
            logits: logits.at,
            qkv: Some(qkv.at),
            attention: Some(attention.at),
            act: Some(act.at),
            expert_act: Some(expert_act.at),
            router_sums: Some(sums.at),
            parts: Some(parts.at),
            counters: counters.at,
            expert_loads: Some(loads.at),
            layer_count: layer_count as u32,
            hidden: m.hidden,
            vocab: m.vocab,
            heads: m.heads,
            kv_heads: m.kv_heads,
            head_dim: m.head_dim,
            inter: if has_dense { m.inter } else { 0 },
            experts: m.experts,
            top_k: m.top_k,
            expert_inter: m.expert_inter,
            renormalise: m.renormalise.into(),
            eps: EPS as f32,
            scale: (d as f32).sqrt().recip(),
        })?;
        Ok(logits)
    };
    let name = format!(
        "step {}x{} {}/{}x{d} {}/{} at {position}",
        m.routed.len(),
        m.hidden,
        m.heads,
        m.kv_heads,
        m.top_k,
        m.experts
    );
    let half = d / 2;
    for at in [position, position + 1] {
        let logits = run(c, at, 0, layers.len())?;
        let table = at as usize * half..(at as usize + 1) * half;
        let mut margin = f64::INFINITY;
        for layer in &mut layers {
            let (cos, sin) = (&cos[table.clone()], &sin[table.clone()]);
            layer.forward(m, &mut h, cos, sin, at as usize, &mut margin);
        }
        let (got_h, got) = (c.read_floats(&h_d), c.read_floats(&logits));
        // A choice that hangs on less than the roundings before it may fall either way.
        if margin < 0.02 {
            c.skip(&name, &format!("two experts are {margin:.1e} apart"));
            return Ok(());
        }
        c.close(&format!("{name}, token {at}: h"), &got_h, &h, TOLERANCE);
        let want = matvec(&lm_head, &normed(&h, &norm, EPS));
        c.close(&format!("{name}, token {at}: logits"), &got, &want, TOLERANCE);
        let last = layers.len() - 1;
        let cache_at = at as usize * row..(at as usize + 1) * row;
        for (what, on, host) in [
            ("keys", &on_device[last].keys, &layers[last].keys),
            ("values", &on_device[last].values, &layers[last].values),
        ] {
            let got = &c.read_halves(on)[cache_at.clone()];
            c.close(
                &format!("{name}, token {at}: {what}"),
                got,
                &host[cache_at.clone()],
                TOLERANCE,
            );
        }
    }
    let routed = m.routed.iter().filter(|routed| **routed).count() as u64;
    let counted = c.read(&loads)[0];
    c.report(
        &format!("{name}: loads"),
        counted == 2 * routed * u64::from(m.top_k),
        &format!("{counted}"),
    );
    let clean = c.read(&counters).iter().all(|&v| v == 0) && c.read(&sums).iter().all(|&v| v == 0);
    c.report(&format!("{name}: counters left at zero"), clean, "");
    let before = c.read_floats(&h_d);
    let logits = run(c, position, 0, 0)?;
    let want = matvec(&lm_head, &normed(&before, &norm, EPS));
    c.close(&format!("{name}: lm_head alone"), &c.read_floats(&logits), &want, 1e-5);
    let logits = run(c, position, 1, layers.len())?;
    let untouched =
        c.read_floats(&logits).iter().all(|v| v.is_nan()) && c.read_floats(&h_d) == before;
    c.report(&format!("{name}: nothing once stopped"), untouched, "");
    Ok(())
}

/// Roundings of queries, keys, softmax weights and results to BF16, over a few layers.
const TOLERANCE: f64 = 8e-3;

impl Model {
    /// A small one.
    pub fn small(head_dim: u32) -> Self {
        Self {
            hidden: 104,
            heads: 6,
            kv_heads: 2,
            head_dim,
            inter: 200,
            experts: 10,
            top_k: 3,
            expert_inter: 48,
            renormalise: true,
            vocab: 301,
            norms: true,
            bias: false,
            routed: vec![false, true, false],
        }
    }

    /// As small, with biases and without experts.
    pub fn biased(head_dim: u32) -> Self {
        Self {
            norms: false,
            bias: true,
            experts: 0,
            top_k: 0,
            expert_inter: 0,
            routed: vec![false; 2],
            ..Self::small(head_dim)
        }
    }

    /// The widths of one of the models this crate is tuned for, with few layers.
    pub fn of(name: &str) -> Self {
        let dense = |hidden, heads, kv_heads, inter, norms| Self {
            hidden,
            heads,
            kv_heads,
            inter,
            norms,
            bias: !norms,
            vocab: 1500,
            ..Self::biased(128)
        };
        match name {
            "7B" => dense(3584, 28, 4, 18_944, false),
            "Coder-32B" => Self { routed: vec![false], ..dense(5120, 40, 8, 27_648, false) },
            "32B" => Self { routed: vec![false], ..dense(5120, 64, 8, 25_600, true) },
            _ => Self {
                experts: 128,
                top_k: 8,
                expert_inter: 768,
                renormalise: true,
                routed: vec![true],
                ..dense(2048, 32, 4, 0, true)
            },
        }
    }
}
