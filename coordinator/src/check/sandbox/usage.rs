//! What a process and its descendants hold, from /proc.

use std::collections::HashMap;
use std::time::Duration;

/// Over all processes of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Of the living, and of the dead whose parent waited for them.
    pub cpu: Duration,
    /// Resident memory; a page that several processes share counts for each.
    pub memory_bytes: u64,
    /// A child of the first process: inside the sandbox, the one that everything else lives in.
    pub first_child: Option<u32>,
}

struct Process {
    parent: u32,
    ticks: u64,
    pages: u64,
}

/// Sums over `root` and its descendants.
pub fn of_tree(root: u32) -> Usage {
    let processes: HashMap<u32, Process> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid: u32| Some((pid, parse(&read_stat(pid)?)?)))
        .collect();
    let mut usage = Usage::default();
    let (mut ticks, mut pages) = (0, 0);
    for (pid, process) in &processes {
        if process.parent == root {
            usage.first_child = Some(*pid);
        }
        if descends(&processes, *pid, root) {
            ticks += process.ticks;
            pages += process.pages;
        }
    }
    usage.cpu = Duration::from_secs_f64(ticks as f64 / constant(libc::_SC_CLK_TCK) as f64);
    usage.memory_bytes = pages * constant(libc::_SC_PAGESIZE);
    usage
}

fn descends(processes: &HashMap<u32, Process>, pid: u32, root: u32) -> bool {
    let mut at = pid;
    // Bounded: the table was not read at one instant, so it could hold a circle.
    for _ in 0..processes.len() {
        if at == root {
            return true;
        }
        match processes.get(&at) {
            Some(process) => at = process.parent,
            None => return false,
        }
    }
    false
}

fn read_stat(pid: u32) -> Option<String> {
    let bytes = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The name stands in brackets and may hold anything, brackets and spaces too.
fn parse(stat: &str) -> Option<Process> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Process {
        parent: u32::try_from(number(1)?).ok()?,
        ticks: (11..=14).map(number).sum::<Option<u64>>()?,
        pages: number(21)?,
    })
}

fn constant(name: libc::c_int) -> u64 {
    // SAFETY: sysconf reads a constant of the system and touches no memory of ours.
    let value = unsafe { libc::sysconf(name) };
    u64::try_from(value).unwrap_or(1).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let stat = "42 (a) R 9 (b) S 7 1 1 0 -1 0 0 0 0 0 1 2 3 4 20 0 1 0 99 4096 55 \
        18446744073709551615";
        let process = parse(stat).expect("a line of stat");
        assert_eq!((process.parent, process.ticks, process.pages), (7, 10, 55));
        assert!(parse("").is_none() && parse("1 (x) S").is_none());
    }

    #[test]
    fn this_process_holds_memory() {
        let usage = of_tree(std::process::id());
        assert!(usage.memory_bytes > 100_000, "{usage:?}");
    }
}
