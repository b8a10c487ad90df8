//! Names of objects: a sweep's own name in the letters that Kubernetes takes.

use bakeoff_proto::SweepName;
use sha2::{Digest, Sha256};

/// So that a Job's name, a suffix and what its pods' names add fit into a label's 63 characters.
const MAX_SLUG: usize = 29;
/// Longest suffix that tells a second Job of one sweep from the first.
const MAX_SUFFIX: usize = 10;

/// The name of a sweep's Job and ConfigMap: a DNS-1123 label. Two sweeps never share one: where the
/// letters agree (`a_b` and `a-b`), the hash differs.
pub fn of_sweep(sweep: &SweepName, suffix: Option<&Suffix>) -> String {
    let hash = Sha256::digest(sweep.as_str().as_bytes());
    let hash: String = hash[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    let mut name = format!("bakeoff-{}-{hash}", slug(sweep.as_str()));
    if let Some(suffix) = suffix {
        name.push('-');
        name.push_str(&suffix.0);
    }
    name
}

fn slug(name: &str) -> String {
    let mut slug = String::new();
    for c in name.chars().take(MAX_SLUG) {
        match c.to_ascii_lowercase() {
            c if c.is_ascii_alphanumeric() => slug.push(c),
            _ if slug.ends_with('-') => {}
            _ => slug.push('-'),
        }
    }
    slug.trim_matches('-').to_owned()
}

/// 1 to 10 lower-case letters and digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suffix(String);

impl Suffix {
    /// Of the Job that fetches a sweep's models.
    pub fn fetch() -> Self {
        Self("fetch".to_owned())
    }
}

impl std::str::FromStr for Suffix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if (1..=MAX_SUFFIX).contains(&text.len()) && text.chars().all(fine) {
            return Ok(Self(text.to_owned()));
        }
        Err(format!("must be 1 to {MAX_SUFFIX} lower-case letters and digits, such as `2`"))
    }
}

/// Whether a namespace can be called so: a DNS-1123 label.
pub fn namespace(text: &str) -> Result<String, String> {
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    if text.len() <= 63
        && text.chars().all(fine)
        && ends(text.chars().next())
        && ends(text.chars().last())
    {
        return Ok(text.to_owned());
    }
    Err("must be 1 to 63 lower-case letters, digits and `-`, no `-` at either end".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(sweep: &str) -> String {
        of_sweep(&SweepName::try_from(sweep.to_owned()).unwrap(), None)
    }

    #[test]
    fn every_name_is_a_label_that_leaves_room_for_a_pods() {
        let longest = "x".repeat(128);
        let dots = format!("a{}", ".".repeat(127));
        for sweep in ["demo", "qwen_codegen_outputs-flash", "A", "9", &longest, &dots, "v1.2-"] {
            let sweep = SweepName::try_from(sweep.to_owned()).unwrap();
            for suffix in [None, Some(Suffix::fetch()), Some("abcdefghij".parse().unwrap())] {
                let name = of_sweep(&sweep, suffix.as_ref());
                assert_eq!(namespace(&name), Ok(name.clone()));
                assert!(name.len() <= 63 - "-xxxxx".len(), "{name}");
            }
        }
        assert!(
            name("qwen_codegen_outputs-flash").starts_with("bakeoff-qwen-codegen-outputs-flash-")
        );
    }

    #[test]
    fn sweeps_that_differ_in_a_letter_have_names_that_differ() {
        let long = |end: char| format!("{}{end}", "x".repeat(100));
        for (a, b) in [("a_b", "a-b"), ("A", "a"), ("a.", "a"), (&*long('1'), &*long('2'))] {
            assert_ne!(name(a), name(b));
        }
        assert_eq!(name("demo"), name("demo"));
    }

    #[test]
    fn suffixes_and_namespaces_are_checked() {
        for wrong in ["", "-", "A", "a-b", "abcdefghijk"] {
            assert!(wrong.parse::<Suffix>().is_err(), "{wrong}");
        }
        for wrong in ["", "-a", "a-", "A", "a.b", &"a".repeat(64)] {
            assert!(namespace(wrong).is_err(), "{wrong}");
        }
    }
}
