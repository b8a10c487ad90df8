//! `worker fetch`: models brought into the cache ahead of time, so that no job waits for a download.

use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bakeoff_engine::source::hub::{self, HubError, HubSettings, Snapshot};
use bakeoff_proto::Disposition;
use clap::Args;
use serde::Serialize;

/// Between two lines of progress where nobody watches.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Examples for the help text.
pub const EXAMPLES: &str = "Examples:\n  \
    worker fetch Qwen/Qwen2.5-Coder-7B-Instruct\n  \
    worker fetch Qwen/Qwen3-32B@9216db5781bf21249d130ec9da846c4624c16137 Qwen/Qwen3-30B-A3B@main\n  \
    HF_HOME=/models worker fetch --json Qwen/Qwen3-32B\n\n\
    What is in the cache already is not fetched again; a transfer that breaks off is resumed.\n\
    Exit code 2 for a model that cannot be had, 1 for a failure that may pass.";

/// Which models, and how to tell about it.
#[derive(Debug, Args)]
pub struct FetchArgs {
    /// Hub id, optionally with a branch, tag or commit: owner/name[@revision]
    #[arg(required = true, value_name = "MODEL[@REV]")]
    models: Vec<String>,
    /// Revision of the models named without one
    #[arg(long, value_name = "REV", default_value = "main")]
    revision: String,
    /// Configuration and tokenizer only, for sweeps with load_format = "dummy"
    #[arg(long)]
    no_weights: bool,
    /// One JSON object a model on stdout instead of a line
    #[arg(long)]
    json: bool,
}

/// What `--json` prints of each model.
#[derive(Serialize)]
struct Fetched<'a> {
    model: &'a str,
    commit: String,
    folder: PathBuf,
    /// Null if everything was there already.
    download_s: Option<f64>,
}

/// Runs the command: stops at the first model that fails. Blocks; needs no runtime.
pub fn run(args: &FetchArgs) -> anyhow::Result<ExitCode> {
    let settings = HubSettings::from_env();
    for model in &args.models {
        let (id, revision) = model.rsplit_once('@').unwrap_or((model, &args.revision));
        match fetch(&settings, id, revision, !args.no_weights) {
            Ok(snapshot) => tell(args.json, id, snapshot)?,
            Err(error) => {
                eprintln!("error: {}", bakeoff_engine::error::chain(&error));
                return Ok(match error.kind().disposition() {
                    Disposition::Retry => ExitCode::FAILURE,
                    Disposition::Final => ExitCode::from(2),
                });
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn fetch(
    settings: &HubSettings,
    id: &str,
    revision: &str,
    weights: bool,
) -> Result<Snapshot, HubError> {
    let mut display = Display::new(id);
    let fetched = hub::fetch(settings, id, revision, weights, &mut |at| {
        display.show(at.bytes, at.total_bytes);
        ControlFlow::Continue(())
    });
    display.end();
    fetched
}

fn tell(json: bool, model: &str, snapshot: Snapshot) -> io::Result<()> {
    let Snapshot { commit, folder, download_s } = snapshot;
    let mut out = io::stdout();
    if json {
        let fetched = Fetched { model, commit, folder, download_s };
        return writeln!(out, "{}", serde_json::to_string(&fetched)?);
    }
    let how = match download_s {
        Some(seconds) => format!("fetched in {seconds:.1} s"),
        None => "in the cache already".to_owned(),
    };
    writeln!(out, "{model}@{commit}  {how}  {}", folder.display())
}

/// Progress on stderr: one line that is rewritten on a terminal, a line now and then elsewhere.
struct Display<'a> {
    model: &'a str,
    started: Instant,
    terminal: bool,
    told: Option<Instant>,
    /// Bytes that were there before anything came.
    had: Option<u64>,
}

impl<'a> Display<'a> {
    fn new(model: &'a str) -> Self {
        let terminal = io::stderr().is_terminal();
        Self { model, started: Instant::now(), terminal, told: None, had: None }
    }

    fn show(&mut self, bytes: u64, total_bytes: u64) {
        let had = *self.had.get_or_insert(bytes);
        let due = self.told.is_none_or(|at| self.terminal || at.elapsed() >= LOG_EVERY);
        if total_bytes == 0 || !due {
            return;
        }
        self.told = Some(Instant::now());
        let text = line(self.model, bytes, total_bytes, bytes - had, self.started.elapsed());
        if self.terminal {
            eprint!("\r{text}\x1b[K");
        } else {
            eprintln!("{text}");
        }
    }

    fn end(&self) {
        if self.terminal && self.told.is_some() {
            eprint!("\r\x1b[K");
        }
    }
}

fn line(model: &str, bytes: u64, total_bytes: u64, came: u64, elapsed: Duration) -> String {
    let gb = |bytes: u64| bytes as f64 / 1e9;
    let rate = came as f64 / 1e6 / elapsed.as_secs_f64().max(1e-3);
    format!("{model}: {:.2} of {:.2} GB, {rate:.1} MB/s", gb(bytes), gb(total_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_counts_only_what_came() {
        let text = line("o/m", 3_000_000_000, 15_000_000_000, 500_000_000, Duration::from_secs(10));
        assert_eq!(text, "o/m: 3.00 of 15.00 GB, 50.0 MB/s");
    }
}
