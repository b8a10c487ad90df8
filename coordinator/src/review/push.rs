//! Stores reviews. Conditional on the version read, so that two reviewers who push at once lose
//! nothing: the second reads again and adds its own.

use std::collections::BTreeMap;

use bakeoff_transport::store::StoreError;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion};

use super::{Reviews, file, parse};
use crate::collect::Collected;
use crate::toml_file::FileError;

/// Races lost in a row before giving up.
const TRIES: usize = 5;

/// Why reviews were not stored.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    #[error(
        "the stored reviews have seed {stored}, yours {mine}: the outputs have other names; start \
        again with --seed {stored} and another --file"
    )]
    OtherSeed { stored: u64, mine: u64 },
    /// The stored reviews do not read.
    #[error(transparent)]
    Stored(#[from] FileError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("others keep changing {key}: try again in a moment")]
    Contended { key: String },
}

/// Adds `mine` to what is stored; a review of the same output by the same reviewer is replaced.
/// Returns how many reviews are stored then.
pub async fn push(
    store: &dyn ObjectStore,
    key: &str,
    mine: &Reviews,
    collected: &Collected,
) -> Result<usize, PushError> {
    let path = Path::from(key);
    for _ in 0..TRIES {
        let (stored, mode) = match store.get(&path).await {
            Ok(result) => {
                let version = UpdateVersion {
                    e_tag: result.meta.e_tag.clone(),
                    version: result.meta.version.clone(),
                };
                let bytes = result
                    .bytes()
                    .await
                    .map_err(|error| StoreError::at(store, "reading the reviews", error))?;
                let text = String::from_utf8_lossy(&bytes).into_owned();
                (Some(parse(&text, key, collected)?), PutMode::Update(version))
            }
            Err(object_store::Error::NotFound { .. }) => (None, PutMode::Create),
            Err(error) => return Err(StoreError::at(store, "storing the reviews", error).into()),
        };
        let merged = merge(stored, mine)?;
        let text = file::render(&merged, &BTreeMap::new());
        let put = |mode| {
            let options = PutOptions { mode, ..PutOptions::default() };
            store.put_opts(&path, PutPayload::from(text.clone()), options)
        };
        let result = match put(mode).await {
            // A folder has no conditional update; there, one person writes at a time.
            Err(object_store::Error::NotImplemented { .. }) => put(PutMode::Overwrite).await,
            result => result,
        };
        match result {
            Ok(_) => return Ok(merged.reviews.len()),
            Err(
                object_store::Error::Precondition { .. }
                | object_store::Error::AlreadyExists { .. },
            ) => {}
            Err(error) => return Err(StoreError::at(store, "storing the reviews", error).into()),
        }
    }
    Err(PushError::Contended { key: key.to_owned() })
}

fn merge(stored: Option<Reviews>, mine: &Reviews) -> Result<Reviews, PushError> {
    let said = || mine.reviews.iter().filter(|review| !review.is_blank()).cloned();
    let Some(mut stored) = stored else {
        return Ok(Reviews { reviews: said().collect(), ..mine.clone() });
    };
    if stored.seed != mine.seed {
        return Err(PushError::OtherSeed { stored: stored.seed, mine: mine.seed });
    }
    for review in said() {
        let same = |r: &&mut super::Review| {
            r.output == review.output && r.reviewer.eq_ignore_ascii_case(&review.reviewer)
        };
        match stored.reviews.iter_mut().find(same) {
            Some(old) => *old = review,
            None => stored.reviews.push(review),
        }
    }
    Ok(stored)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finished::notebook;
    use crate::review::{Review, blind};

    #[tokio::test]
    async fn pushes_of_two_reviewers_are_merged() {
        let store = object_store::memory::InMemory::new();
        let collected = notebook();
        let name = blind::name(7, &collected.rows[0].cell);
        let by = |reviewer: &str, stars: u8| Reviews {
            sweep: "notebook".into(),
            seed: 7,
            reviews: vec![Review {
                output: name.clone(),
                reviewer: reviewer.into(),
                stars: [("correctness".to_owned(), stars)].into(),
                ..Review::default()
            }],
        };
        let key = "notebook/reviews.toml";
        let push = async |reviews: &Reviews| push(&store, key, reviews, &collected).await;
        assert_eq!(push(&by("Ana", 3)).await.expect("created"), 1);
        assert_eq!(push(&by("Ben", 5)).await.expect("added"), 2);
        assert_eq!(push(&by("ana", 4)).await.expect("replaced"), 2);
        let other = Reviews { seed: 8, ..by("Cyd", 1) };
        assert!(push(&other).await.expect_err("another seed").to_string().contains("seed"));
    }
}
