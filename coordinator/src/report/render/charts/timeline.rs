//! Utilisation and memory over a generation, from its telemetry: a panel for each model.

use bakeoff_proto::telemetry::{CPU_S, GPU_USED_BYTES, GPU_UTIL_PCT, RSS_BYTES, Table};

use super::svg::{Axis, Svg, fit, number};
use super::{Chart, WIDTH};

type Points = Vec<(f64, f64)>;

/// Most points drawn of one line.
const POINTS: usize = 400;
/// Most panels; the sweep's first models.
const PANELS: usize = 8;
const PANEL: f64 = 132.0;
const PLOT: f64 = 78.0;

/// One generation of a model: the longest, which shows most.
struct Panel<'a> {
    name: &'a str,
    /// GB over seconds.
    memory: Points,
    /// Percent over seconds.
    busy: Points,
    /// The GPU's figures; else the process's.
    gpu: bool,
}

impl Panel<'_> {
    fn seconds(&self) -> f64 {
        self.memory.iter().chain(&self.busy).map(|p| p.0).fold(0.0, f64::max)
    }
}

/// From name and telemetry of each cell; `None` where no telemetry has two samples.
pub fn timeline<'a>(cells: impl IntoIterator<Item = (&'a str, &'a str)>) -> Option<Chart> {
    let mut panels: Vec<Panel<'a>> = Vec::new();
    for (name, csv) in cells {
        let Some(panel) = read(name, csv) else { continue };
        match panels.iter().position(|p| p.name == name) {
            Some(known) if panels[known].seconds() >= panel.seconds() => {}
            Some(known) => panels[known] = panel,
            None if panels.len() < PANELS => panels.push(panel),
            None => {}
        }
    }
    (!panels.is_empty()).then(|| draw(&panels))
}

fn draw(panels: &[Panel<'_>]) -> Chart {
    let (left, right) = (64.0, WIDTH - 88.0);
    // One scale for all panels, so that they compare.
    let most = highest(panels.iter().map(|p| &p.memory)).max(1e-9) * 1.15;
    let full = (highest(panels.iter().map(|p| &p.busy)) / 100.0).ceil().max(1.0) * 100.0;
    let height = PANEL * panels.len() as f64 + 20.0;
    let mut svg = Svg::new(WIDTH, height, "Utilisation and memory over time by model");
    for (index, panel) in panels.iter().enumerate() {
        let top = PANEL * index as f64 + 26.0;
        let bottom = top + PLOT;
        let x = Axis::from_zero(panel.seconds(), left, right, "");
        svg.label(left, top - 9.0, "start", "l v", &fit(panel.name, 60));
        svg.grid(&x, top, bottom);
        let scale = |value: f64, highest: f64| bottom - value / highest * PLOT;
        for share in [0.0, 0.5, 1.0] {
            let y = scale(share, 1.0);
            svg.line(left, y, right, y, "g");
            svg.label(left - 8.0, y + 4.0, "end", "t c1t", &format!("{:.0} %", share * full));
            let gb = format!("{} GB", number(share * most));
            svg.label(right + 8.0, y + 4.0, "start", "t c2t", &gb);
        }
        for (points, highest, class) in
            [(&panel.busy, full, "line c1l"), (&panel.memory, most, "line c2l")]
        {
            let every = points.len().div_ceil(POINTS).max(1);
            let drawn: Vec<_> = points
                .iter()
                .step_by(every)
                .map(|(t, value)| (x.at(*t), scale(*value, highest)))
                .collect();
            svg.path(&drawn, class);
        }
    }
    svg.label((left + right) / 2.0, height - 6.0, "middle", "u", "seconds since the start");
    let of = if panels.iter().all(|p| p.gpu) {
        "GPU utilisation in percent (left), GPU memory in use (right)"
    } else {
        "CPU use in percent of one core (left), resident memory of the worker (right)"
    };
    Chart {
        id: "chart-timeline",
        title: "Utilisation and memory",
        note: format!(
            "The longest generation of each model, sampled ten times a second. <b class=\"key \
            c1\"></b> / <b class=\"key c2\"></b> {of}."
        ),
        svg: svg.finish(),
    }
}

fn highest<'p>(series: impl Iterator<Item = &'p Points>) -> f64 {
    series.flatten().map(|point| point.1).fold(0.0, f64::max)
}

/// The GPU's columns where they are filled, else the process's.
fn read<'a>(name: &'a str, csv: &str) -> Option<Panel<'a>> {
    let table = Table::parse(csv);
    let gb = |column: &str| -> Points {
        table.series(column).into_iter().map(|(t, bytes)| (t, bytes / 1e9)).collect()
    };
    let on_gpu = gb(GPU_USED_BYTES);
    let panel = if on_gpu.is_empty() {
        Panel { name, memory: gb(RSS_BYTES), busy: cpu_use(&table.series(CPU_S)), gpu: false }
    } else {
        Panel { name, memory: on_gpu, busy: table.series(GPU_UTIL_PCT), gpu: true }
    };
    (panel.memory.len() > 1 && panel.seconds() > 0.0).then_some(panel)
}

/// CPU seconds over time as percent of one core: a step from sample to sample, since it is a mean.
fn cpu_use(cpu_s: &[(f64, f64)]) -> Points {
    cpu_s
        .windows(2)
        .filter(|pair| pair[1].0 > pair[0].0)
        .flat_map(|pair| {
            let percent = (pair[1].1 - pair[0].1) / (pair[1].0 - pair[0].0) * 100.0;
            [(pair[0].0, percent.max(0.0)), (pair[1].0, percent.max(0.0))]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use bakeoff_proto::telemetry::COLUMNS;

    use super::*;

    /// A file as the worker writes it, from (column, value) of each sample.
    fn csv(samples: &[&[(&str, &str)]]) -> String {
        bakeoff_proto::telemetry::render(samples.iter().map(|sample| {
            COLUMNS.map(|column| {
                let field = sample.iter().find(|(name, _)| *name == column);
                field.map_or_else(String::new, |(_, value)| (*value).to_owned())
            })
        }))
    }

    #[test]
    fn gpu_and_cpu_telemetry_both_read() {
        let gpu = csv(&[
            &[("seconds", "0"), (GPU_USED_BYTES, "1e9"), (GPU_UTIL_PCT, "10"), (RSS_BYTES, "9e9")],
            &[("seconds", "0.1"), (GPU_USED_BYTES, "2e9")],
            &[("seconds", "0.2"), (GPU_USED_BYTES, "3e9"), (GPU_UTIL_PCT, "90")],
        ]);
        let panel = read("x", &gpu).expect("two points and more");
        assert_eq!(panel.memory, [(0.0, 1.0), (0.1, 2.0), (0.2, 3.0)]);
        assert_eq!(panel.busy, [(0.0, 10.0), (0.2, 90.0)]);
        let cpu = csv(&[
            &[("seconds", "0"), (RSS_BYTES, "1e9"), (CPU_S, "7")],
            &[("seconds", "1"), (RSS_BYTES, "2e9"), (CPU_S, "8.5")],
        ]);
        let panel = read("x", &cpu).expect("two points");
        assert_eq!(panel.memory, [(0.0, 1.0), (1.0, 2.0)]);
        assert_eq!(panel.busy, [(0.0, 150.0), (1.0, 150.0)]);
        let chart = timeline([("a", cpu.as_str()), ("b", &gpu), ("a", &cpu)]).expect("two panels");
        assert_eq!(chart.svg.matches("<path").count(), 4);
    }

    #[test]
    fn what_is_no_telemetry_draws_nothing() {
        let one = csv(&[&[("seconds", "0"), (RSS_BYTES, "1")]]);
        for csv in ["", "a,b\n1,2\n", "seconds,rss_bytes\n", &one, "\0\u{1}"] {
            assert!(timeline([("x", csv)]).is_none(), "{csv:?}");
        }
    }
}
