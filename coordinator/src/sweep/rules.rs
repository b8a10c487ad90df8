//! `[report]` and `[checks]`: by which rules the report recommends, and what is executed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Section, SweepError};

/// The rules of the recommendations; each is quoted in the report beside what it led to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ReportRules {
    /// What one GPU costs for an hour; costs are left out without it.
    pub price_per_gpu_hour: Option<f64>,
    pub currency: String,
    /// A real-time answer streams at least this fast: time per output token.
    pub realtime_max_tpot_ms: f64,
    /// A real-time answer starts within this time.
    pub realtime_max_ttft_ms: f64,
    /// Quality floor where people gave stars, 1 to 5.
    pub min_stars: f64,
    /// Quality floor where outputs were executed: share of cells that pass.
    pub min_pass_rate: f64,
    /// Quality floor where only machine evidence exists: share of the rubric.
    pub min_evidence: f64,
    /// Batch work takes models this close to the best: in stars, or in fifths of a rate.
    pub batch_within_stars: f64,
    /// Differences of a single run count beyond this margin.
    pub margin_pct: f64,
}

impl Default for ReportRules {
    fn default() -> Self {
        Self {
            price_per_gpu_hour: None,
            currency: "USD".to_owned(),
            realtime_max_tpot_ms: 50.0,
            realtime_max_ttft_ms: 1000.0,
            min_stars: 3.5,
            min_pass_rate: 0.5,
            min_evidence: 0.5,
            batch_within_stars: 0.5,
            margin_pct: 5.0,
        }
    }
}

/// What `coordinator check` runs on each output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CheckSettings {
    /// Compile the code.
    pub compile: bool,
    /// Import it as a module.
    pub import: bool,
    /// The user's own command, run beside `solution.py`.
    pub command: Option<Vec<String>>,
    /// Files put beside `solution.py`, by name: a test file, say. Read when the sweep is read.
    pub files: std::collections::BTreeMap<String, String>,
    /// The interpreter inside the sandbox.
    pub python: String,
    pub cpu_s: u64,
    pub wall_s: u64,
    pub memory_mb: u64,
    pub processes: u64,
    /// Of one file, and of each of the folders in memory that the code can write to.
    pub file_mb: u64,
    pub max_files: u64,
    /// Of stdout and stderr together.
    pub output_kb: u64,
}

impl Default for CheckSettings {
    fn default() -> Self {
        Self {
            compile: true,
            import: true,
            command: None,
            files: std::collections::BTreeMap::new(),
            python: "/usr/bin/python3".to_owned(),
            cpu_s: 10,
            wall_s: 20,
            memory_mb: 2048,
            processes: 32,
            file_mb: 16,
            max_files: 1024,
            output_kb: 1024,
        }
    }
}

pub fn read_report(top: &mut Section<'_>) -> Result<ReportRules, SweepError> {
    let mut rules = ReportRules::default();
    let Some(mut section) = top.section("report")? else { return Ok(rules) };
    let positive = |value: f64| value > 0.0;
    let price = section.number("price_per_gpu_hour", "a price above 0", positive)?;
    rules.price_per_gpu_hour = price;
    if let Some(currency) = section.string("currency")? {
        if currency.is_empty() || currency.len() > 8 || !currency.chars().all(char::is_alphabetic) {
            return Err(section.error_at("currency", "must be 1 to 8 letters, such as \"USD\""));
        }
        rules.currency = currency;
    }
    let share = |value: f64| (0.0..=1.0).contains(&value);
    let stars = |value: f64| (1.0..=5.0).contains(&value);
    let within = |value: f64| (0.0..=4.0).contains(&value);
    let margin = |value: f64| (0.0..100.0).contains(&value);
    type Rule<'r> = (&'static str, &'r mut f64, &'static str, fn(f64) -> bool);
    let numbers: [Rule<'_>; 7] = [
        ("realtime_max_tpot_ms", &mut rules.realtime_max_tpot_ms, "a number above 0", positive),
        ("realtime_max_ttft_ms", &mut rules.realtime_max_ttft_ms, "a number above 0", positive),
        ("min_stars", &mut rules.min_stars, "a number from 1 to 5", stars),
        ("min_pass_rate", &mut rules.min_pass_rate, "a share from 0 to 1", share),
        ("min_evidence", &mut rules.min_evidence, "a share from 0 to 1", share),
        ("batch_within_stars", &mut rules.batch_within_stars, "a number from 0 to 4", within),
        ("margin_pct", &mut rules.margin_pct, "a percentage from 0 to 99", margin),
    ];
    for (key, rule, expected, allowed) in numbers {
        if let Some(value) = section.number(key, expected, allowed)? {
            *rule = value;
        }
    }
    section.finish()?;
    Ok(rules)
}

/// `None` when the sweep has no `[checks]`: nothing is executed.
pub fn read_checks(
    top: &mut Section<'_>,
    folder: &std::path::Path,
) -> Result<Option<CheckSettings>, SweepError> {
    let Some(mut section) = top.section("checks")? else { return Ok(None) };
    let mut checks = CheckSettings::default();
    checks.compile = section.boolean("compile")?.unwrap_or(checks.compile);
    checks.import = section.boolean("import")?.unwrap_or(checks.import);
    checks.python = section.string("python")?.unwrap_or(checks.python);
    if !checks.python.starts_with('/') {
        return Err(section
            .error_at("python", "must be an absolute path: the sandbox has no PATH of yours"));
    }
    if let Some(command) = section.string("command")? {
        let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        if words.is_empty() {
            return Err(
                section.error_at("command", "is empty: name the program to run, or leave it out")
            );
        }
        checks.command = Some(words);
    }
    if let Some(name) = section.string("test_file")? {
        let path = folder.join(&name);
        let text = std::fs::read_to_string(&path).map_err(|error| {
            section.error_at("test_file", format!("cannot be read: {}: {error}", path.display()))
        })?;
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        checks.files.insert(name, text);
    }
    for (key, limit, range) in [
        ("cpu_s", &mut checks.cpu_s, 1..=3600),
        ("wall_s", &mut checks.wall_s, 1..=3600),
        ("memory_mb", &mut checks.memory_mb, 64..=1_048_576),
        ("processes", &mut checks.processes, 4..=4096),
        ("file_mb", &mut checks.file_mb, 1..=65_536),
        ("max_files", &mut checks.max_files, 1..=1_000_000),
        ("output_kb", &mut checks.output_kb, 1..=1_048_576),
    ] {
        *limit = section.integer(key, range)?.unwrap_or(*limit);
    }
    section.finish()?;
    Ok(Some(checks))
}
