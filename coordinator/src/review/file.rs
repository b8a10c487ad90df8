//! `reviews.toml`: for people to edit, so every mistake is answered with its line.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound::Included;

use serde::Deserialize;

use super::{CRITERIA, Readiness, Review, Reviews};
use crate::toml_file::bounds::{Maybe, Within, bounds};
use crate::toml_file::words::shorten;
use crate::toml_file::{At, FileError, KeyPath, TomlFile};

/// More than a person writes.
const MAX_TEXT: usize = 10_000;

bounds! {
    /// TOML integers are signed.
    Seed: u64 = (Included(0), Included(i64::MAX as u64));
    Stars: u8 = (Included(1), Included(5)), " (stars)";
}

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReviewsFile {
    sweep: String,
    /// The blinded names follow from it.
    #[serde(with = "Within::<Seed>")]
    seed: u64,
    #[serde(default)]
    reviews: Vec<Entry>,
}

/// One `[[reviews]]`; its criteria are those of [`CRITERIA`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    output: String,
    #[serde(default)]
    reviewer: String,
    #[serde(default, with = "Maybe::<Stars>")]
    correctness: Option<u8>,
    #[serde(default, with = "Maybe::<Stars>")]
    completeness: Option<u8>,
    #[serde(default, with = "Maybe::<Stars>")]
    robustness: Option<u8>,
    #[serde(default, with = "Maybe::<Stars>")]
    readability: Option<u8>,
    #[serde(default, with = "Maybe::<Stars>")]
    operations: Option<u8>,
    readiness: Option<Readiness>,
    #[serde(default)]
    strengths: String,
    #[serde(default)]
    limitations: String,
    #[serde(default)]
    best_use: String,
}

impl Entry {
    fn review(self) -> Review {
        let stars = [
            ("correctness", self.correctness),
            ("completeness", self.completeness),
            ("robustness", self.robustness),
            ("readability", self.readability),
            ("operations", self.operations),
        ];
        Review {
            output: self.output,
            reviewer: self.reviewer,
            stars: stars.into_iter().filter_map(|(id, s)| Some((id.to_owned(), s?))).collect(),
            readiness: self.readiness,
            strengths: self.strengths,
            limitations: self.limitations,
            best_use: self.best_use,
        }
    }
}

/// A review that cannot be used. The key's path stands before the text.
#[derive(Debug, thiserror::Error)]
pub enum ReviewProblem {
    #[error("is \"{}\": these are reviews of another sweep than `{expected}`", shorten(.found))]
    OtherSweep { found: String, expected: String },
    #[error(
        "is an unknown output: \"{}\"; this sweep has {outputs} outputs, and another seed gives \
        them other names",
        shorten(.name)
    )]
    UnknownOutput { name: String, outputs: usize },
    #[error("is {bytes} bytes long, at most {MAX_TEXT} fit")]
    TooLong { bytes: usize },
    #[error("is missing: name who gives these stars")]
    NoReviewer,
    #[error("reviewed output \"{output}\" already, in review {earlier}: keep one of the two")]
    Repeated { output: String, earlier: usize },
}

/// Reads and checks a file. `outputs` are the blinded names that exist, given the file's seed.
///
/// # Errors
/// What is wrong with the file, with line and key.
pub fn parse(
    text: &str,
    origin: &str,
    sweep: &str,
    outputs: impl Fn(u64) -> Vec<String>,
) -> Result<Reviews, FileError> {
    let toml = TomlFile::parse(origin, text)?;
    let file: ReviewsFile = toml.read()?;
    check(file, sweep, outputs).map_err(|at| toml.refuse(at))
}

fn check(
    file: ReviewsFile,
    sweep: &str,
    outputs: impl Fn(u64) -> Vec<String>,
) -> Result<Reviews, At<ReviewProblem>> {
    if file.sweep != sweep {
        let problem = ReviewProblem::OtherSweep { found: file.sweep, expected: sweep.to_owned() };
        return Err(KeyPath::top("sweep").refuse(problem));
    }
    let known = outputs(file.seed);
    let mut reviews = Vec::new();
    let mut seen: HashMap<(String, String), usize> = HashMap::new();
    for (index, entry) in file.reviews.into_iter().enumerate() {
        let path = KeyPath::top("reviews").index(index);
        let review = entry.review();
        check_one(&review, &path, &known)?;
        let key = (review.output.clone(), review.reviewer.trim().to_lowercase());
        if let Some(earlier) = seen.insert(key, index + 1) {
            let problem = ReviewProblem::Repeated { output: review.output, earlier };
            return Err(path.key("reviewer").refuse(problem));
        }
        reviews.push(review);
    }
    Ok(Reviews { sweep: file.sweep, seed: file.seed, reviews })
}

fn check_one(review: &Review, path: &KeyPath, known: &[String]) -> Result<(), At<ReviewProblem>> {
    if !known.contains(&review.output) {
        let name = review.output.clone();
        let problem = ReviewProblem::UnknownOutput { name, outputs: known.len() };
        return Err(path.key("output").refuse(problem));
    }
    for (key, text) in [
        ("strengths", &review.strengths),
        ("limitations", &review.limitations),
        ("best_use", &review.best_use),
    ] {
        if text.len() > MAX_TEXT {
            return Err(path.key(key).refuse(ReviewProblem::TooLong { bytes: text.len() }));
        }
    }
    if !review.is_blank() && review.reviewer.trim().is_empty() {
        return Err(path.key("reviewer").refuse(ReviewProblem::NoReviewer));
    }
    Ok(())
}

/// The file. `notes` are comments above each output: its evidence.
pub fn render(reviews: &Reviews, notes: &BTreeMap<String, Vec<String>>) -> String {
    let mut out = String::from(
        "# Stars from 1 to 5 for each criterion; leave a line out if you cannot judge it.\n",
    );
    for (criterion, question) in CRITERIA {
        out.push_str(&format!("#   {criterion}: {question}\n"));
    }
    let words: Vec<_> = Readiness::ALL.iter().map(|(word, _)| *word).collect();
    out.push_str(&format!("# readiness is one of {}.\n", words.join(", ")));
    out.push_str("# The outputs stand in a shuffled order and under names that hide the model.\n");
    out.push_str(&format!("sweep = {}\nseed = {}\n", quoted(&reviews.sweep), reviews.seed));
    for review in &reviews.reviews {
        out.push_str("\n[[reviews]]\n");
        for note in notes.get(&review.output).into_iter().flatten() {
            let line: String = note.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            out.push_str(&format!("# {line}\n"));
        }
        out.push_str(&format!(
            "output = {}\nreviewer = {}\n",
            quoted(&review.output),
            quoted(&review.reviewer)
        ));
        for (criterion, _) in CRITERIA {
            match review.stars.get(criterion) {
                Some(stars) => out.push_str(&format!("{criterion} = {stars}\n")),
                None => out.push_str(&format!("# {criterion} = \n")),
            }
        }
        match review.readiness {
            Some(readiness) => out.push_str(&format!("readiness = \"{}\"\n", readiness.as_str())),
            None => out.push_str("# readiness = \"\"\n"),
        }
        for (key, text) in [
            ("strengths", &review.strengths),
            ("limitations", &review.limitations),
            ("best_use", &review.best_use),
        ] {
            out.push_str(&format!("{key} = {}\n", quoted(text)));
        }
    }
    out
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_it(text: &str) -> Result<Reviews, FileError> {
        parse(text, "reviews.toml", "demo", |_| vec!["aa".into(), "bb".into()])
    }

    fn message(body: &str) -> String {
        parse_it(&format!("sweep = \"demo\"\nseed = 1\n{body}")).expect_err(body).to_string()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let hostile = "\"\"\"\n'''\\ # </script>\u{1F600}".to_owned();
        let review = Review {
            output: "bb".into(),
            reviewer: "Ana \"A\"".into(),
            stars: [("correctness".into(), 4), ("operations".into(), 1)].into(),
            readiness: Some(Readiness::NeedsWork),
            strengths: hostile.clone(),
            limitations: String::new(),
            best_use: "x".into(),
        };
        let blank = Review { output: "aa".into(), ..Review::default() };
        let reviews = Reviews { sweep: "demo".into(), seed: 1, reviews: vec![review, blank] };
        let notes = [("bb".to_owned(), vec!["a\nb = 1".to_owned()])].into();
        let text = render(&reviews, &notes);
        assert_eq!(parse_it(&text).unwrap(), reviews);
        assert_eq!(reviews.reviews[0].mean_stars(), Some(2.5));
    }

    #[test]
    fn every_criterion_is_a_key_of_the_file() {
        for (criterion, _) in CRITERIA {
            let text = format!(
                "sweep = \"demo\"\nseed = 1\n[[reviews]]\noutput = \"aa\"\nreviewer = \
                \"A\"\n{criterion} = 3\n"
            );
            assert_eq!(parse_it(&text).unwrap().reviews[0].stars.get(criterion), Some(&3));
        }
    }

    #[test]
    fn bad_values_are_refused_with_their_line() {
        let entry = "[[reviews]]\noutput = \"aa\"\nreviewer = \"Ana\"\n";
        let stars = message(&format!("{entry}correctness = 6\n"));
        assert!(stars.starts_with("reviews.toml:6: ") && stars.contains("from 1 to 5"), "{stars}");
        assert!(message(&format!("{entry}correctness = 0\n")).contains("from 1 to 5"));
        assert!(message(&format!("{entry}correctness = 4.5\n")).contains("reviews.toml:6"));
        let unknown = message("[[reviews]]\noutput = \"zz\"\nreviewer = \"Ana\"\n");
        assert!(unknown.starts_with("reviews.toml:4: ") && unknown.contains("unknown output"));
        let twice = message(&format!("{entry}correctness = 3\n{entry}correctness = 4\n"));
        assert!(twice.starts_with("reviews.toml:9: ") && twice.contains("already"), "{twice}");
        let nobody = message("[[reviews]]\noutput = \"aa\"\ncorrectness = 3\n");
        assert!(nobody.contains("who gives these stars"));
        assert!(message(&format!("{entry}corectness = 3\n")).contains("correctness"));
        assert!(message(&format!("{entry}readiness = \"done\"\n")).contains("reviews.toml:6"));
        assert!(message("x = ").contains("invalid TOML"));
        let other = parse_it("sweep = \"other\"\nseed = 1\n").expect_err("other").to_string();
        assert!(other.contains("another sweep"));
    }
}
