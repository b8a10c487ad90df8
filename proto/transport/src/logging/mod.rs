//! Logs to stderr, as text or JSON; and traces by OTLP, if a collector is named.
//!
//! Both programs start both here, so that a job's spans look alike on either side of the queue.

mod once;
#[cfg(feature = "otlp")]
mod otlp;
pub mod trace_context;

use std::io::IsTerminal;

use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    #[default]
    Text,
    /// One JSON object a line, for a log collector; `spans` holds sweep, job and attempt.
    Json,
}

/// The option of both programs.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct LogArgs {
    /// How log lines on stderr look: text or json
    #[arg(
        long,
        global = true,
        env = "BAKEOFF_LOG_FORMAT",
        default_value = "text",
        hide_possible_values = true
    )]
    pub log_format: LogFormat,
}

/// Sends what spans are left when it is dropped.
#[must_use = "traces end where this is dropped"]
pub struct Logging {
    #[cfg(feature = "otlp")]
    _traces: Option<otlp::Traces>,
}

/// Starts logs and traces of this process. `RUST_LOG` chooses what is logged, else `default_filter`;
/// traces hold our own spans whatever it says.
pub fn start(service: &'static str, args: LogArgs, default_filter: &str) -> Logging {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default_filter));
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(colours);
    let lines = match args.log_format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let subscriber =
        tracing_subscriber::registry().with(lines.with_filter(filter)).with(once::Once);
    #[cfg(feature = "otlp")]
    {
        let traces = otlp::start(service);
        let (traces, layer) = traces.map_or((None, None), |(t, layer)| (Some(t), Some(layer)));
        subscriber.with(layer).init();
        Logging { _traces: traces }
    }
    #[cfg(not(feature = "otlp"))]
    {
        let _ = service;
        subscriber.init();
        Logging {}
    }
}
