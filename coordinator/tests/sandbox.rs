//! The sandbox against code that means harm: every bound and every wall, by real runs.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::CommandExt;
use std::time::{Duration, Instant};

use bakeoff_coordinator::check::sandbox::{Action, Bound, Ended, Exit, Sandbox};
use bakeoff_coordinator::sweep::CheckSettings;
use bakeoff_test_servers::wait_until;

fn settings() -> CheckSettings {
    CheckSettings {
        cpu_s: 1,
        wall_s: 20,
        memory_mb: 256,
        processes: 16,
        file_mb: 4,
        max_files: 200,
        output_kb: 64,
        ..CheckSettings::default()
    }
}

fn open(settings: &CheckSettings) -> Sandbox {
    Sandbox::open(settings, false)
        .unwrap_or_else(|error| panic!("{error}\n(`cargo xtask test` installs bubblewrap)"))
}

fn run_with(settings: &CheckSettings, code: &str) -> Ended {
    let files = BTreeMap::from([("solution.py".to_owned(), code.to_owned())]);
    open(settings).run(&Action::Import, &files).expect("the sandbox works")
}

fn run(code: &str) -> Ended {
    run_with(&settings(), code)
}

/// Runs code that asserts for itself.
fn passes(code: &str) -> Ended {
    let ended = run(code);
    assert!(ended.report.as_ref().is_some_and(|report| report.passed), "{ended:#?}");
    ended
}

/// Names of all processes of this machine: code that renames itself is found again.
fn processes_named(name: &str) -> usize {
    std::fs::read_dir("/proc")
        .expect("/proc")
        .flatten()
        .filter_map(|entry| std::fs::read_to_string(entry.path().join("comm")).ok())
        .filter(|comm| comm.trim() == name)
        .count()
}

/// Code that gives its process, and all that descend from it, a name that only this test uses.
fn named(tag: &str) -> (String, String) {
    let name = format!("{tag}{}", std::process::id());
    let code =
        format!("import os, time, ctypes\nctypes.CDLL(None).prctl(15, b'{name}', 0, 0, 0)\n");
    (name, code)
}

fn assert_gone(name: &str) {
    wait_until(&format!("{name} is gone"), Duration::from_secs(5), || processes_named(name) == 0);
}

#[test]
fn ordinary_programs_run() {
    let ended = passes(
        "import subprocess, threading, multiprocessing, tempfile, os
assert multiprocessing.Pool(2).map(abs, [-1, 2]) == [1, 2]
assert subprocess.run(['/bin/sh', '-c', 'exit 3']).returncode == 3
seen = []
threads = [threading.Thread(target=seen.append, args=(n,)) for n in range(4)]
[t.start() for t in threads]; [t.join() for t in threads]
assert sorted(seen) == [0, 1, 2, 3]
with tempfile.NamedTemporaryFile() as f:
    f.write(b'x'); f.flush()
    assert os.path.getsize(f.name) == 1
open('beside.txt', 'w').write('x')
assert __name__ == 'solution'
print('hello')",
    );
    assert!(ended.stdout.contains("hello"), "{ended:?}");
}

#[test]
fn a_fork_bomb_stops_at_its_bound_and_leaves_nothing() {
    let (name, code) = named("fb");
    let ended = run(&format!(
        "{code}n = 0
try:
    while True:
        if os.fork() == 0:
            time.sleep(60); os._exit(0)
        n += 1
except OSError:
    pass
assert 4 < n < 16, n
while True:
    try: os.fork()
    except OSError: pass
"
    ));
    assert!(matches!(ended.exit, Exit::Bound(Bound::Cpu | Bound::Wall)), "{ended:#?}");
    assert_gone(&name);
}

#[test]
fn memory_is_bounded_in_one_process_and_over_all() {
    let one = run("x = bytearray(10**9)");
    assert!(one.report.as_ref().is_some_and(|t| t.detail.contains("MemoryError")), "{one:#?}");
    let (name, code) = named("mh");
    let many = run(&format!(
        "{code}for n in range(8):
    if os.fork() == 0:
        x = b'x' * 80_000_000
        time.sleep(60)
time.sleep(60)"
    ));
    assert_eq!(many.exit, Exit::Bound(Bound::Memory), "{many:#?}");
    assert_gone(&name);
    // Memory that belongs to no process.
    passes(
        "import os, ctypes
try:
    os.memfd_create('x'); raise SystemExit('memfd')
except OSError: pass
assert ctypes.CDLL(None).shmget(0, 10**8, 0o1600) == -1",
    );
}

#[test]
fn time_is_bounded_asleep_awake_and_shared_out() {
    let start = Instant::now();
    assert_eq!(run("while True: pass").exit, Exit::Bound(Bound::Cpu));
    // Many short-lived children: no single one uses much.
    let children = run("import os
while True:
    if os.fork() == 0:
        for _ in range(2_000_000): pass
        os._exit(0)
    os.wait()");
    assert_eq!(children.exit, Exit::Bound(Bound::Cpu), "{children:#?}");
    let quick = CheckSettings { wall_s: 1, ..settings() };
    let asleep =
        run_with(&quick, "import signal, time\nsignal.signal(15, signal.SIG_IGN)\ntime.sleep(600)");
    assert_eq!(asleep.exit, Exit::Bound(Bound::Wall), "{asleep:#?}");
    assert!(start.elapsed() < Duration::from_secs(60));
}

#[test]
fn output_is_bounded() {
    let ended = run("import sys\nwhile True: sys.stdout.write('x' * 65536)");
    assert_eq!(ended.exit, Exit::Bound(Bound::Output), "{:?}", ended.exit);
    assert!(ended.stdout.len() < 1_000_000);
    let stderr = run("import os\nwhile True: os.write(2, b'y' * 65536)");
    assert_eq!(stderr.exit, Exit::Bound(Bound::Output));
    // All at once at the very end.
    let last = run("import os\nos.write(1, b'z' * 70_000)\nos._exit(0)");
    assert_eq!(last.exit, Exit::Bound(Bound::Output));
}

#[test]
fn files_are_bounded_in_size_and_number() {
    passes(
        "import errno
try:
    with open('/tmp/big', 'wb') as f: f.write(b'x' * 10_000_000)
    raise SystemExit('too big')
except OSError as e: assert e.errno == errno.EFBIG, e
try:
    for n in range(9):
        with open(f'/work/{n}', 'wb') as f: f.write(b'x' * 900_000)
    raise SystemExit('too many')
except OSError as e: assert e.errno == errno.ENOSPC, e",
    );
    let many =
        run("import time\nfor n in range(500): open(f'/tmp/{n}', 'w').close()\ntime.sleep(60)");
    assert_eq!(many.exit, Exit::Bound(Bound::Files), "{many:#?}");
    passes(
        "import os
kept = []
try:
    while True: kept.append(os.open('/dev/null', os.O_RDONLY))
except OSError: pass
assert len(kept) < 256
for fd in kept: os.close(fd)",
    );
}

#[test]
fn nothing_outside_can_be_reached_by_any_socket() {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = tcp.local_addr().unwrap().port();
    let name = format!("bakeoff-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let unix = UnixListener::bind_addr(&address).unwrap();
    passes(&format!(
        "import socket
def refused(*args):
    family, kind, address = args
    try:
        s = socket.socket(family, kind)
        s.settimeout(1)
        s.connect(address)
        s.send(b'x')
    except OSError as e:
        return
    raise SystemExit(f'reached {{address}}')
refused(socket.AF_INET, socket.SOCK_STREAM, ('127.0.0.1', {port}))
refused(socket.AF_INET, socket.SOCK_DGRAM, ('192.0.2.1', 53))
refused(socket.AF_INET6, socket.SOCK_STREAM, ('2001:db8::1', 443))
refused(socket.AF_UNIX, socket.SOCK_STREAM, '\\0{name}')
for family in (socket.AF_VSOCK, socket.AF_NETLINK, socket.AF_PACKET):
    try: socket.socket(family, socket.SOCK_RAW); raise SystemExit(f'family {{family}}')
    except OSError: pass"
    ));
    tcp.set_nonblocking(true).unwrap();
    unix.set_nonblocking(true).unwrap();
    assert_eq!(tcp.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    assert_eq!(unix.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn files_and_secrets_of_the_host_are_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret.txt");
    std::fs::write(&secret, "s3cret").unwrap();
    let here = env!("CARGO_MANIFEST_DIR");
    passes(&format!(
        "import os
for path in ['{}', '{}', '{here}', '/root', '/home', '/etc/passwd', '/etc/shadow', '/var', '/proc/1/root/root', '/sys', '/dev/vda', '/dev/sda', '/dev/mem', '/run/docker.sock']:
    assert not os.path.exists(path), path
assert sorted(os.listdir('/etc')) in (['alternatives', 'ld.so.cache'], ['ld.so.cache'], []), os.listdir('/etc')
assert os.listdir('/tmp') == [], os.listdir('/tmp')
assert os.listdir('/work') == ['solution.py']
known = {{'PATH', 'HOME', 'TMPDIR', 'USER', 'LANG', 'PYTHONDONTWRITEBYTECODE', 'PYTHONHASHSEED'}}
assert set(os.environ) == known, os.environ
for pid in [p for p in os.listdir('/proc') if p.isdigit()]:
    try: environment = open(f'/proc/{{pid}}/environ').read()
    except OSError: continue
    assert 'CARGO' not in environment, environment",
        secret.display(),
        folder.path().display(),
    ));
}

#[test]
fn nothing_outside_can_be_written_and_what_is_run_cannot_be_changed() {
    passes(
        "import os
def refused(what, *args, **kwargs):
    try: what(*args, **kwargs)
    except OSError: return
    raise SystemExit(f'{what.__name__} {args}')
for path in ['/x', '/usr/x', '/usr/bin/python3', '/etc/x', '/dev/x', '/run/x', '/run/bakeoff/runner.py', '/work/solution.py', '/proc/sys/kernel/hostname', '/proc/sysrq-trigger', '/sys/x']:
    refused(open, path, 'w')
refused(os.remove, '/work/solution.py')
refused(os.rename, '/work/solution.py', '/work/other.py')
refused(os.symlink, '/etc/passwd', '/work/solution.py')
refused(os.chmod, '/usr/bin/python3', 0o777)
refused(os.mkdir, '/new')
refused(os.link, '/usr/bin/python3', '/work/python')
os.symlink('../../../../etc/passwd', '/work/passwd')
refused(open, '/work/passwd')
os.symlink('/usr', '/work/usr')
refused(open, '/work/usr/x', 'w')",
    );
}

#[test]
fn no_right_is_left_and_none_can_be_gained() {
    passes(
        "import os, ctypes
assert os.getuid() != 0 and os.geteuid() != 0
status = dict(line.split(':\\t', 1) for line in open('/proc/self/status').read().splitlines() if ':\\t' in line)
assert int(status['CapEff'], 16) == int(status['CapPrm'], 16) == 0, status
assert status['NoNewPrivs'] == '1' and status['Seccomp'] == '2', status
libc = ctypes.CDLL(None, use_errno=True)
def refused(name, *args):
    assert getattr(libc, name)(*args) == -1, name
refused('unshare', 0x10000000)
refused('unshare', 0x20000)
refused('setuid', 0)
refused('mount', b'none', b'/tmp', b'tmpfs', 0, None)
refused('umount', b'/usr')
refused('chroot', b'/work')
refused('ptrace', 16, 1, None, None)
refused('setns', 0, 0)
refused('syscall', 425, 8, None)
if os.uname().machine == 'x86_64':
    refused('syscall', 321, 0, None, 0)
    refused('syscall', 56, 0x10000000 | 17, 0, 0, 0, 0)",
    );
}

#[test]
fn neither_the_parent_nor_anything_else_can_be_ended() {
    let ended = run("import os, signal
for pid in (1, os.getppid()):
    for number in (signal.SIGTERM, signal.SIGSTOP, signal.SIGKILL):
        try: os.kill(pid, number)
        except OSError: pass
try: os.kill(-1, signal.SIGKILL)
except OSError: pass
try: open('/proc/1/mem', 'wb').write(b'x')
except OSError: pass");
    assert!(!matches!(ended.exit, Exit::Bound(_)), "{ended:#?}");
    // Whatever it did to itself, this process lives and the sandbox works.
    passes("x = 1");
}

#[test]
fn a_daemon_does_not_outlive_its_check() {
    let (name, code) = named("dm");
    let ended = passes(&format!(
        "{code}if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for fd in range(3): os.close(fd)
        time.sleep(600)
    os._exit(0)
os.wait()"
    ));
    assert_eq!(ended.exit, Exit::Code(0));
    assert_gone(&name);
}

#[test]
fn no_open_file_is_inherited() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("open-in-the-parent");
    std::fs::write(&path, "secret").unwrap();
    let file = std::fs::File::open(&path).unwrap();
    // SAFETY: duplicates a descriptor that is open; the copy is inherited across exec by default.
    let copy = unsafe { libc::dup(file.as_raw_fd()) };
    assert!(copy > 2);
    let ended = passes(
        "import os
for fd in os.listdir('/proc/self/fd'):
    try: print(fd, os.readlink(f'/proc/self/fd/{fd}'))
    except OSError: pass",
    );
    // SAFETY: the copy is this test's own and is not used again.
    unsafe { libc::close(copy) };
    assert!(ended.stdout.contains("pipe:"), "{ended:#?}");
    assert!(!ended.stdout.contains("open-in-the-parent"), "{}", ended.stdout);
}

#[test]
fn ending_early_is_no_pass() {
    for code in [
        "import sys; sys.exit(0)",
        "import os; os._exit(0)",
        "raise KeyboardInterrupt",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "import ctypes; ctypes.string_at(0)",
        "import os\nfor fd in range(10):\n    try: os.close(fd)\n    except OSError: \
        pass\nos._exit(0)",
        "import atexit, os; atexit.register(os._exit, 0); raise ValueError",
        "print('{\"passed\": true}'); raise ValueError",
        "class E(Exception):\n    def __str__(self): raise ValueError\nraise E",
    ] {
        let ended = run(code);
        assert!(!ended.report.as_ref().is_some_and(|report| report.passed), "{code}: {ended:#?}");
    }
}

#[test]
fn an_interpreter_of_a_virtual_environment_finds_its_packages() {
    let folder = tempfile::tempdir().unwrap();
    let venv = folder.path().join("venv");
    let made = std::process::Command::new("/usr/bin/python3")
        .args(["-m", "venv", "--without-pip"])
        .arg(&venv)
        .status()
        .expect("python3 starts");
    assert!(made.success());
    let site = std::fs::read_dir(venv.join("lib")).unwrap().next().unwrap().unwrap().path();
    std::fs::write(site.join("site-packages/only_here.py"), "x = 7\n").unwrap();
    std::fs::write(folder.path().join("secret"), "").unwrap();
    let python = venv.join("bin/python3").display().to_string();
    let settings = CheckSettings { python, ..settings() };
    let code = format!(
        "import only_here, os\nassert only_here.x == 7\nassert not os.path.exists('{}')",
        folder.path().join("secret").display()
    );
    let ended = run_with(&settings, &code);
    assert!(ended.report.as_ref().is_some_and(|report| report.passed), "{ended:#?}");
}

#[test]
fn names_that_leave_the_folder_are_refused() {
    for name in ["../x.py", "/etc/x", ".hidden", "a/b", ""] {
        let files = BTreeMap::from([(name.to_owned(), String::new())]);
        let error = open(&settings()).run(&Action::Compile, &files).expect_err(name);
        assert!(error.to_string().contains("plain file name"), "{error}");
    }
}

/// Root builds the walls by its rights, anybody else in a user namespace: all of the above must
/// hold for both.
#[test]
fn the_walls_hold_for_others_than_root() {
    // SAFETY: geteuid takes nothing, changes nothing and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        // Then this is what all the tests above have shown.
        return;
    }
    const NOBODY: u32 = 65_534;
    let folder = tempfile::tempdir().unwrap();
    // The build folder may be closed to others.
    let program = folder.path().join("sandbox-tests");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    std::os::unix::fs::chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let output = std::process::Command::new(&program)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .current_dir(folder.path())
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .expect("the tests start");
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{shown}");
    assert!(shown.contains("17 passed"), "{shown}");
}
