//! From what was collected to what the report says.

use std::collections::{BTreeMap, BTreeSet};

use bakeoff_proto::{FinishReason, MetricsRecord, ModelSource, SCHEMA_VERSION};

use super::model::{CellFacts, Fact, Measure, PromptFacts, Report, Variant, Warning};
use super::{insights, recommend, warnings};
use crate::check::CheckReport;
use crate::collect::{Collected, Row, Status};
use crate::quality::{Analyser, Analysis, Compiled};
use crate::review::{self, Review};
use crate::sizing::{self, Gpu, ModelSize};
use crate::stats::{Stat, pass_at_k, percentile};
use crate::sweep::ReportRules;

/// Builds the report. Everything is derived from `collected` and `gpus`; nothing else is looked at.
pub fn build(collected: &Collected, gpus: &[Gpu]) -> Report {
    let mut warnings = Vec::new();
    let reviews = reviews(collected, &mut warnings);
    let rules = &collected.plan.sweep.report;
    let mut cells = cells(collected, &reviews, &mut warnings);
    let measure = measure(&cells);
    for cell in &mut cells {
        cell.passes = cell.is_done().then(|| passes(cell, measure, rules)).flatten();
    }
    let mut variants = variants(collected, &cells, measure, gpus);
    mark_dominated(&mut variants);
    let insights = insights::find(&variants, &cells, measure);
    let recommendations = recommend::all(&variants, &cells, measure, rules);
    warnings.extend(warnings::find(collected, &variants, &cells, measure));
    Report {
        schema_version: SCHEMA_VERSION,
        sweep: collected.plan.sweep.name.to_string(),
        cells_planned: cells.len(),
        cells_done: cells.iter().filter(|cell| cell.is_done()).count(),
        measure,
        variants,
        recommendations,
        insights,
        warnings,
        rules: rules.clone(),
        environment: environment(collected),
        prompts: prompts(collected),
        cells,
    }
}

type ReviewsByCell = BTreeMap<bakeoff_proto::CellId, Vec<Review>>;

/// Stored reviews were checked when they were pushed; if they do not read now, the report says so
/// and goes on without them.
fn reviews(collected: &Collected, warnings: &mut Vec<Warning>) -> ReviewsByCell {
    let Some(text) = &collected.reviews else { return ReviewsByCell::new() };
    let sweep = collected.plan.sweep.name.as_str();
    let outputs = |seed| review::blind::cells(seed, collected.outputs.keys()).into_keys().collect();
    match review::file::parse(text, "reviews.toml", sweep, outputs) {
        Ok(reviews) => review::by_cell(&reviews, collected),
        Err(error) => {
            let text = format!("The reviews are left out: {error}");
            warnings.push(Warning { kind: "bad_reviews".to_owned(), text });
            ReviewsByCell::new()
        }
    }
}

/// The name of what is compared: the model, and the engine where the sweep names several.
pub fn variant_name(collected: &Collected, row: &Row) -> String {
    let sweep = &collected.plan.sweep;
    let several = sweep.models.iter().any(|m| m.name == row.model && m.engines.len() > 1);
    if several { format!("{} · {}", row.model, row.engine.as_str()) } else { row.model.clone() }
}

fn cells(
    collected: &Collected,
    reviews: &ReviewsByCell,
    warnings: &mut Vec<Warning>,
) -> Vec<CellFacts> {
    let prompts = &collected.plan.sweep.prompts;
    let mut rubrics: BTreeMap<&str, Compiled> = BTreeMap::new();
    for prompt in prompts {
        match prompt.rubric.clone().map(Compiled::new) {
            Some(Ok(compiled)) => {
                rubrics.insert(&prompt.id, compiled);
            }
            Some(Err(error)) => warnings.push(Warning {
                kind: "bad_rubric".to_owned(),
                text: format!("Prompt {} is analysed without its rubric: {error}", prompt.id),
            }),
            None => {}
        }
    }
    let languages: BTreeMap<&str, &str> =
        prompts.iter().map(|p| (p.id.as_str(), p.language.as_str())).collect();
    let mut analysers: BTreeMap<&str, Analyser<'_>> = prompts
        .iter()
        .map(|prompt| (prompt.id.as_str(), Analyser::new(rubrics.get(prompt.id.as_str()))))
        .collect();
    collected
        .rows
        .iter()
        .map(|row| {
            let record = collected.record(row);
            let analysis = analysers
                .get_mut(row.prompt_id.as_str())
                .and_then(|analyser| analyse(collected, row, record?, analyser, &languages));
            CellFacts {
                cell: row.cell.clone(),
                variant: variant_name(collected, row),
                prompt: row.prompt_id.clone(),
                run: row.run,
                status: row.status.as_str().to_owned(),
                document: record.map(|r| r.document.key.clone()),
                finish: record.map(|r| r.output.finish_reason),
                metrics: record.map(|r| r.metrics.clone()),
                analysis,
                checks: checks(collected, row, record, warnings),
                reviews: reviews.get(&row.cell).cloned().unwrap_or_default(),
                passes: None,
                failure: collected
                    .failure(row)
                    .map(|f| format!("{}: {}", f.kind.as_str(), f.message)),
                mismatches: record.map(|r| r.mismatches.clone()).unwrap_or_default(),
            }
        })
        .collect()
}

fn analyse(
    collected: &Collected,
    row: &Row,
    record: &MetricsRecord,
    analyser: &mut Analyser<'_>,
    languages: &BTreeMap<&str, &str>,
) -> Option<Analysis> {
    let output = collected.outputs.get(&row.cell)?;
    let language = languages.get(row.prompt_id.as_str()).copied().unwrap_or("python");
    Some(analyser.analyse(output, language, record.output.finish_reason))
}

fn checks(
    collected: &Collected,
    row: &Row,
    record: Option<&MetricsRecord>,
    warnings: &mut Vec<Warning>,
) -> Vec<crate::check::Check> {
    let (Some(text), Some(record)) = (collected.checks.get(&row.cell), record) else {
        return Vec::new();
    };
    let wrong = match serde_json::from_str::<CheckReport>(text) {
        Ok(report) if report.document_sha256 == record.document.sha256 => return report.checks,
        Ok(_) => "they were made of another output".to_owned(),
        Err(error) => error.to_string(),
    };
    warnings.push(Warning {
        kind: "bad_checks".to_owned(),
        text: format!("The checks of cell {} are left out: {wrong}", row.cell),
    });
    Vec::new()
}

/// The best measure that every variant with an output has.
fn measure(cells: &[CellFacts]) -> Measure {
    let done: BTreeSet<&str> =
        cells.iter().filter(|c| c.is_done()).map(|c| c.variant.as_str()).collect();
    let all = |has: &dyn Fn(&CellFacts) -> bool| {
        done.iter().all(|v| cells.iter().any(|c| c.variant == **v && has(c)))
    };
    if done.is_empty() {
        Measure::None
    } else if all(&|cell| stars(cell).is_some()) {
        Measure::Stars
    } else if all(&|cell| check_passes(cell).is_some()) {
        Measure::PassRate
    } else if all(&|cell| evidence(cell).is_some()) {
        Measure::Evidence
    } else {
        Measure::None
    }
}

/// Mean over the reviewers.
pub fn stars(cell: &CellFacts) -> Option<f64> {
    let given: Vec<f64> = cell.reviews.iter().filter_map(Review::mean_stars).collect();
    (!given.is_empty()).then(|| crate::stats::mean(&given))
}

fn check_passes(cell: &CellFacts) -> Option<bool> {
    use crate::check::Verdict;
    let mut ran = cell.checks.iter().filter(|c| c.verdict != Verdict::NotRun).peekable();
    ran.peek()?;
    Some(ran.all(|check| check.verdict == Verdict::Pass))
}

/// The rubric's share, for an answer that is whole and parses.
pub fn evidence(cell: &CellFacts) -> Option<f64> {
    let analysis = cell.analysis.as_ref()?;
    let coverage = analysis.coverage?;
    let whole = analysis.complete && analysis.parses == Some(true);
    Some(if whole { coverage } else { 0.0 })
}

fn quality(cell: &CellFacts, measure: Measure) -> Option<f64> {
    match measure {
        Measure::Stars => stars(cell),
        Measure::PassRate => check_passes(cell).map(|passes| f64::from(u8::from(passes))),
        Measure::Evidence => evidence(cell),
        Measure::None => None,
    }
}

/// Whether an output can be used: checks decide where they ran, then stars, then evidence.
fn passes(cell: &CellFacts, measure: Measure, rules: &ReportRules) -> Option<bool> {
    check_passes(cell).or_else(|| match measure {
        Measure::Stars => stars(cell).map(|stars| stars >= rules.min_stars),
        Measure::PassRate => None,
        Measure::Evidence => evidence(cell).map(|share| share >= rules.min_evidence),
        Measure::None => None,
    })
}

fn variants(
    collected: &Collected,
    cells: &[CellFacts],
    measure: Measure,
    gpus: &[Gpu],
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
            variant(collected, name, format!("v{}", index + 1), &mine, measure, gpus)
        })
        .collect()
}

fn variant(
    collected: &Collected,
    name: &str,
    anchor: String,
    mine: &[(&CellFacts, &Row)],
    measure: Measure,
    gpus: &[Gpu],
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
    let of_cells =
        |of: &dyn Fn(&CellFacts) -> Option<f64>| Stat::of(mine.iter().filter_map(|(c, _)| of(c)));
    let analysed = |of: &dyn Fn(&Analysis) -> bool| {
        mine.iter().filter(|(c, _)| c.analysis.as_ref().is_some_and(of)).count()
    };
    let rules = &collected.plan.sweep.report;
    let passing = mine.iter().filter(|(cell, _)| cell.passes == Some(true)).count();
    let judged = mine.iter().any(|(cell, _)| cell.passes.is_some());
    let time: f64 = records.iter().map(|r| r.metrics.time_s).sum();
    let tokens: f64 = records.iter().map(|r| f64::from(r.metrics.tokens_generated)).sum();
    let gpu_s_per_passing = (judged && passing > 0).then(|| time / passing as f64);
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
        name: name.to_owned(),
        anchor,
        model: row.model.clone(),
        engine: records.first().map_or_else(
            || row.engine.as_str().to_owned(),
            |record| record.resolved.engine.clone(),
        ),
        cells: mine.len(),
        done: records.len(),
        failed: mine.iter().filter(|(_, row)| row.status == Status::Failed).count(),
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
        truncated: count(&|r| r.output.finish_reason == FinishReason::Length),
        think_unclosed: count(&|r| r.output.think_closed == Some(false)),
        no_code: analysed(&|a| !a.has_code),
        throttled: count(&|r| r.metrics.throttled == Some(true)),
        thinking_share: if tokens > 0.0 {
            records.iter().map(|r| f64::from(r.output.thinking_tokens)).sum::<f64>() / tokens
        } else {
            0.0
        },
        quality: of_cells(&|cell| quality(cell, measure)),
        stars: of_cells(&stars),
        evidence: of_cells(&evidence),
        pass_rate: of_cells(&|cell| check_passes(cell).map(|p| f64::from(u8::from(p)))),
        pass_at_k: suite_scores(collected, mine),
        complete: analysed(&|a| a.complete),
        parses: analysed(&|a| a.parses == Some(true)),
        readiness: mine.iter().flat_map(|(c, _)| &c.reviews).filter_map(|r| r.readiness).min(),
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
    let mut gaps: Vec<f64> = records
        .iter()
        .flat_map(|r| r.inter_token_ms.iter().copied())
        .filter(|ms| ms.is_finite())
        .take(POOLED_GAPS)
        .collect();
    if gaps.len() < 2 {
        return None;
    }
    gaps.sort_by(f64::total_cmp);
    Some([1.0, 5.0, 25.0, 50.0, 75.0, 95.0, 99.0].map(|p| percentile(&gaps, p)))
}

fn size(records: &[&MetricsRecord]) -> Option<ModelSize> {
    let record = records.first()?;
    if let ModelSource::Hub { id, .. } = &record.source
        && let Some(shape) = sizing::known_shape(id)
    {
        return Some(ModelSize::of_shape(&shape, record.engine_settings.dtype));
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

/// pass@k for k of 1, 5, 10 and the number of samples, over the tasks of the suite.
fn suite_scores(collected: &Collected, mine: &[(&CellFacts, &Row)]) -> BTreeMap<usize, Stat> {
    let mut tasks: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for prompt in collected.plan.sweep.prompts.iter().filter(|p| p.task.is_some()) {
        for (cell, _) in mine.iter().filter(|(cell, _)| cell.prompt == prompt.id) {
            if let Some(passes) = check_passes(cell) {
                let task = tasks.entry(&prompt.id).or_default();
                task.0 += 1;
                task.1 += usize::from(passes);
            }
        }
    }
    let Some(samples) = tasks.values().map(|(n, _)| *n).min() else { return BTreeMap::new() };
    [1, 5, 10, samples]
        .into_iter()
        .filter(|k| *k <= samples)
        .filter_map(|k| {
            let scores = tasks.values().filter_map(|(n, c)| pass_at_k(*n, *c, k));
            Some((k, Stat::of(scores)?))
        })
        .collect()
}

fn mark_dominated(variants: &mut [Variant]) {
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

fn environment(collected: &Collected) -> Vec<Fact> {
    type Of = fn(&MetricsRecord) -> String;
    let facts: [(&str, Of); 14] = [
        ("device", |r| r.fingerprint.device.clone()),
        ("driver", |r| r.fingerprint.driver.clone()),
        ("host CPU", |r| r.device.host_cpu.clone()),
        ("build", |r| r.fingerprint.build.clone()),
        ("engine", |r| r.resolved.engine.clone()),
        ("dtype", |r| r.fingerprint.dtype.clone()),
        ("flash attention", |r| r.fingerprint.flash_attn.clone()),
        ("TF32", |r| r.fingerprint.tf32.clone()),
        ("reduced-precision reduction", |r| r.fingerprint.reduced_precision_reduction.clone()),
        ("CUDA graph", |r| r.fingerprint.cuda_graph.clone()),
        ("temperature", |r| r.resolved.temperature.to_string()),
        ("top_p", |r| r.resolved.top_p.to_string()),
        ("max_new_tokens", |r| r.generation_settings.max_new_tokens.to_string()),
        ("read bandwidth, GB/s", |r| {
            r.metrics.read_bandwidth_gb_s.map_or_else(String::new, |b| format!("{b:.0}"))
        }),
    ];
    facts
        .into_iter()
        .filter_map(|(name, of)| {
            let values: BTreeSet<String> =
                collected.records.values().map(of).filter(|v| !v.is_empty()).collect();
            let values: Vec<String> = values.into_iter().take(6).collect();
            (!values.is_empty()).then(|| Fact { name: name.to_owned(), values })
        })
        .collect()
}

fn prompts(collected: &Collected) -> Vec<PromptFacts> {
    collected
        .plan
        .sweep
        .prompts
        .iter()
        .map(|prompt| PromptFacts {
            id: prompt.id.clone(),
            text: prompt.text.clone(),
            rubric: prompt.rubric.as_ref().map(|rubric| rubric.name.clone()),
            items: prompt
                .rubric
                .iter()
                .flat_map(|rubric| &rubric.items)
                .map(|item| (item.id.clone(), item.title.clone()))
                .collect(),
        })
        .collect()
}
