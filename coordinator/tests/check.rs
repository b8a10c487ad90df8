//! `coordinator check` as a user runs it: verdicts, refusals, what is stored and what collect makes
//! of it.

mod common;
mod edit;

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use bakeoff_transport::args::StoreArgs;
use bakeoff_transport::store;
use object_store::ObjectStore;
use serde_json::Value;

const ACCEPT: &str = "--unsandboxed-i-accept-the-risk";

async fn open(folder: &Path) -> Arc<dyn ObjectStore> {
    let place = folder.join("results").display().to_string();
    store::open(&StoreArgs { store: Some(place), ..StoreArgs::default() }).await.expect("a store")
}

fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coordinator"));
    command
        .args(args)
        .args(["--store", "results"])
        .current_dir(folder)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("COLUMNS", "100")
        // Found by none of the outputs.
        .env("AWS_SECRET_ACCESS_KEY", "s3cret-of-the-coordinator");
    command
}

fn coordinator(folder: &Path, args: &[&str]) -> Output {
    command(folder, args).output().expect("the coordinator starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

/// Exit code 2, nothing on stdout, and the message.
fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert_eq!(text(&output.stdout), "");
    text(&output.stderr)
}

/// Prompt id, output.
const OUTPUTS: [(&str, &str); 10] = [
    ("good", "Here:\n```python\ndef double(x):\n    return 2 * x\n```\n"),
    ("wrong", "```python\ndef double(x):\n    return 3 * x\n```\n"),
    ("syntax", "```python\ndef double(x:\n    return\n```\n"),
    ("raises", "```python\nimport os\nos.environ['NO_SUCH_KEY']\n```\n"),
    ("third-party", "```python\nimport no_such_package.part\ndef double(x): return 2 * x\n```\n"),
    ("standard", "```python\nimport asyncio.no_such_part\n```\n"),
    (
        "handled",
        "```python\ntry:\n    import no_such_package\nexcept ImportError:\n    pass\ndef \
        double(x): return 2 * x\n```\n",
    ),
    ("no-code", "I am sorry, I cannot do that.\n"),
    ("thinking", "<think>\n```python\ndef double(x): return 2 * x\n```\nBut wait"),
    (
        "secrets",
        "```python\nimport os\nassert not [v for v in os.environ.values() if 's3cret' in \
        v]\nassert not os.path.exists('results')\ndef double(x): return 2 * x\n```\n",
    ),
];

fn sweep(checks: &str) -> String {
    let prompts: String = OUTPUTS
        .iter()
        .map(|(id, _)| format!("[[prompts]]\nid = \"{id}\"\ntext = \"Double a number.\"\n"))
        .collect();
    format!(
        "name = \"s\"\n[generation]\nruns = 1\n{checks}\n{prompts}[[prompts]]\nid = \
        \"rust\"\ntext = \"x\"\nlanguage = \"rust\"\n[[models]]\nid = \"builtin:tiny-qwen2\"\n"
    )
}

const CHECKS: &str =
    "[checks]\ncommand = \"python3 test_double.py\"\ntest_file = \"test_double.py\"\nwall_s = 10\n";

async fn finished(folder: &Path, checks: &str) {
    std::fs::write(
        folder.join("test_double.py"),
        "import solution\nassert solution.double(4) == 8, 'not doubled'\n",
    )
    .unwrap();
    let objects = open(folder).await;
    edit::finished(objects.as_ref(), &sweep(checks), folder, |_, cell, _| {
        let found = OUTPUTS.iter().find(|(id, _)| *id == cell.prompt_id);
        Some(found.map_or("```rust\nfn main() {}\n```\n", |(_, output)| output).to_owned())
    })
    .await;
}

/// `prompt` → `check` → (verdict, detail), from what is stored.
async fn stored(folder: &Path) -> BTreeMap<String, BTreeMap<String, (String, String)>> {
    let objects = open(folder).await;
    let name = "s".parse().unwrap();
    let collected =
        bakeoff_coordinator::collect::read::collect(objects, &name).await.expect("collect");
    let mut found = BTreeMap::new();
    for row in &collected.rows {
        let Some(report) = collected.checks.get(&row.cell) else { continue };
        let report: Value = serde_json::from_str(report).expect("JSON");
        assert_eq!(
            report["document_sha256"],
            collected.records[&row.cell].document.sha256.as_str()
        );
        let checks = report["checks"].as_array().expect("checks").iter().map(|check| {
            let word = |key: &str| check[key].as_str().unwrap().to_owned();
            (word("name"), (word("verdict"), word("detail")))
        });
        found.insert(row.prompt_id.clone(), checks.collect());
    }
    found
}

#[tokio::test]
async fn each_output_gets_the_verdict_it_deserves() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    finished(folder, CHECKS).await;
    let report = json(&coordinator(folder, &["check", "s", "--json"]));
    assert_eq!(report["checked"], 11);
    assert!(report["cells"].as_array().unwrap().iter().all(|cell| cell["sandboxed"] == true));

    let stored_checks = stored(folder).await;
    let words: BTreeMap<&str, String> = stored_checks
        .iter()
        .map(|(prompt, checks)| {
            let words: Vec<_> =
                checks.iter().map(|(name, (verdict, _))| format!("{name} {verdict}")).collect();
            (prompt.as_str(), words.join(", "))
        })
        .collect();
    let all = |verdict: &str| format!("command {verdict}, compile {verdict}, import {verdict}");
    assert_eq!(words["good"], all("pass"));
    assert_eq!(words["wrong"], "command fail, compile pass, import pass");
    assert_eq!(words["syntax"], "compile fail");
    assert_eq!(words["raises"], "command fail, compile pass, import fail");
    assert_eq!(words["third-party"], "command not_run, compile pass, import not_run");
    assert_eq!(words["standard"], "command fail, compile pass, import fail");
    assert_eq!(words["handled"], all("pass"));
    assert_eq!(words["no-code"], "compile fail");
    assert_eq!(words["thinking"], "compile fail");
    assert_eq!(words["secrets"], all("pass"));
    assert_eq!(words["rust"], all("not_run"));
    let detail = |prompt: &str, check: &str| stored_checks[prompt][check].1.as_str();
    assert!(detail("wrong", "command").contains("AssertionError: not doubled"));
    assert!(detail("syntax", "compile").contains("SyntaxError"));
    assert!(detail("raises", "import").contains("KeyError: 'NO_SUCH_KEY' (solution.py, line 2)"));
    assert!(
        detail("third-party", "import").contains("`no_such_package.part`")
            || detail("third-party", "import").contains("`no_such_package`")
    );
    assert!(detail("rust", "import").contains("asks for rust"));

    // What ran is not run again; what could not run is tried again.
    let again = coordinator(folder, &["check", "s"]);
    let shown = text(&again.stdout);
    assert!(shown.starts_with("s: 2 outputs checked in a sandbox with Python 3."), "{shown}");
    assert!(shown.contains(", 9 checked before\n"), "{shown}");
    assert!(shown.contains("compile: 7 pass, 3 fail, 1 not run"), "{shown}");
    assert!(shown.contains("not run: module `no_such_package`"), "{shown}");
    assert_eq!(json(&coordinator(folder, &["check", "s", "--json", "--again"]))["checked"], 11);
    assert_eq!(stored(folder).await, stored_checks);

    assert!(coordinator(folder, &["collect", "s"]).status.success());
    let report = std::fs::read(folder.join("results/s/report.json")).unwrap();
    let report: Value = serde_json::from_slice(&report).unwrap();
    assert_eq!(report["measure"], "pass_rate");
    let good: Vec<&str> = report["cells"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|cell| cell["passes"] == true)
        .map(|cell| cell["prompt"].as_str().unwrap())
        .collect();
    // Not the one of which nothing is known, since its import could not run.
    assert_eq!(good, ["good", "handled", "secrets"]);
    let markdown = std::fs::read_to_string(folder.join("results/s/report.md")).unwrap();
    let row = "compile 7 of 10 (1 not run), import 4 of 6 (2 not run), command 3 of 6 (2 not run) \
    | 33 % (12–65) of 9 |";
    assert!(markdown.contains(row), "{markdown}");
    let csv = std::fs::read_to_string(folder.join("results/s/s_summary.csv")).unwrap();
    let mut lines = csv.lines();
    assert!(lines.next().unwrap().ends_with(",checks,passes"));
    let ends: Vec<&str> = lines.map(|line| line.rsplit(",,").next().unwrap()).collect();
    assert_eq!(ends[0], "compile pass; import pass; command pass,true");
    assert_eq!(ends[2], "compile fail,false");
    assert_eq!(ends[4], "compile pass; import not run; command not run,");
    // Only plain files, named after cells, came of it.
    for entry in std::fs::read_dir(folder.join("results/s/checks")).unwrap() {
        let entry = entry.unwrap();
        assert!(entry.file_type().unwrap().is_file(), "{entry:?}");
    }
}

#[tokio::test]
async fn nothing_is_executed_unless_the_sweep_asks_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    finished(folder, "").await;
    let message = refused(&coordinator(folder, &["check", "s"]));
    assert!(message.contains("has no [checks]") && message.contains("--sweep FILE"), "{message}");
    assert!(!folder.join("results/s/checks").exists());

    // Checks can be asked for later.
    std::fs::write(folder.join("later.toml"), sweep("[checks]\nimport = false\n")).unwrap();
    let report = json(&coordinator(folder, &["check", "s", "--sweep", "later.toml", "--json"]));
    assert_eq!(report["checked"], 11);
    assert_eq!(stored(folder).await["wrong"].keys().collect::<Vec<_>>(), ["compile"]);

    std::fs::write(folder.join("bad.toml"), sweep("[checks]\ncpu_s = 0\n")).unwrap();
    let message = refused(&coordinator(folder, &["check", "s", "--sweep", "bad.toml"]));
    assert!(message.contains("`checks.cpu_s` must be an integer from 1"), "{message}");
    let python = "[checks]\npython = \"/usr/bin/no-such-python\"\n";
    std::fs::write(folder.join("bad.toml"), sweep(python)).unwrap();
    let message = refused(&coordinator(folder, &["check", "s", "--sweep", "bad.toml"]));
    assert!(
        message.contains("`/usr/bin/no-such-python` cannot be used as the Python interpreter"),
        "{message}"
    );
    std::fs::write(folder.join("bad.toml"), sweep("[checks]\npython = \"/bin/ls\"\n")).unwrap();
    let message = refused(&coordinator(folder, &["check", "s", "--sweep", "bad.toml"]));
    assert!(message.contains("`/bin/ls` cannot be used as the Python interpreter"), "{message}");
}

#[tokio::test]
async fn without_a_sandbox_it_refuses_unless_a_flag_accepts_the_risk() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    finished(folder, CHECKS).await;
    let absent = command(folder, &["check", "s"]).env("PATH", "/nowhere").output().unwrap();
    let message = refused(&absent);
    assert!(message.contains("install it (`apt install bubblewrap`"), "{message}");
    assert!(message.contains(ACCEPT), "{message}");
    assert!(!folder.join("results/s/checks").exists());

    // A container that allows no namespaces.
    let denied = Command::new("unshare")
        .args(["--user", "--map-root-user", "sh", "-c"])
        .arg(
            "echo 0 > /proc/sys/user/max_mnt_namespaces && echo 0 > \
        /proc/sys/user/max_user_namespaces && exec \"$@\"",
        )
        .args(["sh", env!("CARGO_BIN_EXE_coordinator"), "check", "s", "--store", "results"])
        .current_dir(folder)
        .output()
        .expect("unshare starts");
    let message = refused(&denied);
    assert!(message.contains("the sandbox cannot be set up here (bwrap: "), "{message}");
    assert!(message.contains(ACCEPT), "{message}");
    assert!(!folder.join("results/s/checks").exists());

    let ended = command(folder, &["check", "s", ACCEPT]).env("PATH", "/nowhere").output().unwrap();
    assert!(ended.status.success(), "{}", text(&ended.stderr));
    assert!(text(&ended.stderr).contains("with all of your rights"));
    assert!(text(&ended.stdout).contains("checked WITHOUT a sandbox"));
    let checks = stored(folder).await;
    assert_eq!(checks["good"]["command"].0, "pass");
    assert_eq!(checks["secrets"]["import"].0, "pass", "the environment is cleared all the same");
    assert!(coordinator(folder, &["collect", "s"]).status.success());
    let report = std::fs::read_to_string(folder.join("results/s/report.json")).unwrap();
    assert!(report.contains("\"pass_rate\""));
}

/// Root builds the walls by its rights, anybody else in a user namespace: both must hold.
#[tokio::test]
async fn root_and_others_get_the_same_verdicts() {
    // SAFETY: geteuid takes nothing, changes nothing and cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    finished(folder, CHECKS).await;
    let first = json(&coordinator(folder, &["check", "s", "--json"]));
    if !root {
        // Every other test here has gone the other way.
        return;
    }
    const NOBODY: u32 = 65_534;
    let give = |path: &Path| std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    // The build folder may be closed to others.
    let program = folder.join("coordinator");
    std::fs::copy(env!("CARGO_BIN_EXE_coordinator"), &program).unwrap();
    let mut open = vec![folder.to_owned()];
    while let Some(path) = open.pop() {
        give(&path);
        if path.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    let second = Command::new(&program)
        .args(["check", "s", "--again", "--json", "--store", "results"])
        .current_dir(folder)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .expect("the coordinator starts");
    assert_eq!(json(&second), first);
}

/// Where an answer to a suite's task comes from, by run.
fn answer(task: &Value, body: &str, style: u32) -> String {
    let prompt = task["prompt"].as_str().unwrap();
    let entry = format!("def {}(", task["entry_point"].as_str().unwrap());
    // Not what stands before the function: an answer relies on the prompt for it.
    let function = format!("{}{body}", &prompt[prompt.find(&entry).unwrap()..]);
    match style {
        1 => format!(
            "Here it is:\n\n```python\n{function}```\n\nIt works like \
            this:\n```python\nprint(1)\n```\n"
        ),
        2 => format!("{body}\n\n# An example\nprint(undefined_name)\n"),
        3 => format!(
            "<think>\nLet me see: ```python\ndef f(): pass\n```\n</think>\nThe \
            function:\n\n{function}\nIt does what was asked for.\n"
        ),
        _ => format!("```python\n{body}```\n"),
    }
}

#[tokio::test]
async fn a_suite_gives_pass_at_k_from_answers_of_every_style() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let suite = root.join("../deploy/suites/bakeoff-ten.jsonl");
    let solutions = std::fs::read(root.join("tests/suite_solutions.json")).unwrap();
    let solutions: Value = serde_json::from_slice(&solutions).unwrap();
    let tasks: Vec<Value> = std::fs::read_to_string(&suite)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(tasks.len() >= 8);
    let sweep = format!(
        "name = \"s\"\n[generation]\nruns = 4\n[checks]\ncompile = \
        false\n[report]\nprice_per_gpu_hour = 3.6\n[[prompts]]\nid = \"ten\"\nsuite = \
        \"{}\"\n[[models]]\nid = \"builtin:tiny-qwen2\"\n",
        suite.display()
    );
    let task_of = |prompt: &str| {
        let number = prompt.rsplit('_').next().unwrap();
        tasks.iter().position(|task| task["task_id"] == format!("bakeoff/{number}")).unwrap()
    };
    // Of task i, i % 5 of the four answers are right.
    let right = |task: usize, run: u32| run as usize <= task % 5;
    let objects = open(folder).await;
    edit::finished(objects.as_ref(), &sweep, folder, |_, cell, _| {
        let at = task_of(&cell.prompt_id);
        let task = &tasks[at];
        let which = if right(at, cell.run) { "good" } else { "bad" };
        let body = solutions[task["task_id"].as_str().unwrap()][which].as_str().unwrap();
        Some(answer(task, body, (cell.run + at as u32) % 4))
    })
    .await;
    assert_eq!(json(&coordinator(folder, &["check", "s", "--json"]))["checked"], 40);
    assert!(coordinator(folder, &["collect", "s"]).status.success());
    let report = std::fs::read(folder.join("results/s/report.json")).unwrap();
    let report: Value = serde_json::from_slice(&report).unwrap();
    for cell in report["cells"].as_array().unwrap() {
        let at = task_of(cell["prompt"].as_str().unwrap());
        let run = u32::try_from(cell["run"].as_u64().unwrap()).unwrap();
        assert_eq!(cell["passes"], right(at, run), "{:#}", cell["checks"]);
    }
    let scores = &report["variants"][0]["pass_at_k"];
    // Twice each of 0, 1, 2, 3, 4 of 4.
    assert!((scores["1"]["mean"].as_f64().unwrap() - 0.5).abs() < 1e-9, "{scores}");
    assert!((scores["4"]["mean"].as_f64().unwrap() - 0.8).abs() < 1e-9, "{scores}");
    let (low, high) = (scores["1"]["low"].as_f64().unwrap(), scores["1"]["high"].as_f64().unwrap());
    assert!((0.1..0.4).contains(&low) && (0.6..0.9).contains(&high), "{scores}");
    let markdown = std::fs::read_to_string(folder.join("results/s/report.md")).unwrap();
    // 82 s of generation at 3.60 an hour, for twenty answers that pass.
    let row = "| builtin:tiny-qwen2 | test 20 of 40 | 50 % (35–65) of 40 | pass@1 50 % (";
    assert!(
        markdown.contains("\n## Checks by execution\n") && markdown.contains(row),
        "{markdown}"
    );
    assert!(markdown.contains(", 10 tasks | 0.0041 USD |\n"), "{markdown}");
    let page = std::fs::read_to_string(folder.join("results/s/report.html")).unwrap();
    assert!(page.contains("Checks by execution</h2>"));
    assert!(page.contains("test: <span class=\"yes\">20 pass</span>, <span class=\"no\">20 fail"));
    let csv = std::fs::read_to_string(folder.join("results/s/s_summary.csv")).unwrap();
    assert_eq!(csv.lines().filter(|line| line.ends_with(",test pass,true")).count(), 20);
}

#[tokio::test]
async fn code_does_not_outlive_a_coordinator_that_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let name = format!("kc{}", std::process::id());
    let output = format!(
        "```python\nimport ctypes, os, time\nctypes.CDLL(None).prctl(15, b'{name}', 0, 0, \
        0)\nos.fork()\ntime.sleep(600)\n```\n"
    );
    let sweep = "name = \"s\"\n[generation]\nruns = 1\n[checks]\nwall_s = 600\n[[prompts]]\nid = \
    \"p\"\ntext = \"x\"\n[[models]]\nid = \"builtin:tiny-qwen2\"\n";
    let objects = open(folder).await;
    edit::finished(objects.as_ref(), sweep, folder, |_, _, _| Some(output.clone())).await;
    let mut child = command(folder, &["check", "s"]).spawn().expect("the coordinator starts");
    let running = || {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let names = processes.filter_map(|e| std::fs::read_to_string(e.path().join("comm")).ok());
        names.filter(|comm| comm.trim() == name).count()
    };
    let until = |wanted: usize| {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while running() != wanted {
            assert!(std::time::Instant::now() < end, "{} of {wanted}", running());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    };
    until(2);
    child.kill().unwrap();
    child.wait().unwrap();
    until(0);
}

#[test]
fn the_sweep_that_ships_with_the_suite_is_planned() {
    let sweep = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/sweeps/bakeoff-ten.toml");
    let sweep = bakeoff_coordinator::sweep::load(&sweep).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((sweep.prompts.len(), sweep.runs), (10, 5));
    assert!(sweep.prompts.iter().all(|prompt| prompt.task.is_some()));
    assert!(sweep.checks.is_some());
}
