//! Every text of the program that a user sees, once: the help of each command, and the errors of
//! options and environment. `INSTA_UPDATE=always cargo test -p bakeoff-worker --test texts` writes
//! them anew; the difference is to be read.

use std::fmt::Write as _;
use std::process::Command;

/// The program without anything from this machine's environment, and without a hub.
fn worker(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_worker"));
    command.args(args).env_clear().env("HF_HUB_OFFLINE", "1").env("HF_HOME", "/nowhere");
    // Log lines hold times.
    command.env("RUST_LOG", "off");
    command
}

/// What a run printed, with its exit code.
fn shown(command: &mut Command) -> String {
    let output = command.output().expect("the worker starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    let code = output.status.code().expect("no signal ended it");
    format!("exit code: {code}\n----- stdout -----\n{stdout}\n----- stderr -----\n{stderr}\n")
}

#[test]
fn help() {
    for command in ["", "run", "doctor", "bench", "generate", "fetch", "completions"] {
        let args: Vec<&str> = [command, "--help"].into_iter().filter(|a| !a.is_empty()).collect();
        let name = if command.is_empty() { "worker" } else { command };
        insta::assert_snapshot!(format!("help_{name}"), shown(&mut worker(&args)));
    }
}

/// Errors that need no server: each names the value at fault, what was expected, and the next step.
#[test]
fn errors() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("latin1"), b"caf\xe9").expect("a file");
    let tiny = ["generate", "--model", "builtin:tiny-qwen3"];
    let prompt = [&tiny[..], &["--prompt", "x"]].concat();
    let run = ["run", "--nats", "nats://127.0.0.1:1", "--nats-connect-s", "0", "--device", "cpu"];
    let cases: [&[&str]; 31] = [
        &["run"],
        &["run", "--nats", ""],
        &["run", "--nats", "nats://127.0.0.1:4222"],
        &["run", "--once", "--max-jobs", "2"],
        &["run", "--heartbeat", "0"],
        &["run", "--stall-limit", "soon"],
        &["run", "--health-addr", "9090"],
        &["run", "--device", "tpu"],
        &[&run[..], &["--store", "memory:"]].concat(),
        &[&run[..], &["--store", "memory:", "--nats-creds", "none.creds"]].concat(),
        &[&run[..], &["--store", "memory:", "--nats-nkey", "latin1"]].concat(),
        &[&run[..], &["--store", "memory:", "--nats-cert", "c.pem"]].concat(),
        &["generate", "--prompt", "x"],
        &tiny,
        &[&tiny[..], &["--prompt-file", "none"]].concat(),
        &[&tiny[..], &["--prompt-file", "latin1"]].concat(),
        &[&prompt[..], &["--dtype", "f16"]].concat(),
        &[&prompt[..], &["--engine", "fast"]].concat(),
        &[&prompt[..], &["--engine", "fused"]].concat(),
        &[&prompt[..], &["--thinking", "maybe"]].concat(),
        &[&prompt[..], &["--load-format", "pickle"]].concat(),
        &[&prompt[..], &["--temperature=-1"]].concat(),
        &[&prompt[..], &["--max-new-tokens", "0"]].concat(),
        &["generate", "--model", "builtin:nope", "--prompt", "x"],
        &["fetch"],
        &["fetch", "owner/model"],
        &["bench", "--model", "none.json"],
        &["bench", "--model", "none.json", "--prompt-tokens", "0"],
        &["bench", "--model", "none.json", "--gen-tokens", "1"],
        &["bench", "--model", "none.json", "--batch", "8"],
        &["completions", "csh"],
    ];
    let mut all = String::new();
    for args in cases {
        let output = shown(worker(args).current_dir(folder.path()));
        let output = output.replace("----- stdout -----\n\n", "");
        writeln!(all, "$ worker {}\n{output}", args.join(" ")).expect("a string takes any text");
    }
    insta::assert_snapshot!("errors", all);
}
