//! Plain operations on objects by key, with our errors.

use std::error::Error;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::client::HttpError;
use object_store::{GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt, path::Path};

use super::error::StoreError;

/// An object's bytes, or `None` if it does not exist.
///
/// # Errors
/// The store gave no answer or refused to read.
pub async fn read(store: &dyn ObjectStore, key: &str) -> Result<Option<Bytes>, StoreError> {
    let wrap = |error| StoreError::at(store, &format!("reading {key}"), error);
    match store.get(&Path::from(key)).await {
        Ok(found) => Ok(Some(found.bytes().await.map_err(wrap)?)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(wrap(error)),
    }
}

/// What a look at an object found that may have been seen before.
#[derive(Debug)]
pub enum Look {
    /// There is no such object.
    Absent,
    /// It is as it was when it had the tag that was given.
    Unchanged,
    /// Its bytes, and the tag to look again with; `None` from a store without tags.
    Found { bytes: Bytes, tag: Option<String> },
}

/// Looks at an object again: its bytes travel only if they are not those of `tag`.
///
/// # Errors
/// The store gave no answer or refused to read.
pub async fn look(
    store: &dyn ObjectStore,
    key: &str,
    tag: Option<String>,
) -> Result<Look, StoreError> {
    let wrap = |error| StoreError::at(store, &format!("reading {key}"), error);
    let options = GetOptions { if_none_match: tag, ..GetOptions::default() };
    match store.get_opts(&Path::from(key), options).await {
        Ok(found) => {
            let tag = found.meta.e_tag.clone();
            Ok(Look::Found { bytes: found.bytes().await.map_err(wrap)?, tag })
        }
        Err(object_store::Error::NotFound { .. }) => Ok(Look::Absent),
        Err(object_store::Error::NotModified { .. }) => Ok(Look::Unchanged),
        Err(error) => Err(wrap(error)),
    }
}

/// Whether an object exists.
///
/// # Errors
/// The store gave no answer or refused to look.
pub async fn exists(store: &dyn ObjectStore, key: &str) -> Result<bool, StoreError> {
    match store.head(&Path::from(key)).await {
        Ok(_) => Ok(true),
        Err(object_store::Error::NotFound { .. }) => Ok(false),
        Err(error) => Err(StoreError::at(store, &format!("looking for {key}"), error)),
    }
}

/// Writes an object, whatever was there.
///
/// # Errors
/// The store gave no answer or refused to write.
pub async fn write(store: &dyn ObjectStore, key: &str, bytes: Bytes) -> Result<(), StoreError> {
    let wrap = |error| StoreError::at(store, &format!("writing {key}"), error);
    store.put(&Path::from(key), bytes.into()).await.map(|_| ()).map_err(wrap)
}

/// Removes an object; one that does not exist is not an error.
///
/// # Errors
/// The store gave no answer or refused to remove.
pub async fn remove(store: &dyn ObjectStore, key: &str) -> Result<(), StoreError> {
    match store.delete(&Path::from(key)).await {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(StoreError::at(store, &format!("removing {key}"), error)),
    }
}

/// Everything below a folder, in the order of the keys.
///
/// # Errors
/// The store gave no answer or refused to list.
pub async fn list(store: &dyn ObjectStore, folder: &str) -> Result<Vec<ObjectMeta>, StoreError> {
    let wrap = |error| StoreError::at(store, &format!("listing {folder}/"), error);
    let mut found: Vec<_> =
        store.list(Some(&Path::from(folder))).try_collect().await.map_err(wrap)?;
    found.sort_by(|a, b| a.location.cmp(&b.location));
    Ok(found)
}

/// Asks for the first object below a folder of a store that has just answered. A folder that holds
/// nothing is as good as another; an error that is neither the network's nor a refusal means that
/// the bucket is not there: S3 answers a list of it with a status that the library does not type.
///
/// # Errors
/// The store gave no answer or refused to list, or does not exist.
pub(super) async fn can_list(store: &dyn ObjectStore, folder: &str) -> Result<(), StoreError> {
    let operation = "opening".to_owned();
    match store.list(Some(&Path::from(folder))).next().await {
        None | Some(Ok(_)) => Ok(()),
        Some(Err(error @ object_store::Error::Generic { .. })) if !is_transport(&error) => {
            let source = error.into();
            Err(StoreError::Missing { store: store.to_string(), operation, source })
        }
        Some(Err(error)) => Err(StoreError::at(store, &operation, error)),
    }
}

/// Whether a request got no answer at all.
fn is_transport(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(cause) = next {
        if cause.is::<HttpError>() {
            return true;
        }
        next = cause.source();
    }
    false
}
