//! `report.html`: one file without script and without outside assets. Everything that came from a
//! model or a person is escaped by the template; what is marked safe was built from escaped parts.

use std::collections::BTreeMap;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Value, context};

use super::charts;
use crate::collect::Collected;
use crate::quality::{highlight, text};
use crate::report::model::{CellFacts, Invalid, Measure, Report};

const TEMPLATE: &str = include_str!("template.html");
/// The style sheet of report and review page.
pub const STYLE: &str = include_str!("style.css");

/// Outputs share this much of the page; beyond it each is cut, and names its file.
const OUTPUT_BUDGET: usize = 1_400_000;

/// The page.
pub fn render(report: &Report, collected: &Collected) -> String {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("only the handling of white space differs"));
    environment.add_filter("f", decimals);
    environment.add_filter("stat", stat);
    let measure = report.measure;
    environment.add_filter("show", move |value: f64| measure.show(value));
    environment.add_filter("starry", starry);
    environment.add_filter("because", |Serde(reason): Serde<Invalid>| reason.words());
    environment.add_template("report.html", TEMPLATE).expect("a test renders the template");
    let template = environment.get_template("report.html").expect("it was just added");
    let mut charts = charts::all(report);
    charts.extend(charts::timeline(report.cells.iter().filter_map(|cell| {
        Some((cell.variant.as_str(), collected.telemetry.get(&cell.cell)?.as_str()))
    })));
    let charts: Vec<_> = charts
        .into_iter()
        .map(|chart| {
            context! {
                id => chart.id,
                title => chart.title,
                note => Value::from_safe_string(chart.note),
                svg => Value::from_safe_string(chart.svg),
            }
        })
        .collect();
    template
        .render(context! {
            style => Value::from_safe_string(STYLE.to_owned()),
            report => Value::from(Serde(report)),
            device => device(report),
            measure_words => report.measure.words(),
            charts,
            outputs => Value::from(Serde(outputs(report, collected))),
            titles => Value::from(Serde(titles(report))),
            picked => Value::from(Serde(picked(report))),
            reviewed => report.measure == Measure::Stars,
            sequence_tokens => crate::sizing::SEQUENCE_TOKENS,
        })
        .expect("a test renders the template with everything there, and with nothing")
}

fn decimals(value: Value, digits: usize) -> String {
    f64::try_from(value).map_or_else(|_| "–".to_owned(), |value| format!("{value:.digits$}"))
}

/// A mean and, if there is one, its interval.
fn stat(value: Value, digits: usize) -> Value {
    let field = |name: &str| value.get_attr(name).ok().and_then(|v| f64::try_from(v).ok());
    let Some(mean) = field("mean") else { return Value::from("–") };
    let interval = match (field("low"), field("high")) {
        (Some(low), Some(high)) if high - low > 0.0 => {
            // What is measured is never below zero; an interval of few repeats may reach there.
            let low = low.max(0.0);
            format!("<br><small>{low:.digits$}–{high:.digits$}</small>")
        }
        _ => String::new(),
    };
    Value::from_safe_string(format!("{mean:.digits$}{interval}"))
}

/// Stars as characters, for eyes; the number stands beside them.
fn starry(value: f64) -> String {
    let full = value.round().clamp(0.0, 5.0) as usize;
    format!("{}{}", "★".repeat(full), "☆".repeat(5 - full))
}

/// The machine's name where all cells ran on one.
fn device(report: &Report) -> Option<&str> {
    let fact = report.environment.iter().find(|fact| fact.name == "device")?;
    match fact.values.as_slice() {
        [one] => Some(one),
        _ => None,
    }
}

/// Titles of the rubrics' items by id.
fn titles(report: &Report) -> BTreeMap<&str, &str> {
    let items = report.prompts.iter().flat_map(|prompt| &prompt.items);
    items.map(|(id, title)| (id.as_str(), title.as_str())).collect()
}

/// What each variant is recommended for, by its name.
fn picked(report: &Report) -> BTreeMap<&str, Vec<&str>> {
    let mut picked: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for recommendation in &report.recommendations {
        if let Some(variant) = &recommendation.variant {
            picked.entry(variant).or_default().push(&recommendation.use_case);
        }
    }
    picked
}

/// The outputs as HTML by cell.
fn outputs(report: &Report, collected: &Collected) -> BTreeMap<String, String> {
    let shown: Vec<(&CellFacts, &String)> = report
        .cells
        .iter()
        .filter_map(|cell| Some((cell, collected.outputs.get(&cell.cell)?)))
        .collect();
    let total: usize = shown.iter().map(|(_, output)| output.len()).sum();
    let share = if total > OUTPUT_BUDGET { OUTPUT_BUDGET / shown.len() } else { usize::MAX };
    // Colour costs bytes: only where there is room for it.
    let coloured = total < OUTPUT_BUDGET / 2;
    shown
        .into_iter()
        .map(|(cell, output)| (cell.cell.to_string(), output_html(output, share, coloured)))
        .collect()
}

/// An output as HTML: prose as it is, code blocks coloured.
pub fn output_html(output: &str, most: usize, coloured: bool) -> String {
    let mut end = most.min(output.len());
    while !output.is_char_boundary(end) {
        end -= 1;
    }
    let shown = &output[..end];
    let mut html = String::with_capacity(shown.len() * 2);
    let mut done = 0;
    if coloured {
        for block in text::blocks(shown) {
            let start = block.code.as_ptr() as usize - shown.as_ptr() as usize;
            if matches!(block.language.as_str(), "python" | "py" | "") && start >= done {
                html.push_str(&highlight::escape(&shown[done..start]));
                html.push_str(&highlight::python_html(block.code));
                done = start + block.code.len();
            }
        }
    }
    html.push_str(&highlight::escape(&shown[done..]));
    if end < output.len() {
        html.push_str(&format!("\n… {} bytes more in the stored file", output.len() - end));
    }
    html
}
