//! From what was collected to what the report says.
//!
//! - [`measures`]: by what outputs are judged; `variants`: what is known of each model and engine
//! - `validity`: about which variants something may be concluded
//! - `recommend`, `insights`, `warnings`: what follows from the numbers
//! - `environment`: the machine and the settings

mod environment;
mod insights;
pub mod measures;
mod recommend;
mod validity;
mod variants;
mod warnings;

use std::collections::{BTreeMap, BTreeSet};

use bakeoff_model::GpuSpec;
use bakeoff_proto::{MetricsRecord, SCHEMA_VERSION};

use super::model::{CellFacts, PromptFacts, Report, Variant, Warning, WarningKind};
use crate::check::CheckReport;
use crate::collect::{Collected, Row};
use crate::quality::{Analyser, Analysis, Compiled};
use crate::review::{self, Review};
use validity::Validity;

/// Builds the report. Everything is derived from `collected` and `gpus`; nothing else is looked at.
pub fn build(collected: &Collected, gpus: &[GpuSpec]) -> Report {
    let mut warnings = Vec::new();
    let reviews = reviews(collected, &mut warnings);
    let rules = &collected.plan.sweep.report;
    let mut cells = cells(collected, &reviews, &mut warnings);
    let validity = Validity::of(collected);
    let judged = |cell: &CellFacts| cell.is_done() && validity.invalid(&cell.variant).is_none();
    let measure = measures::measure(cells.iter().filter(|cell| judged(cell)));
    for cell in &mut cells {
        cell.passes = judged(cell).then(|| measures::passes(cell, measure, rules)).flatten();
    }
    let mut variants = variants::all(collected, &cells, &validity, measure, gpus);
    variants::mark_dominated(&mut variants);
    let valid: Vec<&Variant> = variants.iter().filter(|v| v.invalid.is_none()).collect();
    let insights = insights::find(&valid, measure);
    let recommendations = recommend::all(&valid, &cells, measure, rules);
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
        environment: environment::facts(collected),
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
            warnings.push(Warning { kind: WarningKind::BadReviews, text });
            ReviewsByCell::new()
        }
    }
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
                kind: WarningKind::BadRubric,
                text: format!("Prompt {} is analysed without its rubric: {error}", prompt.id),
            }),
            None => {}
        }
    }
    let command = collected.plan.sweep.checks.as_ref().is_some_and(|c| c.command.is_some());
    let tested: BTreeSet<&str> = prompts
        .iter()
        .filter(|prompt| command || prompt.task.is_some())
        .map(|prompt| prompt.id.as_str())
        .collect();
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
            let checks = checks(collected, row, record, warnings);
            let behaviour = measures::behaviour(&checks, tested.contains(row.prompt_id.as_str()));
            CellFacts {
                cell: row.cell.clone(),
                variant: collected.variant_name(row),
                prompt: row.prompt_id.clone(),
                run: row.run,
                status: row.status,
                document: record.map(|r| r.document.key.clone()),
                finish: record.map(|r| r.output.finish_reason),
                metrics: record.map(|r| r.metrics.clone()),
                analysis,
                checks,
                behaviour,
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
    let wrong = match CheckReport::of_document(text, &record.document.sha256) {
        Ok(report) => return report.checks,
        Err(wrong) => wrong,
    };
    warnings.push(Warning {
        kind: WarningKind::BadChecks,
        text: format!("The checks of cell {} are left out: {wrong}", row.cell),
    });
    Vec::new()
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
