//! What is known of each variant: the means over its cells, and what follows from them.

use std::collections::{BTreeMap, BTreeSet};

use bakeoff_model::percentile::percentiles;
use bakeoff_model::{GpuSpec, ModelSource, known};
use bakeoff_proto::{CellStatus, FinishReason, MetricsRecord};

use super::measures;
use super::validity::Validity;
use crate::check::score;
use crate::collect::{Collected, Row};
use crate::quality::Analysis;
use crate::report::model::{CellFacts, Invalid, Measure, Variant};
use crate::review::Review;
use crate::sizing::{self, ModelSize};
use crate::stats::Stat;

/// Every variant, in the order of the sweep.
pub fn all(
    collected: &Collected,
    cells: &[CellFacts],
    validity: &Validity,
    measure: Measure,
    gpus: &[GpuSpec],
) -> Vec<Variant> {
    let mut order: Vec<&str> = Vec::new();
    for cell in cells {
        if !order.contains(&cell.variant.as_str()) {
            order.push(&cell.variant);
        }
    }
    order
        .iter()
        .enumerate()
        .map(|(index, name)| {
            let mine: Vec<(&CellFacts, &Row)> =
                cells.iter().zip(&collected.rows).filter(|(c, _)| c.variant == *name).collect();
            let names = Names { name, anchor: format!("v{}", index + 1) };
            variant(collected, names, validity.invalid(name), &mine, measure, gpus)
        })
        .collect()
}

struct Names<'a> {
    name: &'a str,
    anchor: String,
}

fn variant(
    collected: &Collected,
    names: Names<'_>,
    invalid: Option<Invalid>,
    mine: &[(&CellFacts, &Row)],
    measure: Measure,
    gpus: &[GpuSpec],
) -> Variant {
    let records: Vec<&MetricsRecord> =
        mine.iter().filter_map(|(_, row)| collected.record(row)).collect();
    let stat = |of: &dyn Fn(&MetricsRecord) -> Option<f64>| {
        Stat::of(records.iter().filter_map(|record| of(record)))
    };
    let max = |of: &dyn Fn(&MetricsRecord) -> Option<f64>| {
        records.iter().filter_map(|record| of(record)).max_by(f64::total_cmp)
    };
    let mean = |of: &dyn Fn(&MetricsRecord) -> Option<f64>| stat(of).map(|s| s.mean);
    let count = |of: &dyn Fn(&MetricsRecord) -> bool| records.iter().filter(|r| of(r)).count();
    // Of what is not judged there are no figures of quality.
    let judged = || mine.iter().filter(|_| invalid.is_none());
    let of_cells =
        |of: &dyn Fn(&CellFacts) -> Option<f64>| Stat::of(judged().filter_map(|(c, _)| of(c)));
    let analysed = |of: &dyn Fn(&Analysis) -> bool| {
        mine.iter().filter(|(c, _)| c.analysis.as_ref().is_some_and(of)).count()
    };
    let rules = &collected.plan.sweep.report;
    let passing = mine.iter().filter(|(cell, _)| cell.passes == Some(true)).count();
    let time: f64 = records.iter().map(|r| r.metrics.time_s).sum();
    let tokens: f64 = records.iter().map(|r| f64::from(r.metrics.tokens_generated)).sum();
    // An output of which nothing is known neither passes nor costs.
    let judged_time: f64 = mine
        .iter()
        .filter(|(cell, _)| cell.passes.is_some())
        .filter_map(|(cell, _)| Some(cell.metrics.as_ref()?.time_s))
        .sum();
    let gpu_s_per_passing = (passing > 0).then(|| judged_time / passing as f64);
    let pass_rate = score::pass_rate(judged().map(|(cell, _)| cell.behaviour));
    let price_per_s = rules.price_per_gpu_hour.map(|price| price / 3600.0);
    let size = size(&records);
    let texts = |of: fn(&Review) -> &str| {
        let mut texts: Vec<String> = Vec::new();
        for review in mine.iter().flat_map(|(cell, _)| &cell.reviews) {
            let text = of(review).trim();
            if !text.is_empty() && !texts.iter().any(|t| t == text) {
                texts.push(text.to_owned());
            }
        }
        texts
    };
    let row = mine[0].1;
    Variant {
        name: names.name.to_owned(),
        anchor: names.anchor,
        model: row.model.clone(),
        engine: records.first().map_or_else(
            || row.engine.as_str().to_owned(),
            |record| record.resolved.engine.clone(),
        ),
        cells: mine.len(),
        done: records.len(),
        failed: mine.iter().filter(|(_, row)| row.status == CellStatus::Failed).count(),
        single_run: mine.iter().all(|(cell, _)| cell.run == 1),
        flash_attn: records.first().map(|record| record.metrics.flash_attn),
        tokens: stat(&|r| Some(f64::from(r.metrics.tokens_generated))),
        tok_per_s: stat(&|r| Some(r.metrics.tok_per_s)),
        time_s: stat(&|r| Some(r.metrics.time_s)),
        model_memory_gb: max(&|r| Some(r.metrics.model_memory_gb)),
        gpu_free_gb: mean(&|r| r.metrics.gpu_free_gb),
        kv_memory_gb: max(&|r| Some(r.metrics.kv_memory_gb)),
        peak_memory_gb: max(&|r| r.metrics.peak_memory_gb),
        host_rss_peak_gb: max(&|r| r.metrics.host_rss_peak_gb),
        ttft_ms: stat(&|r| Some(r.metrics.ttft_ms).filter(|ms| *ms > 0.0)),
        tpot_ms: stat(&tpot_ms),
        decode_tok_s: stat(&|r| r.metrics.decode_tok_s),
        bound_tok_s: mean(&|r| {
            let bytes = r.metrics.bytes_per_token.filter(|bytes| *bytes > 0.0)?;
            Some(r.metrics.read_bandwidth_gb_s? * 1e9 / bytes)
        }),
        roofline_pct: mean(&|r| r.metrics.roofline_pct),
        energy_j_per_token: mean(&|r| r.metrics.energy_j_per_token),
        gpu_util_mean_pct: mean(&|r| r.metrics.gpu_util_mean_pct),
        load_s: mean(&|r| Some(r.metrics.load_s).filter(|s| *s > 0.0)),
        itl_ms: gaps(&records),
        invalid,
        truncated: count(&|r| r.output.finish_reason == FinishReason::Length),
        think_unclosed: count(&|r| r.output.think_closed == Some(false)),
        no_code: analysed(&|a| !a.has_code),
        throttled: count(&|r| r.metrics.throttled == Some(true)),
        thinking_share: if tokens > 0.0 {
            records.iter().map(|r| f64::from(r.output.thinking_tokens)).sum::<f64>() / tokens
        } else {
            0.0
        },
        quality: match measure {
            Measure::PassRate => pass_rate,
            _ => of_cells(&|cell| measures::quality(cell, measure)),
        },
        stars: of_cells(&measures::stars),
        evidence: of_cells(&measures::evidence),
        pass_rate,
        checks: score::count(mine.iter().flat_map(|(cell, _)| &cell.checks)),
        pass_at_k: suite_scores(collected, judged().copied()),
        complete: analysed(&|a| a.complete),
        parses: analysed(&|a| a.parses == Some(true)),
        readiness: judged().flat_map(|(c, _)| &c.reviews).filter_map(|r| r.readiness).min(),
        strengths: texts(|review| &review.strengths),
        limitations: texts(|review| &review.limitations),
        best_use: texts(|review| &review.best_use),
        passing,
        gpu_s_per_passing,
        cost_per_million_tokens: price_per_s
            .filter(|_| tokens > 0.0)
            .map(|price| price * time / tokens * 1e6),
        cost_per_passing: price_per_s.zip(gpu_s_per_passing).map(|(price, s)| price * s),
        mixture_of_experts: size.is_some_and(|size| is_sparse(&size))
            || records.iter().any(|r| named_mixture(&r.model)),
        specialised: named_for_code(&row.model),
        sizing: size
            .map(|s| gpus.iter().map(|gpu| sizing::fit(&s, gpu)).collect())
            .unwrap_or_default(),
        size,
        dominated_by: None,
    }
}

fn tpot_ms(record: &MetricsRecord) -> Option<f64> {
    let whole = || Some(1000.0 / record.metrics.tok_per_s).filter(|ms| ms.is_finite());
    record.metrics.tpot_ms.or_else(whole)
}

/// At most this many gaps are pooled: percentiles of more are not better, only slower.
const POOLED_GAPS: usize = 200_000;

fn gaps(records: &[&MetricsRecord]) -> Option<[f64; 7]> {
    let gaps: Vec<f64> = records
        .iter()
        .flat_map(|r| r.inter_token_ms.iter().copied())
        .filter(|ms| ms.is_finite())
        .take(POOLED_GAPS)
        .collect();
    if gaps.len() < 2 {
        return None;
    }
    percentiles(&gaps, [1.0, 5.0, 25.0, 50.0, 75.0, 95.0, 99.0])
}

fn size(records: &[&MetricsRecord]) -> Option<ModelSize> {
    let record = records.first()?;
    if let ModelSource::Hub { id, .. } = &record.source
        && let Some(model) = known::find(id)
    {
        return Some(ModelSize::of_shape(&model.shape(), record.engine_settings.dtype));
    }
    let context = u64::from(record.metrics.prompt_tokens)
        + u64::from(record.generation_settings.max_new_tokens);
    let kv_bytes_per_token = record.memory.planned_kv_bytes.checked_div(context)?;
    let weight_bytes = record.memory.weight_bytes;
    if weight_bytes == 0 || kv_bytes_per_token == 0 {
        return None;
    }
    // Bytes a token hold the keys and values at mean length, too.
    let mean_length =
        f64::from(record.metrics.prompt_tokens) + f64::from(record.metrics.tokens_generated) / 2.0;
    let read_bytes_per_token = record
        .metrics
        .bytes_per_token
        .map(|bytes| (bytes - mean_length * kv_bytes_per_token as f64).max(1.0) as u64);
    Some(ModelSize { weight_bytes, read_bytes_per_token, kv_bytes_per_token })
}

fn is_sparse(size: &ModelSize) -> bool {
    size.read_bytes_per_token.is_some_and(|read| read * 10 < size.weight_bytes * 5)
}

/// `30B-A3B`: three of thirty billion parameters are active; or it says so.
fn named_mixture(model: &str) -> bool {
    let lower = model.to_lowercase();
    let active = |part: &str| {
        part.strip_prefix('a')
            .and_then(|rest| rest.strip_suffix('b'))
            .is_some_and(|number| !number.is_empty() && number.parse::<f64>().is_ok())
    };
    lower.contains("moe") || lower.split(['-', '_', '/']).any(active)
}

fn named_for_code(model: &str) -> bool {
    let lower = model.to_lowercase();
    lower.contains("code") || lower.contains("coder")
}

/// pass@k of the sweep's suites: the samples of each task that could be judged.
fn suite_scores<'a>(
    collected: &Collected,
    judged: impl Iterator<Item = (&'a CellFacts, &'a Row)>,
) -> BTreeMap<usize, Stat> {
    let tasks = collected.plan.sweep.prompts.iter().filter(|prompt| prompt.task.is_some());
    let tasks: BTreeSet<&str> = tasks.map(|prompt| prompt.id.as_str()).collect();
    score::suite(
        judged
            .filter(|(cell, _)| tasks.contains(cell.prompt.as_str()))
            .filter_map(|(cell, _)| Some((cell.prompt.as_str(), cell.behaviour?))),
    )
}

/// Names, for each variant that another is at least as good and as fast as, the best such one.
pub fn mark_dominated(variants: &mut [Variant]) {
    let points: Vec<_> = variants
        .iter()
        .map(|v| Some((v.name.clone(), v.quality?.mean, v.tok_per_s?.mean)))
        .collect();
    for (index, variant) in variants.iter_mut().enumerate() {
        let Some((_, quality, speed)) = &points[index] else { continue };
        variant.dominated_by = points
            .iter()
            .flatten()
            .filter(|(_, q, s)| q >= quality && s >= speed && (q > quality || s > speed))
            .max_by(|a, b| a.1.total_cmp(&b.1).then(a.2.total_cmp(&b.2)))
            .map(|(name, _, _)| name.clone());
    }
}
