//! `reviews.toml`: for people to edit, so every mistake is answered with its line.

use std::collections::{BTreeMap, HashMap};

use toml::de::DeTable;

use super::{CRITERIA, Readiness, Review, Reviews};
use crate::sweep::{Section, SweepError, section::Source, shorten};

/// More than a person writes.
const MAX_TEXT: usize = 10_000;

/// Reads and checks a file. `outputs` are the blinded names that exist, given the file's seed.
pub fn parse(
    text: &str,
    origin: &str,
    sweep: &str,
    outputs: impl Fn(u64) -> Vec<String>,
) -> Result<Reviews, SweepError> {
    let source = Source { origin, text };
    let table = DeTable::parse(text)
        .map_err(|error| source.error(error.span(), format!("not TOML: {}", error.message())))?;
    let mut top = Section::top(source, &table);
    let named = top.required_string("sweep")?;
    if named != sweep {
        let named = shorten(&named);
        return Err(top.error_at(
            "sweep",
            format!("is \"{named}\": these are reviews of another sweep than `{sweep}`"),
        ));
    }
    let seed = top
        .integer("seed", 0..=i64::MAX as u64)?
        .ok_or_else(|| top.error_at("seed", "is missing: the blinded names follow from it"))?;
    let known = outputs(seed);
    let mut reviews = Vec::new();
    let mut seen: HashMap<(String, String), usize> = HashMap::new();
    for (index, section) in top.sections("reviews")?.into_iter().enumerate() {
        let review = read_one(section, &known, &mut seen, index + 1)?;
        reviews.push(review);
    }
    top.finish()?;
    Ok(Reviews { sweep: named, seed, reviews })
}

fn read_one(
    mut section: Section<'_>,
    known: &[String],
    seen: &mut HashMap<(String, String), usize>,
    number: usize,
) -> Result<Review, SweepError> {
    let output = section.required_string("output")?;
    if !known.contains(&output) {
        return Err(section.error_at(
            "output",
            format!("names no output of this sweep: \"{}\"; there are {} outputs, and another seed gives other names", shorten(&output), known.len()),
        ));
    }
    let reviewer = section.string("reviewer")?.unwrap_or_default();
    let mut stars = BTreeMap::new();
    for (criterion, _) in CRITERIA {
        if let Some(value) = section.integer_u32(criterion, 1..=5)? {
            stars.insert(criterion.to_owned(), u8::try_from(value).expect("at most 5"));
        }
    }
    let readiness = section.choice("readiness", &Readiness::ALL)?;
    let mut texts = Vec::new();
    for key in ["strengths", "limitations", "best_use"] {
        let text = section.string(key)?.unwrap_or_default();
        if text.len() > MAX_TEXT {
            return Err(section
                .error_at(key, format!("is {} bytes long, at most {MAX_TEXT} fit", text.len())));
        }
        texts.push(text);
    }
    let [strengths, limitations, best_use] =
        <[String; 3]>::try_from(texts).expect("three keys, three texts");
    let review = Review { output, reviewer, stars, readiness, strengths, limitations, best_use };
    if !review.is_blank() && review.reviewer.trim().is_empty() {
        return Err(section.error_at("reviewer", "is missing: say who gives these stars"));
    }
    let key = (review.output.clone(), review.reviewer.trim().to_lowercase());
    if let Some(earlier) = seen.insert(key, number) {
        return Err(section.error_at(
            "reviewer",
            format!(
                "reviewed output \"{}\" already, in review {earlier}: keep one of the two",
                review.output
            ),
        ));
    }
    section.finish()?;
    Ok(review)
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
    out.push_str(
        "# The outputs stand in a shuffled order and under names that do not tell the model.\n",
    );
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

    fn parse_it(text: &str) -> Result<Reviews, SweepError> {
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
    fn bad_values_are_refused_with_their_line() {
        let entry = "[[reviews]]\noutput = \"aa\"\nreviewer = \"Ana\"\n";
        let stars = message(&format!("{entry}correctness = 6\n"));
        assert!(stars.starts_with("reviews.toml:6: ") && stars.contains("from 1 to 5"), "{stars}");
        assert!(message(&format!("{entry}correctness = 0\n")).contains("from 1 to 5"));
        assert!(message(&format!("{entry}correctness = 4.5\n")).contains("reviews.toml:6"));
        let unknown = message("[[reviews]]\noutput = \"zz\"\nreviewer = \"Ana\"\n");
        assert!(unknown.starts_with("reviews.toml:4: ") && unknown.contains("no output"));
        let twice = message(&format!("{entry}correctness = 3\n{entry}correctness = 4\n"));
        assert!(twice.starts_with("reviews.toml:9: ") && twice.contains("already"), "{twice}");
        let nobody = message("[[reviews]]\noutput = \"aa\"\ncorrectness = 3\n");
        assert!(nobody.contains("who gives these stars"));
        assert!(message(&format!("{entry}corectness = 3\n")).contains("correctness"));
        assert!(message(&format!("{entry}readiness = \"done\"\n")).contains("reviews.toml:6"));
        assert!(message("x = ").contains("not TOML"));
        let other = parse_it("sweep = \"other\"\nseed = 1\n").expect_err("other").to_string();
        assert!(other.contains("another sweep"));
    }
}
