//! Opens an object store, reads from it, and creates objects so that a race has one winner.

mod create;
mod error;
mod named;
mod open;

pub use create::{Created, create_if_absent};
pub use error::StoreError;
pub use open::{memory, open, probe};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, path::Path};

/// An object's bytes, or `None` if it does not exist.
pub async fn read(store: &dyn ObjectStore, key: &str) -> Result<Option<Bytes>, StoreError> {
    let wrap = |error| StoreError::at(store, &format!("reading {key}"), error);
    match store.get(&Path::from(key)).await {
        Ok(found) => Ok(Some(found.bytes().await.map_err(wrap)?)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(wrap(error)),
    }
}

/// Whether an object exists.
pub async fn exists(store: &dyn ObjectStore, key: &str) -> Result<bool, StoreError> {
    match store.head(&Path::from(key)).await {
        Ok(_) => Ok(true),
        Err(object_store::Error::NotFound { .. }) => Ok(false),
        Err(error) => Err(StoreError::at(store, &format!("looking for {key}"), error)),
    }
}

/// Writes an object, whatever was there.
pub async fn write(store: &dyn ObjectStore, key: &str, bytes: Bytes) -> Result<(), StoreError> {
    let wrap = |error| StoreError::at(store, &format!("writing {key}"), error);
    store.put(&Path::from(key), bytes.into()).await.map(|_| ()).map_err(wrap)
}

/// Removes an object; it is no error if it is gone already.
pub async fn remove(store: &dyn ObjectStore, key: &str) -> Result<(), StoreError> {
    match store.delete(&Path::from(key)).await {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(StoreError::at(store, &format!("removing {key}"), error)),
    }
}

/// Everything below a folder, in the order of the keys.
pub async fn list(store: &dyn ObjectStore, folder: &str) -> Result<Vec<ObjectMeta>, StoreError> {
    let wrap = |error| StoreError::at(store, &format!("listing {folder}/"), error);
    let mut found: Vec<_> =
        store.list(Some(&Path::from(folder))).try_collect().await.map_err(wrap)?;
    found.sort_by(|a, b| a.location.cmp(&b.location));
    Ok(found)
}
