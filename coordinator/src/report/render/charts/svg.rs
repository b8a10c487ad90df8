//! A few marks, all text escaped.

use crate::quality::highlight::escape;

/// A scale from zero with round steps.
pub struct Axis {
    max: f64,
    step: f64,
    left: f64,
    right: f64,
    unit: &'static str,
}

impl Axis {
    pub fn from_zero(max: f64, left: f64, right: f64, unit: &'static str) -> Self {
        let max = if max.is_finite() && max > 0.0 { max } else { 1.0 };
        let rough = max / 5.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .into_iter()
            .map(|m| m * power)
            .find(|step| *step >= rough)
            .unwrap_or(10.0 * power);
        Self { max, step, left, right, unit }
    }

    pub fn at(&self, value: f64) -> f64 {
        self.left + (value / self.max).clamp(0.0, 1.0) * (self.right - self.left)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> + '_ {
        (0..=10).map(|i| f64::from(i) * self.step).take_while(|v| *v <= self.max * 1.0001)
    }
}

/// Class of the n-th series.
pub fn colour(index: usize) -> &'static str {
    ["c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8"][index % 8]
}

/// A number with the digits that matter.
pub fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 0.1 || v == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// A tick's label, without trailing zeros.
fn tick_label(value: f64) -> String {
    let text = format!("{value:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A name that fits; the end tells more than the beginning.
pub fn fit(name: &str, most: usize) -> String {
    let count = name.chars().count();
    if count <= most {
        return name.to_owned();
    }
    let tail: String = name.chars().skip(count - most + 1).collect();
    format!("…{tail}")
}

pub struct Svg {
    out: String,
}

impl Svg {
    pub fn new(width: f64, height: f64, title: &str) -> Self {
        let title = escape(title);
        Self {
            out: format!(
                "<svg viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" aria-label=\"{title}\" \
                xmlns=\"http://www.w3.org/2000/svg\"><title>{title}</title>"
            ),
        }
    }

    pub fn grid(&mut self, axis: &Axis, top: f64, bottom: f64) {
        let ticks: Vec<f64> = axis.ticks().collect();
        for value in ticks {
            let x = axis.at(value);
            self.line(x, top, x, bottom, "g");
            self.label(x, bottom + 16.0, "middle", "t", &tick_label(value));
        }
        self.label((axis.left + axis.right) / 2.0, bottom + 33.0, "middle", "u", axis.unit);
    }

    pub fn bar(&mut self, from: f64, to: f64, y: f64, height: f64, class: &str) {
        let width = (to - from).max(1.0);
        self.out.push_str(&format!(
            "<rect class=\"{class}\" x=\"{from:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" \
            height=\"{height:.1}\" rx=\"2\"/>"
        ));
    }

    pub fn line(&mut self, x1: f64, y1: f64, x2: f64, y2: f64, class: &str) {
        self.out.push_str(&format!(
            "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
        ));
    }

    pub fn whisker(&mut self, low: f64, high: f64, y: f64) {
        self.line(low, y, high, y, "w");
        self.line(low, y - 5.0, low, y + 5.0, "w");
        self.line(high, y - 5.0, high, y + 5.0, "w");
    }

    pub fn tick(&mut self, x: f64, top: f64, bottom: f64) {
        self.line(x, top, x, bottom, "b");
    }

    pub fn dot(&mut self, x: f64, y: f64, radius: f64, class: &str, title: &str) {
        self.out.push_str(&format!(
            "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" \
            r=\"{radius:.1}\"><title>{}</title></circle>",
            escape(title)
        ));
    }

    pub fn path(&mut self, points: &[(f64, f64)], class: &str) {
        let mut data = String::new();
        for (index, (x, y)) in points.iter().enumerate() {
            data.push_str(&format!("{}{x:.1} {y:.1}", if index == 0 { "M" } else { "L" }));
        }
        self.out.push_str(&format!("<path class=\"{class}\" d=\"{data}\"/>"));
    }

    pub fn label(&mut self, x: f64, y: f64, anchor: &str, class: &str, text: &str) {
        self.out.push_str(&format!(
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
            escape(text)
        ));
    }

    pub fn finish(mut self) -> String {
        self.out.push_str("</svg>");
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_and_numbers_never_leave_the_picture() {
        let mut svg = Svg::new(10.0, 10.0, "<script>");
        svg.label(0.0, 0.0, "start", "l", "</text><script>");
        let text = svg.finish();
        assert!(!text.contains("<script"));
        let axis = Axis::from_zero(f64::NAN, 0.0, 100.0, "x");
        assert_eq!(axis.at(f64::INFINITY), 100.0);
        assert_eq!(axis.at(-1.0), 0.0);
        assert!(Axis::from_zero(53.1, 0.0, 1.0, "x").ticks().count() <= 7);
        assert_eq!(fit("abcdef", 4), "…def");
    }
}
