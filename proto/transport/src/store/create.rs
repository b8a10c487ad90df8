//! Creates an object only if it is absent, and finds out who won when the answer was lost.

use std::time::Duration;

use bytes::Bytes;
use object_store::{ObjectStore, PutMode, PutOptions, path::Path};

use super::{StoreError, read};

/// What became of a creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// The object now holds our bytes.
    Ours,
    /// Somebody else's object is there; nothing was changed.
    AlreadyThere,
}

/// A 409 may come although nothing was written: so often the creation is tried again.
const CONFLICT_TRIES: u32 = 5;

/// Creates an object unless one is there. A lost answer is resolved by reading back: the same
/// bytes are ours, others are another writer's, none means that the write did not happen.
///
/// # Errors
/// When the store gave no answer, also not to the reading back: the caller may try again, the
/// outcome stays well defined.
pub async fn create_if_absent(
    store: &dyn ObjectStore,
    key: &str,
    bytes: Bytes,
) -> Result<Created, StoreError> {
    let location = Path::from(key);
    let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    let mut pause = Duration::from_millis(50);
    let mut attempt = 0;
    loop {
        attempt += 1;
        let error = match store.put_opts(&location, bytes.clone().into(), options.clone()).await {
            Ok(_) => return Ok(Created::Ours),
            Err(error) => error,
        };
        let conflict = matches!(
            error,
            object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }
        );
        let error = StoreError::at(store, &format!("creating {key}"), error);
        if !conflict && !error.is_transient() {
            return Err(error);
        }
        match read(store, key).await {
            Ok(Some(found)) if found == bytes => return Ok(Created::Ours),
            Ok(Some(_)) => return Ok(Created::AlreadyThere),
            Ok(None) if conflict && attempt < CONFLICT_TRIES => {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            Ok(None) | Err(_) => return Err(error),
        }
    }
}
