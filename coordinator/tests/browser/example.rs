//! The example report that is committed: made from a stored sweep, so that it can be made anew.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::chromium::Page;
use super::{Stage, url};

const SWEEP: &str = "demo";

fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/example-report");
    folder.canonicalize().expect("the example is committed")
}

/// Copies a folder and what is in it.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a new folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        match entry.file_type().expect("a type").is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).expect("a copy")),
        }
    }
}

/// The committed documents are what the stored sweep gives today, and nothing in them leads
/// elsewhere.
#[test]
fn the_example_is_what_its_sweep_gives_and_stands_alone() {
    let example = folder();
    let stage = Stage::new();
    copy(&example.join("results"), &stage.path().join("results"));
    stage.collect(SWEEP);
    let made = stage.path().join("results").join(SWEEP);
    let update = std::env::var_os("UPDATE_EXAMPLE").is_some();
    for file in ["report.html", "report.md", "demo_summary.csv"] {
        let now = std::fs::read(made.join(file)).expect("it was made");
        if update {
            std::fs::write(example.join(file), &now).expect("the example can be written");
        }
        let committed = std::fs::read(example.join(file)).unwrap_or_default();
        assert!(
            committed == now,
            "deploy/example-report/{file} is stale: run `UPDATE_EXAMPLE=1 cargo test -p \
            bakeoff-coordinator --test browser example`"
        );
    }
    let picture = example.join("report.png");
    if update {
        take_picture(&example.join("report.html"), &picture);
    }
    let png = std::fs::read(&picture).expect("the picture in the README");
    assert!(png.starts_with(b"\x89PNG") && png.len() < 300_000, "{} bytes", png.len());
    stands_alone(&example.join("report.html"));
}

fn take_picture(page: &Path, picture: &Path) {
    let program = std::env::var_os("CHROMIUM").unwrap_or_else(|| "chromium".into());
    let profile = tempfile::tempdir().expect("a folder for the profile");
    let status = Command::new(program)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--screenshot={}", picture.display()))
        .args(["--window-size=1280,960", &url(page)])
        .stderr(Stdio::null())
        .status()
        .expect("Chromium starts");
    assert!(status.success(), "the picture could not be taken");
}

fn stands_alone(file: &Path) {
    let html = std::fs::read_to_string(file).expect("it is committed");
    for reference in ["src=", "href=\"http", "href=\"/", "@import", "url(", "<script", "<link"] {
        assert!(!html.contains(reference), "{reference} in the example");
    }
    let mut page = Page::open();
    page.goto(&url(file));
    assert_eq!(page.eval("document.compatMode"), "CSS1Compat");
    assert_eq!(page.eval("document.querySelectorAll('h1').length"), 1);
    let charts = page.eval("document.querySelectorAll('#charts svg').length");
    assert!(charts.as_u64() >= Some(4), "{charts} charts");
    let anchors = "[...document.querySelectorAll('a')].filter(a => \
    !document.querySelector(a.getAttribute('href'))).map(a => a.outerHTML)";
    assert_eq!(page.eval(anchors), serde_json::json!([]), "links that lead nowhere");
    assert_eq!(page.requests(), [url(file)]);
    assert_eq!(page.complaints(), Vec::<String>::new());
}
