//! Utilisation and memory over a generation, from its telemetry.

use super::svg::{Axis, Svg, number};
use super::{Chart, WIDTH};

/// A column of the telemetry, in the unit that is drawn.
struct Series {
    points: Vec<(f64, f64)>,
}

/// Most points drawn of one line.
const POINTS: usize = 400;

/// The timeline of the first cell that has a readable one; `None` without telemetry.
pub fn timeline<'a>(cells: impl IntoIterator<Item = (&'a str, &'a str)>) -> Option<Chart> {
    cells.into_iter().find_map(|(name, csv)| draw(name, csv))
}

fn draw(name: &str, csv: &str) -> Option<Chart> {
    let (memory, utilisation) = read(csv)?;
    let end = memory.points.iter().chain(&utilisation.points).map(|p| p.0).fold(0.0, f64::max);
    if end <= 0.0 {
        return None;
    }
    let (left, right, height) = (60.0, WIDTH - 70.0, 240.0);
    let x = Axis::from_zero(end, left, right, "s since the start");
    let most = memory.points.iter().map(|p| p.1).fold(0.0, f64::max).max(1e-9) * 1.15;
    let busiest = utilisation.points.iter().map(|p| p.1).fold(0.0, f64::max);
    let full = (busiest / 100.0).ceil().max(1.0) * 100.0;
    let mut svg = Svg::new(WIDTH, height + 40.0, "Utilisation and memory over time");
    svg.grid(&x, 10.0, height);
    let scale = |value: f64, top: f64| height - value / top * (height - 20.0);
    for step in 0..=4 {
        let share = f64::from(step) / 4.0;
        let y = scale(share, 1.0);
        svg.line(left, y, right, y, "g");
        svg.label(left - 8.0, y + 4.0, "end", "t c1t", &format!("{:.0} %", share * full));
        svg.label(right + 8.0, y + 4.0, "start", "t c2t", &number(share * most));
    }
    for (series, top, class) in [(&utilisation, full, "line c1l"), (&memory, most, "line c2l")] {
        let every = series.points.len().div_ceil(POINTS).max(1);
        let points: Vec<_> =
            series.points.iter().step_by(every).map(|(t, v)| (x.at(*t), scale(*v, top))).collect();
        svg.path(&points, class);
    }
    let name = crate::quality::highlight::escape(name);
    Some(Chart {
        id: "chart-timeline",
        title: "Utilisation and memory",
        note: format!(
            "{name}: <b class=\"key c1\"></b> utilisation, percent (left) <b class=\"key c2\"></b> memory used, GB (right)."
        ),
        svg: svg.finish(),
    })
}

/// Memory in GB and utilisation in percent over seconds. Columns are found by name, so that telemetry
/// of a GPU and of a CPU both read.
fn read(csv: &str) -> Option<(Series, Series)> {
    let mut lines = csv.lines();
    let header: Vec<&str> = lines.next()?.split(',').map(str::trim).collect();
    let find = |names: &[&str]| {
        names.iter().find_map(|name| header.iter().position(|column| column == name))
    };
    let time = find(&["t_ms", "time_ms", "elapsed_ms", "t_s", "time_s", "elapsed_s"])?;
    let per_second = if header[time].ends_with("_ms") { 1000.0 } else { 1.0 };
    let memory = find(&[
        "memory_used_gb",
        "gpu_memory_gb",
        "memory_used_bytes",
        "memory_used_mb",
        "rss_gb",
        "host_rss_gb",
        "rss_bytes",
    ])?;
    let per_gb = match header[memory] {
        name if name.ends_with("_bytes") => 1e9,
        name if name.ends_with("_mb") => 1e3,
        _ => 1.0,
    };
    let percent = find(&["gpu_util_pct", "utilisation_pct", "util_pct", "cpu_pct"]);
    let cpu_s = find(&["cpu_s", "host_cpu_s"]);
    let (mut used, mut busy) = (Vec::new(), Vec::new());
    let mut before: Option<(f64, f64)> = None;
    for line in lines {
        let fields: Vec<Option<f64>> = line
            .split(',')
            .map(|field| field.trim().parse::<f64>().ok().filter(|v| v.is_finite()))
            .collect();
        let at = |index: usize| fields.get(index).copied().flatten();
        let Some(seconds) = at(time).map(|t| t / per_second) else { continue };
        if let Some(memory) = at(memory) {
            used.push((seconds, memory / per_gb));
        }
        if let Some(percent) = percent.and_then(at) {
            busy.push((seconds, percent));
        } else if let Some(cpu) = cpu_s.and_then(at) {
            if let Some((then, cpu_then)) = before
                && seconds > then
            {
                busy.push((seconds, ((cpu - cpu_then) / (seconds - then) * 100.0).max(0.0)));
            }
            before = Some((seconds, cpu));
        }
    }
    (used.len() > 1).then_some((Series { points: used }, Series { points: busy }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpu_and_cpu_telemetry_both_read() {
        let gpu = "t_ms,memory_used_gb,gpu_util_pct\n0,1,10\n100,2,\n200,3,90\nx,y,z\n";
        let (memory, busy) = read(gpu).expect("two points and more");
        assert_eq!(memory.points, [(0.0, 1.0), (0.1, 2.0), (0.2, 3.0)]);
        assert_eq!(busy.points, [(0.0, 10.0), (0.2, 90.0)]);
        let cpu = "t_ms,rss_bytes,cpu_s\n0,1000000000,0\n1000,2000000000,1.5\n";
        let (memory, busy) = read(cpu).expect("two points");
        assert_eq!(memory.points[1], (1.0, 2.0));
        assert_eq!(busy.points, [(1.0, 150.0)]);
    }

    #[test]
    fn what_is_no_telemetry_draws_nothing() {
        for csv in ["", "a,b\n1,2\n", "t_ms,rss_gb\n", "t_ms,rss_gb\n0,1\n", "\0\u{1}"] {
            assert!(timeline([("x", csv)]).is_none(), "{csv:?}");
        }
    }
}
