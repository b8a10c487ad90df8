use std::path::Path;

use super::*;
use crate::sweep;

fn sweep_of(text: &str) -> Sweep {
    sweep::parse(text, "sweep.toml", Path::new("/nowhere")).unwrap()
}

fn plan_of(text: &str) -> Plan {
    Plan::build(sweep_of(text), Revisions::new()).unwrap()
}

const TWO: &str = r#"
name = "s"
[generation]
runs = 2
[[prompts]]
id = "p"
text = "one"
[[prompts]]
id = "q"
text = "two"
[[models]]
id = "a/m"
[[models]]
id = "b/n"
"#;

#[test]
fn the_same_sweep_gives_the_same_bytes_and_reads_back() {
    let plan = plan_of(TWO);
    assert_eq!(plan.to_json(), plan_of(TWO).to_json());
    assert_eq!(Plan::from_json(plan.to_json().as_bytes()).unwrap(), plan);
    assert_eq!((plan.jobs.len(), plan.cell_count()), (2, 8));
    let order: Vec<_> = plan
        .cells()
        .take(4)
        .map(|c| (c.model_name, c.cell.prompt_id.as_str(), c.cell.run))
        .collect();
    assert_eq!(order, [("a/m", "p", 1), ("a/m", "p", 2), ("a/m", "q", 1), ("a/m", "q", 2)]);
}

#[test]
fn a_cell_is_known_by_what_the_plan_fixes() {
    let ids = |text: &str| plan_of(text).cells().map(|c| c.cell.id.clone()).collect::<Vec<_>>();
    let before = ids(TWO);
    let hotter = ids(&TWO.replace("runs = 2", "runs = 2\ntemperature = 0.9"));
    assert!(before.iter().zip(&hotter).all(|(a, b)| a != b));
    // The default written out is the same cell, and so is another name or another grouping.
    assert_eq!(before, ids(&TWO.replace("runs = 2", "runs = 2\ntemperature = 0.7")));
    assert_eq!(before, ids(&TWO.replace("\"s\"", "\"t\"")));
    let grouped = format!("[queue]\ncells_per_job = 3\n{}", TWO.replacen("\nname = \"s\"", "", 1));
    let grouped = plan_of(&format!("name = \"s\"\n{grouped}"));
    assert_eq!(before, grouped.cells().map(|c| c.cell.id.clone()).collect::<Vec<_>>());
    assert_eq!(grouped.jobs.len(), 4);
}

#[test]
fn seeds_are_paired_across_models() {
    let plan = plan_of(TWO);
    let seeds: Vec<_> = plan.cells().map(|c| c.cell.seed).collect();
    assert_eq!(seeds[..4], seeds[4..]);
}

#[test]
fn revisions_become_commits() {
    let commit = "0123456789012345678901234567890123456789";
    let revisions = Revisions::from([("a/m@main".to_owned(), commit.to_owned())]);
    let plan = Plan::build(sweep_of(TWO), revisions).unwrap();
    assert_eq!(
        plan.jobs[0].job.model.source,
        ModelSource::Hub { id: "a/m".into(), revision: commit.into() }
    );
    assert_eq!(plan.unresolved(), ["b/n@main"]);
}

#[test]
fn file_stems_name_the_model_and_only_what_varies() {
    let stems =
        |text: &str| plan_of(text).cells().map(|c| c.cell.file_stem.clone()).collect::<Vec<_>>();
    let one = "name = \"s\"\n[generation]\nruns = 1\n[[prompts]]\nid = \"p\"\ntext = \
    \"x\"\n[[models]]\nid = \"Qwen/Qwen3-32B\"\n";
    assert_eq!(stems(one), ["Qwen3-32B"]);
    assert_eq!(stems(TWO)[..2], ["m__p__r1", "m__p__r2"]);
    let twins = format!("{one}[[models]]\nid = \"other/Qwen3-32B\"\n");
    assert_eq!(stems(&twins), ["Qwen_Qwen3-32B", "other_Qwen3-32B"]);
    let labelled = format!(
        "{one}[[models]]\nid = \"Qwen/Qwen3-32B\"\nlabel = \"no-thinking\"\nthinking = false\n"
    );
    assert_eq!(stems(&labelled), ["Qwen3-32B", "no-thinking"]);
    let engines = format!("{one}engine = {{ engine = [\"fused\", \"stock\"] }}\n");
    assert_eq!(stems(&engines), ["Qwen3-32B__fused", "Qwen3-32B__stock"]);
}

#[test]
fn two_names_for_the_same_cells_are_refused() {
    let text = format!("{TWO}[[models]]\nid = \"a/m\"\nlabel = \"again\"\n");
    let error = Plan::build(sweep_of(&text), Revisions::new()).unwrap_err();
    let PlanError::SharedCell { first, second } = error else { panic!("{error}") };
    assert_eq!((first.as_str(), second.as_str()), ("a/m", "again"));
}

#[test]
fn a_job_beyond_a_message_is_refused_with_the_way_out() {
    let text = TWO.replace("text = \"one\"", &format!("text = \"{}\"", "x".repeat(600_000)));
    let error = Plan::build(sweep_of(&text), Revisions::new()).unwrap_err().to_string();
    assert!(error.contains("cells_per_job"), "{error}");
    let split = text.replacen("[generation]", "[queue]\ncells_per_job = 1\n[generation]", 1);
    assert_eq!(Plan::build(sweep_of(&split), Revisions::new()).unwrap().jobs.len(), 8);
}

#[test]
fn differences_are_listed_in_the_words_of_the_sweep() {
    let stored = plan_of(TWO);
    let listed = |text: &str| differences(&stored, &plan_of(text)).join("\n");
    assert_eq!(listed(TWO), "");
    insta::assert_snapshot!(
        [
            listed(&TWO.replace("runs = 2", "runs = 3")),
            listed(&TWO.replace("id = \"b/n\"", "id = \"b/n\"\nthinking = true")),
            listed(&TWO.replace("b/n", "b/other")),
            listed(&TWO.replace("text = \"two\"", "text = \"three\"")),
            listed(&TWO.replace("text = \"two\"", &format!("text = \"two{}\"", "o".repeat(90)))),
        ]
        .join("\n---\n")
    );
}

#[test]
fn a_stored_plan_of_a_newer_version_is_refused() {
    let newer =
        plan_of(TWO).to_json().replacen("\"schema_version\": 1", "\"schema_version\": 99", 1);
    assert!(matches!(Plan::from_json(newer.as_bytes()), Err(PlanError::TooNew { found: 99 })));
    assert!(matches!(Plan::from_json(b"{"), Err(PlanError::Malformed(_))));
}
