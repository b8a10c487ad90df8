//! Charts as inline SVG: no script, colours from the page's style sheet so that they follow dark
//! mode and print, a title for screen readers, and the numbers as text beside the marks.

mod labels;
mod svg;
mod timeline;

use crate::report::model::{Measure, Report, Variant};
use labels::Labels;
use svg::{Axis, Svg, colour, number};
pub use timeline::timeline;

/// One chart with its caption.
pub struct Chart {
    pub id: &'static str,
    pub title: &'static str,
    pub note: String,
    /// An `<svg>` element.
    pub svg: String,
}

const WIDTH: f64 = 760.0;
const LABELS: f64 = 250.0;
/// Characters of a name that fit into it.
const NAME: usize = 28;
const ROW: f64 = 34.0;
/// Room at the right for a value beside its bar.
const VALUES: f64 = 92.0;

/// Every chart for which there are numbers; the timeline needs telemetry and is made apart.
pub fn all(report: &Report) -> Vec<Chart> {
    let variants: Vec<&Variant> = report.variants.iter().filter(|v| v.done > 0).collect();
    [speed(&variants), quality(&variants, report.measure), latency(&variants), memory(&variants)]
        .into_iter()
        .flatten()
        .collect()
}

fn rows_chart(
    title: &str,
    variants: &[&Variant],
    axis: &Axis,
    draw: impl Fn(&mut Svg, &Variant, usize, f64),
) -> String {
    let bottom = 12.0 + ROW * variants.len() as f64;
    let mut svg = Svg::new(WIDTH, bottom + 40.0, title);
    svg.grid(axis, 8.0, bottom);
    for (index, variant) in variants.iter().enumerate() {
        let middle = 12.0 + ROW * (index as f64 + 0.5);
        svg.label(LABELS - 10.0, middle + 4.0, "end", "l", &svg::fit(&variant.name, NAME));
        draw(&mut svg, variant, index, middle);
    }
    svg.finish()
}

fn speed(variants: &[&Variant]) -> Option<Chart> {
    let top = variants
        .iter()
        .filter_map(|v| {
            let speed = v.tok_per_s?;
            Some(speed.high.unwrap_or(speed.mean).max(v.bound_tok_s.unwrap_or(0.0)))
        })
        .max_by(f64::total_cmp)?;
    let axis = Axis::from_zero(top, LABELS, WIDTH - VALUES, "tok/s");
    let svg = rows_chart("Tokens per second by model", variants, &axis, |svg, v, index, y| {
        let Some(speed) = v.tok_per_s else { return };
        svg.bar(LABELS, axis.at(speed.mean), y - 9.0, 18.0, colour(index));
        if let (Some(low), Some(high)) = (speed.low, speed.high) {
            svg.whisker(axis.at(low), axis.at(high), y);
        }
        let mut right = axis.at(speed.high.unwrap_or(speed.mean));
        if let Some(bound) = v.bound_tok_s {
            svg.tick(axis.at(bound), y - 13.0, y + 13.0);
            right = right.max(axis.at(bound));
        }
        svg.label(right + 8.0, y + 4.0, "start", "v", &number(speed.mean));
    });
    let bound = if variants.iter().any(|v| v.bound_tok_s.is_some()) {
        " The dashed mark is the bound: read bandwidth over bytes read for a token."
    } else {
        ""
    };
    Some(Chart {
        id: "chart-speed",
        title: "Speed",
        note: format!(
            "Tokens generated over the whole time, prefill included; whiskers are 95 % intervals \
            of the mean.{bound}"
        ),
        svg,
    })
}

fn memory(variants: &[&Variant]) -> Option<Chart> {
    let parts = |v: &Variant| -> Option<[f64; 3]> {
        let (weights, kv) = (v.model_memory_gb?, v.kv_memory_gb.unwrap_or(0.0));
        let peak = v.peak_memory_gb.or(v.host_rss_peak_gb).unwrap_or(0.0);
        Some([weights, kv, (peak - weights - kv).max(0.0)])
    };
    let total = |v: &Variant| parts(v).map(|p| p.iter().sum::<f64>());
    let top = variants.iter().filter_map(|v| total(v)).max_by(f64::total_cmp)?;
    let axis = Axis::from_zero(top, LABELS, WIDTH - VALUES, "GB");
    let svg = rows_chart("Memory by model", variants, &axis, |svg, v, _, y| {
        let Some(parts) = parts(v) else { return };
        let mut from = 0.0;
        for (part, class) in parts.into_iter().zip(["m1", "m2", "m3"]) {
            if part > 0.0 {
                svg.bar(axis.at(from), axis.at(from + part), y - 9.0, 18.0, class);
                from += part;
            }
        }
        svg.label(axis.at(from) + 8.0, y + 4.0, "start", "v", &format!("{} GB", number(from)));
    });
    Some(Chart {
        id: "chart-memory",
        title: "Memory ledger",
        note: "<b class=\"key m1\"></b> weights <b class=\"key m2\"></b> keys and values <b \
        class=\"key m3\"></b> the rest up to the highest use seen (activations, workspace, \
        runtime). GB of 10⁹ bytes."
            .to_owned(),
        svg,
    })
}

fn quality(variants: &[&Variant], measure: Measure) -> Option<Chart> {
    let points: Vec<_> = variants
        .iter()
        .enumerate()
        .filter_map(|(index, v)| Some((index, v.name.as_str(), v.tok_per_s?.mean, v.quality?.mean)))
        .collect();
    let fastest = points.iter().map(|p| p.2).max_by(f64::total_cmp)?;
    let (height, left) = (330.0, 70.0);
    let top = if measure == Measure::Stars { 5.0 } else { 1.0 };
    let x = Axis::from_zero(fastest * 1.12, left, WIDTH - 40.0, "tok/s");
    let mut svg = Svg::new(WIDTH, height + 40.0, "Quality against speed");
    svg.grid(&x, 10.0, height);
    let at = |q: f64| height - (q / top) * (height - 30.0);
    for step in 0..=5 {
        let q = top * f64::from(step) / 5.0;
        svg.line(left, at(q), WIDTH - 40.0, at(q), "g");
        svg.label(left - 8.0, at(q) + 4.0, "end", "t", &measure.show(q));
    }
    let mut labels = Labels::new(left, WIDTH - 40.0, 10.0, height);
    for (_, _, speed, q) in &points {
        labels.keep_clear(x.at(*speed), at(*q));
    }
    for (index, name, speed, q) in points {
        let (px, py) = (x.at(speed), at(q));
        let hint = format!("{name}: {speed:.1} tok/s, {}", measure.show(q));
        svg.dot(px, py, 7.0, colour(index), &hint);
        let name = svg::fit(name, NAME);
        if let Some((lx, ly, anchor)) = labels.place(px, py, &name) {
            if (ly - py).abs() > 20.0 {
                svg.line(px, py, lx, ly - 4.0, "g");
            }
            svg.label(lx, ly, anchor, "l", &name);
        }
    }
    let missing = match variants.iter().filter(|v| v.quality.is_none()).count() {
        0 => String::new(),
        1 => " One model is not judged and not drawn.".to_owned(),
        n => format!(" {n} models are not judged and not drawn."),
    };
    Some(Chart {
        id: "chart-quality",
        title: "Quality against speed",
        note: format!("Up and to the right is better. Quality by {}.{missing}", measure.words()),
        svg: svg.finish(),
    })
}

fn latency(variants: &[&Variant]) -> Option<Chart> {
    let top = variants.iter().filter_map(|v| v.itl_ms.map(|p| p[6])).max_by(f64::total_cmp)?;
    let axis = Axis::from_zero(top, LABELS, WIDTH - VALUES, "ms between tokens");
    let svg = rows_chart("Time between tokens by model", variants, &axis, |svg, v, index, y| {
        let Some([p1, p5, p25, p50, p75, p95, p99]) = v.itl_ms else { return };
        svg.line(axis.at(p1), y, axis.at(p99), y, "w");
        svg.bar(axis.at(p5), axis.at(p95), y - 5.0, 10.0, &format!("{} pale", colour(index)));
        svg.bar(axis.at(p25), axis.at(p75), y - 9.0, 18.0, colour(index));
        svg.line(axis.at(p50), y - 11.0, axis.at(p50), y + 11.0, "median");
        let text = format!("{} / {}", number(p50), number(p99));
        svg.label(axis.at(p99) + 8.0, y + 4.0, "start", "v", &text);
    });
    Some(Chart {
        id: "chart-latency",
        title: "Token latency",
        note: "All gaps pooled: the line spans p1 to p99, the pale bar p5 to p95, the solid one \
        p25 to p75, the mark is the median. Beside it: p50 / p99."
            .to_owned(),
        svg,
    })
}
