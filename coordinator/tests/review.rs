//! What people add after a sweep has run: reviews, pushed at once over a real S3 server, and other
//! rules for the report.

mod common;

use std::process::Command;
use std::sync::Arc;

use bakeoff_coordinator::collect::read;
use bakeoff_coordinator::review::{self, Review, Reviews, push};
use bakeoff_proto::names;
use bakeoff_transport::args::StoreArgs;
use bakeoff_transport::store;
use bakeoff_test_servers::S3Server;
use common::Made;
use futures::future::join_all;

const SWEEP: &str = "name = \"s\"\n[generation]\nruns = 1\n[[prompts]]\nid = \"p\"\ntext = \"x\"\n[[models]]\nid = \"builtin:tiny-qwen2\"\n";
const REVIEWERS: [&str; 4] = ["Ana", "Ben", "Cyd", "Dot"];

/// Each push depends on the version it read: whoever loses the race reads again and adds his own.
#[tokio::test(flavor = "multi_thread")]
async fn pushes_at_once_lose_nothing() {
    let server = S3Server::start();
    let objects = store::open(&server.args("reviews")).await.expect("the store opens");
    let plan = common::store_sweep(objects.as_ref(), SWEEP, |_, _| Some(Made::new("x"))).await;
    let collected = read::collect(objects.clone(), &plan.sweep.name).await.expect("collected");
    let collected = Arc::new(collected);
    let key = names::reviews_key(&plan.sweep.name);
    let name = review::blind::name(7, &collected.rows[0].cell);
    let pushes = REVIEWERS.iter().map(|reviewer| {
        let mine = Reviews {
            sweep: "s".into(),
            seed: 7,
            reviews: vec![Review {
                output: name.clone(),
                reviewer: (*reviewer).to_owned(),
                stars: [("correctness".to_owned(), 3)].into(),
                ..Review::default()
            }],
        };
        let (objects, key, collected) = (objects.clone(), key.clone(), collected.clone());
        tokio::spawn(async move { push::push(objects.as_ref(), &key, &mine, &collected).await })
    });
    for pushed in join_all(pushes).await {
        pushed.expect("no panic").expect("stored in the end");
    }
    let stored = read::collect(objects, &plan.sweep.name).await.expect("collected").reviews;
    let stored =
        review::parse(&stored.expect("stored"), "reviews.toml", &collected).expect("valid");
    let mut reviewers: Vec<_> = stored.reviews.iter().map(|r| r.reviewer.as_str()).collect();
    reviewers.sort_unstable();
    assert_eq!(reviewers, REVIEWERS);
}

/// The rules are frozen with the plan; another file's are taken when asked, and told when refused.
#[tokio::test]
async fn a_report_is_judged_anew_by_other_rules() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().join("results");
    let args = StoreArgs { store: Some(place.display().to_string()), ..StoreArgs::default() };
    let objects = store::open(&args).await.expect("a store");
    common::store_sweep(objects.as_ref(), SWEEP, |_, _| Some(Made::new("x"))).await;
    std::fs::write(
        folder.path().join("new.toml"),
        format!("{SWEEP}[report]\nmin_evidence = 0.9\n"),
    )
    .expect("written");
    let run = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_coordinator"))
            .args(args)
            .current_dir(folder.path())
            .env_clear()
            .env("BAKEOFF_STORE", &place)
            .output()
            .expect("the coordinator starts");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let rule = || {
        let report = std::fs::read_to_string(place.join("s/report.md")).expect("a report");
        report.lines().find(|line| line.starts_with("| Real-time")).expect("a rule").to_owned()
    };
    assert_eq!(run(&["collect", "s"]), (Some(0), String::new()));
    assert!(rule().contains("and reach 50 %"), "{}", rule());
    assert_eq!(run(&["collect", "s", "--rules", "new.toml"]), (Some(0), String::new()));
    assert!(rule().contains("and reach 90 %"), "{}", rule());
    let (code, message) = run(&["run", "new.toml"]);
    assert!(code == Some(2) && message.contains("collect s --rules"), "{message}");
    let (code, message) = run(&["collect", "s", "--rules", "none.toml"]);
    assert!(code == Some(2) && message.contains("none.toml"), "{message}");
}
