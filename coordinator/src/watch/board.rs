//! What is known of each job, from events and from the store, as lines for people. Pure.
//!
//! Events only decorate: done and failed cells are counted from the store.

use std::collections::{BTreeMap, BTreeSet};

use bakeoff_proto::{CellId, JobEvent, JobId, JobPhase};

use crate::collect::read::Progress;
use crate::plan::Plan;
use crate::units::{duration, gigabytes};

/// All jobs of a sweep.
#[derive(Debug, Clone)]
pub struct Board {
    /// In the order of the plan's jobs.
    pub lines: Vec<Line>,
    by_job: BTreeMap<JobId, usize>,
}

/// One job.
#[derive(Debug, Clone)]
pub struct Line {
    /// Model, and engine where several run.
    pub name: String,
    cells: BTreeMap<CellId, String>,
    max_tokens: u32,
    state: State,
    done: BTreeSet<CellId>,
    failed: BTreeSet<CellId>,
    /// Tokens of the cells finished while watching, to estimate the length of the next.
    finished_tokens: Vec<u32>,
    tok_per_s: Option<f64>,
    tpot_ms: Option<f64>,
    /// What was last shown of who has the job: a worker repeats its phase while it lasts.
    taken: String,
    /// Ends of cells that were shown: a worker repeats its last event while nothing follows.
    announced: BTreeSet<(u32, String)>,
}

#[derive(Debug, Clone, PartialEq)]
enum State {
    Waiting,
    Working(String),
    Decoding { tokens: u32, max_tokens: u32 },
    Done,
    Failed(String),
    Cancelled,
}

impl Board {
    /// Nothing is known yet.
    pub fn new(plan: &Plan) -> Self {
        let mut lines = Vec::new();
        let mut by_job = BTreeMap::new();
        for planned in &plan.jobs {
            let job = &planned.job;
            let engines = plan
                .sweep
                .models
                .iter()
                .find(|model| model.name == planned.model_name)
                .map_or(1, |model| model.engines.len());
            let mut name = planned.model_name.clone();
            if engines > 1 {
                name = format!("{name} ({})", job.engine.engine.as_str());
            }
            by_job.insert(job.id.clone(), lines.len());
            let label = |c: &bakeoff_proto::Cell| format!("{} run {}", c.prompt_id, c.run);
            lines.push(Line {
                name,
                cells: job.cells.iter().map(|c| (c.id.clone(), label(c))).collect(),
                max_tokens: job
                    .cells
                    .iter()
                    .map(|c| c.generation.max_new_tokens)
                    .max()
                    .unwrap_or(0),
                state: State::Waiting,
                done: BTreeSet::new(),
                failed: BTreeSet::new(),
                finished_tokens: Vec::new(),
                tok_per_s: None,
                tpot_ms: None,
                taken: String::new(),
                announced: BTreeSet::new(),
            });
        }
        Self { lines, by_job }
    }

    /// Takes over what the store says.
    pub fn update(&mut self, progress: &Progress) {
        for line in &mut self.lines {
            line.done =
                line.cells.keys().filter(|c| progress.recorded.contains(*c)).cloned().collect();
            line.failed = line
                .cells
                .keys()
                .filter(|c| progress.failed.contains_key(*c) && !line.done.contains(*c))
                .cloned()
                .collect();
            if line.done.len() == line.cells.len() {
                line.state = State::Done;
            }
        }
    }

    /// Takes over an event. Returns a sentence where it is worth a line in a log.
    pub fn apply(&mut self, event: &JobEvent) -> Option<String> {
        let index = *self.by_job.get(&event.job)?;
        let line = self.lines.get_mut(index)?;
        let news = line.apply(&event.phase, &event.worker)?;
        let ends = matches!(event.phase, JobPhase::CellDone { .. } | JobPhase::CellFailed { .. });
        if ends && !line.announced.insert((event.generation, news.clone())) {
            return None;
        }
        Some(format!("{}: {news}", line.name))
    }
}

impl Line {
    /// Nothing more will come, unless somebody submits or retries.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Done | State::Failed(_) | State::Cancelled)
    }

    fn apply(&mut self, phase: &JobPhase, worker: &str) -> Option<String> {
        let cell_name = |cell: &CellId| self.cells.get(cell).cloned().unwrap_or_default();
        match phase {
            JobPhase::Claimed { attempt_number, open_cells, total_cells } => {
                self.state = State::Working("starting".to_owned());
                let again = match attempt_number {
                    0 | 1 => String::new(),
                    n => format!(", attempt {n}"),
                };
                let news =
                    format!("taken by {worker}, {open_cells} of {total_cells} cells open{again}");
                let repeated = self.taken == news;
                self.taken.clone_from(&news);
                (!repeated).then_some(news)
            }
            JobPhase::Downloading { bytes, total_bytes } => {
                let total = total_bytes.map_or(String::new(), |t| format!(" of {}", gigabytes(t)));
                self.working(format!("downloading {}{total}", gigabytes(*bytes)), "downloading")
            }
            JobPhase::Loading { bytes, total_bytes } => self.working(
                format!("loading {} of {}", gigabytes(*bytes), gigabytes(*total_bytes)),
                "loading",
            ),
            JobPhase::WarmingUp => self.working("warming up".to_owned(), "warming up"),
            JobPhase::Prefill { tokens, total_tokens, .. } => {
                self.state = State::Working(format!("prefill {tokens}/{total_tokens}"));
                None
            }
            JobPhase::Decoding { tokens, max_tokens, tpot_ms, .. } => {
                self.state = State::Decoding { tokens: *tokens, max_tokens: *max_tokens };
                self.tpot_ms = tpot_ms.or(self.tpot_ms);
                None
            }
            JobPhase::Storing { .. } => {
                self.state = State::Working("storing".to_owned());
                None
            }
            JobPhase::CellDone { cell, tokens, tok_per_s, tpot_ms, time_s, finish_reason } => {
                let news = format!(
                    "{} done, {tokens} tokens in {time_s:.1} s, {tok_per_s:.1} tok/s, {}",
                    cell_name(cell),
                    finish_reason.as_str()
                );
                if self.done.insert(cell.clone()) || self.finished_tokens.len() < self.done.len() {
                    self.finished_tokens.push(*tokens);
                }
                self.failed.remove(cell);
                self.tok_per_s = Some(*tok_per_s);
                self.tpot_ms = tpot_ms.or(self.tpot_ms);
                Some(news)
            }
            JobPhase::CellFailed { cell, kind, message } => {
                let news = format!(
                    "{} failed ({}): {}",
                    cell_name(cell),
                    kind.as_str(),
                    first_line(message)
                );
                self.failed.insert(cell.clone());
                Some(news)
            }
            JobPhase::Retrying { kind, message, delay_s } => {
                self.state = State::Working(format!("tries again in {delay_s:.0} s"));
                Some(format!(
                    "handed back ({}), tried again in {delay_s:.0} s: {}",
                    kind.as_str(),
                    first_line(message)
                ))
            }
            JobPhase::Done => {
                self.state = State::Done;
                None
            }
            JobPhase::Failed { kind, message } => {
                self.state = State::Failed(kind.as_str().to_owned());
                Some(format!("failed ({}): {}", kind.as_str(), first_line(message)))
            }
            JobPhase::Cancelled => {
                self.state = State::Cancelled;
                Some("cancelled".to_owned())
            }
        }
    }

    /// Progress within a state goes to the terminal only; entering it is worth a line.
    fn working(&mut self, now: String, state: &str) -> Option<String> {
        let entered = !matches!(&self.state, State::Working(before) if before.starts_with(state));
        self.state = State::Working(now);
        entered.then(|| state.to_owned())
    }

    /// `decoding 312/4096 · 2 of 4 done · 21.7 tok/s · ETA 2m10s`
    pub fn status(&self) -> String {
        let mut parts = vec![match &self.state {
            State::Waiting => "waiting".to_owned(),
            State::Working(what) => what.clone(),
            State::Decoding { tokens, max_tokens } => format!("decoding {tokens}/{max_tokens} tok"),
            State::Done => "done".to_owned(),
            State::Failed(kind) => format!("failed ({kind})"),
            State::Cancelled => "cancelled".to_owned(),
        }];
        parts.push(format!("{} of {} done", self.done.len(), self.cells.len()));
        if !self.failed.is_empty() {
            parts.push(format!("{} failed", self.failed.len()));
        }
        let speed = match (&self.state, self.tpot_ms) {
            (State::Decoding { .. }, Some(tpot)) if tpot > 0.0 => Some(1000.0 / tpot),
            _ => self.tok_per_s,
        };
        if let Some(speed) = speed {
            parts.push(format!("{speed:.1} tok/s"));
        }
        if let Some(seconds) = self.eta_s() {
            parts.push(format!("ETA {}", duration(seconds)));
        }
        parts.join(" · ")
    }

    /// Seconds until the open cells are through, from the measured time per token. A cell counts
    /// as long as the finished ones were on average, or as `max_new_tokens` before any is.
    fn eta_s(&self) -> Option<f64> {
        let State::Decoding { tokens, .. } = self.state else { return None };
        let tpot_ms = self.tpot_ms?;
        let expected = match self.finished_tokens.len() {
            0 => f64::from(self.max_tokens),
            n => self.finished_tokens.iter().map(|t| f64::from(*t)).sum::<f64>() / n as f64,
        };
        let open = self.cells.len().saturating_sub(self.done.len() + self.failed.len());
        let current = (expected - f64::from(tokens)).max(0.0);
        let later = open.saturating_sub(1) as f64 * expected;
        Some((current + later) * tpot_ms / 1000.0)
    }
}

fn first_line(message: &str) -> &str {
    message.lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Revisions;
    use bakeoff_proto::FinishReason;

    fn board() -> (Board, Plan) {
        let plan = Plan::build(crate::sweep::demo(), Revisions::new()).unwrap();
        (Board::new(&plan), plan)
    }

    fn event(plan: &Plan, phase: JobPhase) -> JobEvent {
        JobEvent {
            sweep: plan.sweep.name.clone(),
            job: plan.jobs[0].job.id.clone(),
            generation: 1,
            attempt: None,
            worker: "w1".into(),
            at: jiff::Timestamp::UNIX_EPOCH,
            phase,
        }
    }

    #[test]
    fn a_job_is_shown_from_waiting_to_done() {
        let (mut board, plan) = board();
        let cell = plan.jobs[0].job.cells[0].id.clone();
        let mut seen = vec![board.lines[0].status()];
        let phases = [
            JobPhase::Claimed { attempt_number: 2, open_cells: 4, total_cells: 4 },
            JobPhase::Claimed { attempt_number: 2, open_cells: 4, total_cells: 4 },
            JobPhase::Loading { bytes: 1_000_000, total_bytes: 5_000_000 },
            JobPhase::Loading { bytes: 2_000_000, total_bytes: 5_000_000 },
            JobPhase::Decoding {
                cell: cell.clone(),
                tokens: 56,
                max_tokens: 256,
                tpot_ms: Some(10.0),
            },
            JobPhase::CellDone {
                cell: cell.clone(),
                tokens: 100,
                tok_per_s: 90.0,
                tpot_ms: Some(10.0),
                time_s: 1.1,
                finish_reason: FinishReason::Stop,
            },
            JobPhase::Decoding { cell, tokens: 50, max_tokens: 256, tpot_ms: Some(10.0) },
        ];
        for phase in phases {
            let news = board.apply(&event(&plan, phase));
            seen.push(format!("{}   [{}]", board.lines[0].status(), news.unwrap_or_default()));
        }
        let all = plan.jobs[0].job.cells.iter().map(|c| c.id.clone()).collect();
        board.update(&Progress { recorded: all, failed: BTreeMap::new() });
        seen.push(board.lines[0].status());
        insta::assert_snapshot!(seen.join("\n"));
    }

    #[test]
    fn the_end_of_a_cell_is_announced_once_however_often_its_worker_says_it() {
        let (mut board, plan) = board();
        let done = |index: usize| JobPhase::CellDone {
            cell: plan.jobs[0].job.cells[index].id.clone(),
            tokens: 100,
            tok_per_s: 90.0,
            tpot_ms: Some(10.0),
            time_s: 1.1,
            finish_reason: FinishReason::Stop,
        };
        let phases = [done(0), done(0), done(1), done(0)];
        let news: Vec<_> =
            phases.into_iter().map(|phase| board.apply(&event(&plan, phase)).is_some()).collect();
        assert_eq!(news, [true, false, true, false]);
    }

    #[test]
    fn durations_are_short() {
        assert_eq!(duration(8.4), "8s");
        assert_eq!(duration(130.0), "2m10s");
        assert_eq!(duration(3780.0), "1h03m");
    }
}
