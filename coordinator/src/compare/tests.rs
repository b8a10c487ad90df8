use super::*;
use crate::finished::{GOOD, Made, collected, sweep};

#[test]
fn two_sweeps_are_compared_pair_by_pair() {
    let text = "name = \"NAME\"\n[generation]\nruns = 4\n[[prompts]]\nid = \"p\"\ntext = \
    \"x\"\n[[models]]\nid = \"builtin:tiny-qwen2\"\n";
    let of = |name: &str, factor: f64| {
        collected(sweep(&text.replace("NAME", name)), |_, _, run| {
            Some(Made { tok_per_s: (30.0 + f64::from(run)) * factor, ..Made::new(GOOD) })
        })
    };
    let none: &[String] = &[];
    let (a, same, slow) = (of("a", 1.0), of("same", 1.0), of("slow", 0.8));
    let equal = compare(&a, &same, none, 3.0).expect("alike");
    assert!(!equal.regressed() && equal.pairs == 4 && equal.missing.is_empty());
    let worse = compare(&a, &slow, none, 3.0).expect("alike");
    assert!(worse.regressed());
    let speed = worse.differences.iter().find(|d| d.metric == "tok/s").expect("measured");
    assert!((speed.change + 20.0).abs() < 1e-6);
    assert!(render(&worse).contains("**regression**"));
    assert!(!compare(&slow, &a, none, 3.0).expect("alike").regressed());

    let mut other = of("other", 1.0);
    for record in other.records.values_mut() {
        record.fingerprint.device = "NVIDIA L4".into();
    }
    let refused = compare(&a, &other, none, 3.0).expect_err("unlike").to_string();
    assert!(refused.contains("device") && refused.contains("--across device"), "{refused}");
    assert!(compare(&a, &other, &["device".to_owned()], 3.0).is_ok());
    let unknown = compare(&a, &other, &["devise".to_owned()], 3.0);
    assert!(unknown.expect_err("unknown").to_string().contains("devise"));
    let empty = collected(sweep(&text.replace("NAME", "empty")), |_, _, _| None);
    assert!(compare(&a, &empty, none, 3.0).is_err());
}
