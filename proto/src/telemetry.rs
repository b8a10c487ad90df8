//! The columns of `telemetry/<cell>.<attempt>.csv`: written by the worker, drawn by the report.

/// Since the generation's start.
pub const SECONDS: &str = "seconds";
/// Memory of the GPU in use, by whomever.
pub const GPU_USED_BYTES: &str = "gpu_used_bytes";
/// Share of the time in which a kernel ran, percent.
pub const GPU_UTIL_PCT: &str = "gpu_util_pct";
/// Resident set size of the worker.
pub const RSS_BYTES: &str = "rss_bytes";
/// User and system time of the worker since it started.
pub const CPU_S: &str = "cpu_s";

/// Every column in order. A field is empty where nothing could be measured.
pub const COLUMNS: [&str; 11] = [
    SECONDS,
    GPU_USED_BYTES,
    GPU_UTIL_PCT,
    "power_w",
    "sm_mhz",
    "memory_mhz",
    "temperature_c",
    "throttled",
    "energy_mj",
    RSS_BYTES,
    CPU_S,
];

/// Writes a file. Samples have one field a column, in the order of [`COLUMNS`].
pub fn render(samples: impl IntoIterator<Item = [String; COLUMNS.len()]>) -> String {
    let mut text = COLUMNS.join(",");
    text.push('\n');
    for sample in samples {
        text.push_str(&sample.join(","));
        text.push('\n');
    }
    text
}

/// A file read back: the columns are found by name, so that one with more or fewer reads as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table<'a> {
    header: Vec<&'a str>,
    lines: Vec<&'a str>,
}

impl<'a> Table<'a> {
    /// Reads any text; what is no table has no columns.
    pub fn parse(csv: &'a str) -> Self {
        let mut lines = csv.lines();
        let header = lines.next().unwrap_or_default().split(',').map(str::trim).collect();
        Self { header, lines: lines.collect() }
    }

    /// The finite numbers of a column, each with its time; empty where there are none.
    pub fn series(&self, column: &str) -> Vec<(f64, f64)> {
        let find = |name: &str| self.header.iter().position(|known| *known == name);
        let (Some(time), Some(column)) = (find(SECONDS), find(column)) else { return Vec::new() };
        let number = |line: &str, index: usize| {
            let value: f64 = line.split(',').nth(index)?.trim().parse().ok()?;
            value.is_finite().then_some(value)
        };
        self.lines.iter().filter_map(|l| Some((number(l, time)?, number(l, column)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_gaps_stay_gaps() {
        let mut first = <[String; COLUMNS.len()]>::default();
        first[0] = "0.000".into();
        first[COLUMNS.len() - 1] = "1.5".into();
        let mut second = first.clone();
        second[0] = "0.100".into();
        second[COLUMNS.len() - 1] = "NaN".into();
        let text = render([first, second]);
        assert_eq!(text.lines().next(), Some(COLUMNS.join(",").as_str()));
        let table = Table::parse(&text);
        assert_eq!(table.series(CPU_S), [(0.0, 1.5)]);
        assert_eq!(table.series(GPU_USED_BYTES), []);
        assert_eq!(table.series("no such column"), []);
        assert_eq!(Table::parse("").series(CPU_S), []);
        assert_eq!(Table::parse("\0,seconds\n1").series(CPU_S), []);
    }
}
