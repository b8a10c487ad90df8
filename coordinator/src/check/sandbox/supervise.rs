//! Starts a process, watches what it and its descendants use, and ends them at a bound.

use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use super::usage;
use crate::sweep::CheckSettings;

const TICK: Duration = Duration::from_millis(5);
/// Looking at all processes costs a few milliseconds on a busy machine.
const LOOK: Duration = Duration::from_millis(100);
/// How long the last output may take once the process is gone.
const LAST_OUTPUT: Duration = Duration::from_secs(2);

/// A bound that was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    Wall,
    Cpu,
    Memory,
    Output,
    Files,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
    Bound(Bound),
}

impl Exit {
    /// The end in words, for the detail of a check.
    pub fn words(self, settings: &CheckSettings) -> String {
        match self {
            Self::Code(code) => format!("exit code {code}"),
            Self::Signal(libc::SIGSEGV) => "the interpreter crashed (SIGSEGV)".to_owned(),
            Self::Signal(libc::SIGXCPU) => Self::Bound(Bound::Cpu).words(settings),
            Self::Signal(signal) => format!("ended by signal {signal}"),
            Self::Bound(Bound::Wall) => format!("not done within {} s", settings.wall_s),
            Self::Bound(Bound::Cpu) => format!("used more than {} s of CPU time", settings.cpu_s),
            Self::Bound(Bound::Memory) => {
                format!("held more than {} MB of memory", settings.memory_mb)
            }
            Self::Bound(Bound::Output) => {
                format!("wrote more than {} KB to stdout and stderr", settings.output_kb)
            }
            Self::Bound(Bound::Files) => format!("made more than {} files", settings.max_files),
        }
    }
}

/// What is left of a process.
#[derive(Debug)]
pub struct Supervised {
    /// How the process ended.
    pub exit: Exit,
    /// At most as much as the settings allow.
    pub stdout: Vec<u8>,
    /// As [`Self::stdout`].
    pub stderr: Vec<u8>,
}

/// Runs `command` to its end or to a bound. With `filter`, it is bubblewrap and reads that.
pub fn run(
    mut command: Command,
    filter: Option<File>,
    settings: &CheckSettings,
) -> std::io::Result<Supervised> {
    isolate(&mut command, filter.as_ref());
    let mut child = Supervisor { child: command.spawn()?, grouped: filter.is_none() };
    drop(filter);
    let written = Arc::new(AtomicUsize::new(0));
    let limit = usize::try_from(settings.output_kb).unwrap_or(usize::MAX).saturating_mul(1000);
    let stdout = reader(child.child.stdout.take(), &written, limit);
    let stderr = reader(child.child.stderr.take(), &written, limit);
    let started = Instant::now();
    let mut looked = started;
    let exit = loop {
        if let Some(status) = child.child.try_wait()? {
            break exit(status, child.grouped);
        }
        let bound = if written.load(Ordering::Relaxed) > limit {
            Some(Bound::Output)
        } else if started.elapsed() > Duration::from_secs(settings.wall_s) {
            Some(Bound::Wall)
        } else if looked.elapsed() > LOOK {
            looked = Instant::now();
            over(child.child.id(), child.grouped, settings)
        } else {
            None
        };
        if let Some(bound) = bound {
            break Exit::Bound(bound);
        }
        std::thread::sleep(TICK);
    };
    child.end();
    let until = Instant::now() + LAST_OUTPUT;
    let (stdout, stderr) = (stdout.until(until), stderr.until(until));
    // The last words of a process that ended by itself may have been too many.
    let exit =
        if written.load(Ordering::Relaxed) > limit { Exit::Bound(Bound::Output) } else { exit };
    Ok(Supervised { exit, stdout, stderr })
}

/// Ends the processes however this function is left.
struct Supervisor {
    child: Child,
    /// No sandbox holds the descendants together: they are ended as a group.
    grouped: bool,
}

impl Supervisor {
    fn end(&mut self) {
        if self.grouped {
            let group = i32::try_from(self.child.id()).expect("a process id fits");
            // SAFETY: kill touches no memory; the group is the one this child was made leader of.
            unsafe { libc::kill(-group, libc::SIGKILL) };
        }
        // Everything inside a sandbox dies with the process that made it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.end();
    }
}

/// No open file of ours is inherited but the filter, and unsandboxed code is a group of its own.
fn isolate(command: &mut Command, filter: Option<&File>) {
    let filter = filter.map(AsRawFd::as_raw_fd);
    // SAFETY: between fork and exec only system calls are made, on descriptors of this process.
    unsafe {
        command.pre_exec(move || {
            let (first, last) = (3 as libc::c_uint, libc::c_uint::MAX);
            let closed =
                libc::syscall(libc::SYS_close_range, first, last, libc::CLOSE_RANGE_CLOEXEC);
            let done = match filter {
                Some(fd) => libc::fcntl(fd, libc::F_SETFD, 0),
                None => libc::setsid(),
            };
            if closed < 0 || done < 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
}

/// The bound that the processes are over, if any.
fn over(pid: u32, grouped: bool, settings: &CheckSettings) -> Option<Bound> {
    let usage = usage::of_tree(pid);
    if usage.cpu > Duration::from_secs(settings.cpu_s) {
        return Some(Bound::Cpu);
    }
    if usage.memory_bytes > settings.memory_mb * 1_000_000 {
        return Some(Bound::Memory);
    }
    let init = usage.first_child.filter(|_| !grouped)?;
    let files: u64 = ["tmp", "work", "dev/shm"]
        .iter()
        .filter_map(|folder| files_in(&format!("/proc/{init}/root/{folder}")))
        .sum();
    (files > settings.max_files).then_some(Bound::Files)
}

/// How many files a file system holds.
fn files_in(path: &str) -> Option<u64> {
    let path = CString::new(path).ok()?;
    let mut facts = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the path ends with a zero byte, and `facts` has room for what is written.
    if unsafe { libc::statvfs(path.as_ptr(), facts.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: the call succeeded, so it has filled all of it.
    let facts = unsafe { facts.assume_init() };
    Some(facts.f_files.saturating_sub(facts.f_ffree))
}

/// What a pipe has given so far.
struct Reader {
    kept: Arc<Mutex<Vec<u8>>>,
    ended: mpsc::Receiver<()>,
}

impl Reader {
    /// All of it; without walls, a process that outlives its parent may keep the pipe open, and
    /// then what came until this moment.
    fn until(self, moment: Instant) -> Vec<u8> {
        let left = moment.saturating_duration_since(Instant::now());
        // Whether it has ended or not, what is there is taken.
        let _ = self.ended.recv_timeout(left);
        std::mem::take(&mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Reads to the end, or a little past the limit, in a thread of its own.
fn reader(
    pipe: Option<impl Read + Send + 'static>,
    written: &Arc<AtomicUsize>,
    limit: usize,
) -> Reader {
    let (end, ended) = mpsc::channel();
    let kept = Arc::new(Mutex::new(Vec::new()));
    let (written, shared) = (Arc::clone(written), Arc::clone(&kept));
    std::thread::spawn(move || {
        // Dropped at the end of the thread: all is read.
        let _end: mpsc::Sender<()> = end;
        let Some(mut pipe) = pipe else { return };
        let mut chunk = [0; 16 * 1024];
        while let Ok(n @ 1..) = pipe.read(&mut chunk) {
            let mut kept = shared.lock().unwrap_or_else(PoisonError::into_inner);
            kept.extend_from_slice(&chunk[..n]);
            if written.fetch_add(n, Ordering::Relaxed) + n > limit {
                break;
            }
        }
    });
    Reader { kept, ended }
}

/// Bubblewrap reports a signal inside as 128 and its number.
fn exit(status: ExitStatus, direct: bool) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code @ 129..=192), _) if !direct => Exit::Signal(code - 128),
        (Some(code), _) => Exit::Code(code),
        (None, signal) => Exit::Signal(signal.unwrap_or_default()),
    }
}
