//! The small steps of prefill.

use bakeoff_kernels::rows::{AddNormRows, EmbedRows, QkvRows, SiluMulRows};

use crate::tools::{Check, Outcome, normed, rope_tables, rotated, silu_mul};

pub fn rows(c: &mut Check, tokens: u32, hidden: u32) -> Outcome {
    let (n, k) = (tokens as usize, hidden as usize);
    let vocab = 101usize;
    let (table, gamma, y) =
        (c.numbers(vocab * k, 0.0, 1.0), c.numbers(k, 1.0, 0.1), c.numbers(n * k, 0.0, 1.0));
    let ids: Vec<u32> = (0..n).map(|_| (c.next() % vocab as u64) as u32).collect();
    let (ids_d, table_d, gamma_d, y_d) =
        (c.upload(&ids), c.halves(&table), c.halves(&gamma), c.halves(&y));
    let (h_d, out) = (c.poisoned_floats(n * k), c.poisoned_halves(n * k));
    c.launch(&EmbedRows {
        tokens: ids_d.at,
        embedding: table_d.at,
        h: h_d.at,
        tokens_len: tokens,
        hidden,
        rows: vocab as u32,
    })?;
    let h: Vec<f64> = ids.iter().flat_map(|&id| table[id as usize * k..][..k].to_vec()).collect();
    c.close(&format!("embed_rows {tokens}x{hidden}"), &c.read_floats(&h_d), &h, 1e-9);
    c.launch(&AddNormRows {
        h: h_d.at,
        y: Some(y_d.at),
        gamma: Some(gamma_d.at),
        out: Some(out.at),
        tokens,
        hidden,
        eps: 1e-6,
    })?;
    let sum: Vec<f64> = h.iter().zip(&y).map(|(h, y)| h + y).collect();
    let want: Vec<f64> = sum.chunks(k).flat_map(|row| normed(row, &gamma, 1e-6)).collect();
    c.close("   add_norm_rows, sum", &c.read_floats(&h_d), &sum, 1e-6);
    c.close("   add_norm_rows, norm", &c.read_halves(&out), &want, 4e-3);
    let pairs = c.numbers(2 * n * k, 0.0, 1.0);
    let (pairs_d, out) = (c.halves(&pairs), c.poisoned_halves(n * k));
    c.launch(&SiluMulRows { gate_up: pairs_d.at, out: out.at, tokens, inter: hidden })?;
    c.close("   silu_mul_rows", &c.read_halves(&out), &silu_mul(&pairs), 4e-3);
    Ok(())
}

/// Bias, norms, rotation and cache rows of the tokens up to `position`.
pub fn qkv_rows(
    c: &mut Check,
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    position: u32,
    norms: bool,
) -> Outcome {
    let (nh, nkv, d, len) =
        (heads as usize, kv_heads as usize, head_dim as usize, position as usize + 4);
    let (row, at) = (nkv * d, position as usize * nkv * d);
    let (q_norm, k_norm) = (c.numbers(d, 1.0, 0.1), c.numbers(d, 1.0, 0.1));
    let (q_norm_d, k_norm_d) = (c.halves(&q_norm), c.halves(&k_norm));
    let (cos, sin) = rope_tables(len, d);
    let (cos_d, sin_d) = (c.floats(&cos), c.floats(&sin));
    let table = position as usize * d / 2..(position as usize + 1) * d / 2;
    let prepare = |x: &[f64], norm: &[f64]| {
        let x = if norms { normed(x, norm, 1e-6) } else { x.to_vec() };
        rotated(&x, &cos[table.clone()], &sin[table.clone()])
    };
    let name = format!("qkv_rows {heads}/{kv_heads}x{head_dim} at {position}");
    let tokens = (position + 1).min(3);
    let rows = c.numbers(tokens as usize * (nh + 2 * nkv) * d, 0.0, 2.0);
    let (rows_d, bias) = (c.halves(&rows), c.numbers((nh + 2 * nkv) * d, 0.0, 0.5));
    let (bias_d, q_out) = (c.halves(&bias), c.poisoned_halves(tokens as usize * nh * d));
    let (new_k, new_v) = (c.poisoned_halves(len * row), c.poisoned_halves(len * row));
    let first = position + 1 - tokens;
    c.launch(&QkvRows {
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
    })?;
    let last: Vec<f64> =
        rows[(tokens as usize - 1) * bias.len()..].iter().zip(&bias).map(|(r, b)| r + b).collect();
    let want_q: Vec<f64> = last[..nh * d].chunks(d).flat_map(|q| prepare(q, &q_norm)).collect();
    let want_k: Vec<f64> =
        last[nh * d..(nh + nkv) * d].chunks(d).flat_map(|k| prepare(k, &k_norm)).collect();
    c.close(
        &format!("{name}, queries"),
        &c.read_halves(&q_out)[(tokens as usize - 1) * nh * d..],
        &want_q,
        4e-3,
    );
    c.close(&format!("{name}, keys"), &c.read_halves(&new_k)[at..at + row], &want_k, 4e-3);
    c.close(
        &format!("{name}, values"),
        &c.read_halves(&new_v)[at..at + row],
        &last[(nh + nkv) * d..],
        4e-3,
    );
    Ok(())
}
