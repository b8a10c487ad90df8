//! Stores reviews. Conditional on the version read, so that two reviewers who push at once lose
//! nothing: the second reads again and adds its own.

use std::collections::BTreeMap;

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion};

use super::{Reviews, file, parse};
use crate::collect::Collected;
use crate::error::BadInput;

/// Races lost in a row before giving up.
const TRIES: usize = 5;

/// Adds `mine` to what is stored; a review of the same output by the same reviewer is replaced.
/// Returns how many reviews are stored then.
pub async fn push(
    store: &dyn ObjectStore,
    key: &str,
    mine: &Reviews,
    collected: &Collected,
) -> Result<usize, anyhow::Error> {
    let path = Path::from(key);
    for _ in 0..TRIES {
        let (stored, mode) = match store.get(&path).await {
            Ok(result) => {
                let version = UpdateVersion {
                    e_tag: result.meta.e_tag.clone(),
                    version: result.meta.version.clone(),
                };
                let bytes = result.bytes().await?;
                let text = String::from_utf8_lossy(&bytes).into_owned();
                (Some(parse(&text, key, collected)?), PutMode::Update(version))
            }
            Err(object_store::Error::NotFound { .. }) => (None, PutMode::Create),
            Err(error) => return Err(error.into()),
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
            Err(error) => return Err(error.into()),
        }
    }
    anyhow::bail!("others keep changing {key}: try again in a moment")
}

fn merge(stored: Option<Reviews>, mine: &Reviews) -> Result<Reviews, anyhow::Error> {
    let said = || mine.reviews.iter().filter(|review| !review.is_blank()).cloned();
    let Some(mut stored) = stored else {
        return Ok(Reviews { reviews: said().collect(), ..mine.clone() });
    };
    if stored.seed != mine.seed {
        return Err(BadInput::error(format!(
            "the stored reviews have seed {}, yours {}: the outputs have other names; start again with --seed {} and another --file",
            stored.seed, mine.seed, stored.seed
        )));
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
