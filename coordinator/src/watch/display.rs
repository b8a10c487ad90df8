//! Shows the board: a line per job that stays in place on a terminal, log lines otherwise.

use std::io::IsTerminal;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::board::Board;

/// Where progress goes. All of it to stderr: stdout is for data.
pub enum Display {
    Terminal { bars: MultiProgress, lines: Vec<ProgressBar> },
    Log,
}

impl Display {
    /// A terminal display on a terminal, log lines elsewhere.
    pub fn new(board: &Board) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::Log;
        }
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{spinner} {prefix:28!}  {wide_msg}")
            .expect("the template is a constant that a test draws");
        let lines = board
            .lines
            .iter()
            .map(|line| {
                let bar = bars.add(ProgressBar::new_spinner().with_style(style.clone()));
                bar.set_prefix(line.name.clone());
                bar.enable_steady_tick(std::time::Duration::from_millis(120));
                bar
            })
            .collect();
        Self::Terminal { bars, lines }
    }

    /// Redraws what changed.
    pub fn refresh(&self, board: &Board) {
        let Self::Terminal { lines, .. } = self else { return };
        for (bar, line) in lines.iter().zip(&board.lines) {
            bar.set_message(line.status());
            if line.is_over() && !bar.is_finished() {
                bar.finish();
            }
        }
    }

    /// Something that happened; a terminal shows it in the job's line anyway.
    pub fn log(&self, event: &str) {
        if let Self::Log = self {
            eprintln!("{event}");
        }
    }

    /// Something a person must know.
    pub fn warn(&self, message: &str) {
        match self {
            Self::Terminal { bars, .. } => {
                // Falls back to nothing only when the terminal is gone, and then nobody reads it.
                let _ = bars.println(format!("warning: {message}"));
            }
            Self::Log => eprintln!("warning: {message}"),
        }
    }

    /// Leaves the last state on the screen.
    pub fn close(&self) {
        if let Self::Terminal { lines, .. } = self {
            for bar in lines {
                bar.abandon();
            }
        }
    }
}
