//! What a model's id, a revision and a file's path may look like. All three become paths on disk,
//! so nothing may climb out of the cache.

use super::error::HubError;

/// A model's id, split: `("Qwen", "Qwen3-32B")`; the owner is empty for old ids without one.
///
/// # Errors
/// [`HubError::BadId`] for anything the hub would not take as an id.
pub fn split_id(id: &str) -> Result<(&str, &str), HubError> {
    let part_ok = |part: &str| {
        !part.is_empty()
            && part.len() <= 96
            && !part.starts_with(['.', '-'])
            && !part.ends_with(['.', '-'])
            && !part.contains("..")
            && !part.contains("--")
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
    };
    let (owner, name) = id.split_once('/').unwrap_or(("", id));
    let owner_ok = owner.is_empty() && !id.contains('/') || part_ok(owner);
    if owner_ok && part_ok(name) { Ok((owner, name)) } else { Err(HubError::BadId(id.to_owned())) }
}

/// True if a file's path stays below the folder it is relative to.
pub fn is_plain_path(path: &str) -> bool {
    !path.is_empty()
        && !path.contains(['\\', '\0'])
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// Checks a revision before it becomes part of a URL and a path.
///
/// # Errors
/// [`HubError::BadRevision`].
pub fn check_revision(id: &str, revision: &str) -> Result<(), HubError> {
    let ok = revision.len() <= 255
        && is_plain_path(revision)
        && !revision.chars().any(|c| c.is_control() || c.is_whitespace());
    if ok {
        Ok(())
    } else {
        Err(HubError::BadRevision { id: id.to_owned(), revision: revision.to_owned() })
    }
}

/// A full commit: 40 hexadecimal digits.
pub fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_owner_and_name() {
        assert_eq!(split_id("Qwen/Qwen3-30B-A3B").expect("id"), ("Qwen", "Qwen3-30B-A3B"));
        assert_eq!(split_id("gpt2").expect("id"), ("", "gpt2"));
        for bad in
            ["", "/", "a/", "/b", "a/b/c", "../x", "a/..", "a b/c", "a/b\n", "a/x--y", "/etc/x"]
        {
            let error = split_id(bad).expect_err(bad);
            assert!(error.to_string().contains(&format!("`{bad}`")), "{error}");
        }
    }

    #[test]
    fn revisions_stay_below_the_folder_of_references() {
        for good in ["main", "refs/pr/7", "v1.0", "0123456789abcdef0123456789abcdef01234567"] {
            check_revision("a/b", good).expect(good);
        }
        for bad in ["", "..", "a/../b", "/main", "a b", "a//b", "a\\b"] {
            check_revision("a/b", bad).expect_err(bad);
        }
    }
}
